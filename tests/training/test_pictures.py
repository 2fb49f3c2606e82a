"""Small pictures of test scans and their reconstructions, kept by the evaluator."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import torch
from ignite.engine import Engine
from torch import nn

from monai_cae.data import SliceExtraction
from monai_cae.training import KeptPictures, Outcome
from monai_cae.training.results.figures import feature_maps
from monai_cae.training.results.pictures import read_maps, read_pictures

FLAT = SimpleNamespace(picture=lambda image: image[0])


def keep(folder, batches) -> None:
    engine = Engine(lambda engine, batch: {"image": batch["image"], "pred": batch["image"] / 2})
    KeptPictures(str(folder), FLAT).attach(engine)
    engine.run(batches)


def test_each_subject_has_an_upright_pair_of_its_first_scan(tmp_path):
    images = torch.zeros(3, 1, 120, 192)
    images[0, 0, 80:, 128:] = 1.0  # right and anterior: on top
    images[1, 0] = 2.0  # brighter than an image can be
    keep(tmp_path, [{"image": images[:2], "subject": ["007", "B"]}, {"image": images[2:], "subject": ["007"]}])
    found = read_pictures(tmp_path)
    assert set(found) == {"007", "B"} and found["007"].shape == (2, 96, 60) and found["007"].dtype == np.uint8
    image, made = found["007"]
    assert image[4, 55] == 255 and made[4, 55] == 127 and image[90, 55] == 0 and image[4, 4] == 0
    assert (found["B"] == 255).all()


def test_no_or_broken_pictures_are_none(tmp_path):
    assert read_pictures(tmp_path) == {} and read_maps(tmp_path) == ({}, "")
    (tmp_path / "pictures.npz").write_bytes(b"PK?")
    assert read_pictures(tmp_path) == {}


def test_feature_maps_of_an_encoder_without_relu_are_its_code():
    encoder = nn.Sequential(nn.Conv2d(1, 3, 3, stride=2, padding=1), nn.PReLU())
    network = nn.ModuleDict({"encoder": encoder})
    scans = [{"image": torch.rand(1, 8, 12)}]
    outcome = Outcome("pretrain", network, lambda images, part: part(images), SliceExtraction(), scans)
    shown = [(axis.get_title(), axis.get_xlabel()) for axis in feature_maps(outcome).axes]
    assert shown == [("code", "3 of 3 channels, 4 \N{MULTIPLICATION SIGN} 6")]
