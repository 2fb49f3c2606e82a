"""Codes of frozen encoders in files: computed once, and never another encoder's."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from monai_cae.networks import ConvEncoder, EncoderClassifier
from monai_cae.training import EncodedDataset, PrecisionInferer


def network_of(seed: int = 1, **options) -> EncoderClassifier:
    torch.manual_seed(seed)
    encoder = ConvEncoder(channels=(2, 3))
    return EncoderClassifier(encoder=encoder, spatial_size=(8, 8), hidden=[], **{"pooling": 1, **options})


class Counting:
    """An encoder's calls, by how many images they had."""

    def __init__(self) -> None:
        self.images: list[int] = []
        self.inferer = PrecisionInferer("float32")

    def __call__(self, images, network):
        self.images.append(len(images))
        return self.inferer(images, network)


@pytest.fixture
def items():
    torch.manual_seed(0)
    return [{"image": torch.rand(1, 8, 8), "label": number} for number in range(7)]


def codes_of(items, network, folder="") -> tuple[torch.Tensor, list[int]]:
    counting = Counting()
    found = EncodedDataset(items, network.encoder, counting, 3, network.summarise, folder=str(folder))
    codes = torch.stack([found[number]["image"] for number in range(len(items))])
    assert [found[number]["label"] for number in range(len(items))] == [item["label"] for item in items]
    return codes, counting.images


def test_an_image_is_encoded_once_wherever_it_comes_again(items, tmp_path):
    network = network_of(histogram=4)
    plain, _ = codes_of(items, network)
    first, encoded = codes_of(items[:5], network, tmp_path)
    assert encoded == [1, 3, 2]  # the first tells the encoder
    again, encoded = codes_of([*items[::-1]], network, tmp_path)
    assert encoded == [1, 2]
    assert torch.equal(first, plain[:5]) and torch.equal(again, plain.flip(0))
    assert codes_of(items, network, tmp_path)[1] == [1]


def test_another_encoder_or_summary_or_precision_has_its_own(items, tmp_path):
    codes_of(items, network_of(), tmp_path)
    dead = [network_of(seed) for seed in (3, 4)]
    for one in dead:  # other weights, and one code for everything
        torch.nn.init.zeros_(one.encoder.blocks[-1][-1].weight)
        torch.nn.init.zeros_(one.encoder.blocks[-1][-1].bias)
    for other in (network_of(2), network_of(pooling=2), network_of(histogram=4), *dead):
        codes, encoded = codes_of(items, other, tmp_path)
        assert sum(encoded) == 1 + len(items)
        assert torch.equal(codes, codes_of(items, other)[0])
    assert len([*tmp_path.glob("*.npz")]) == 6


def test_whole_codes_are_not_kept(tmp_path):
    items = [{"image": torch.rand(1, 296, 296), "label": 0}]  # 3 x 148 x 148 numbers
    codes_of(items, network_of(pooling=0), tmp_path)
    assert not [*tmp_path.iterdir()]


def test_a_broken_file_is_made_anew_and_writers_keep_what_others_found(items, tmp_path):
    network = network_of()
    plain, _ = codes_of(items, network)
    codes_of(items[:1], network, tmp_path)
    file: Path = next(tmp_path.glob("*.npz"))
    content = bytearray(file.read_bytes())
    content[-200:-190] = b"0123456789"
    content[80:90] = b"0123456789"
    file.write_bytes(content)
    assert torch.equal(codes_of(items, network, tmp_path)[0], plain)
    file.unlink()
    several = [network_of() for _ in range(6)]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda number: codes_of(items[number : number + 2], several[number], tmp_path), range(6)))
    codes, encoded = codes_of(items, network, tmp_path)
    assert encoded == [1] and torch.equal(codes, plain)
