"""Checkpoints of strangers: nothing runs, nothing takes more memory than the file has, one line says why."""

from __future__ import annotations

import pickle
import zipfile
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from torch import nn

from monai_cae.errors import MonaiCaeError
from monai_cae.networks import load_weights, save_weights, trained_on


class Executed:
    def __reduce__(self):
        return Path("executed").touch, ()  # in the working directory, which a fixture looks at


def bomb(path: Path) -> None:
    torch.save({"weight": torch.zeros(1000, 1000), "bias": torch.zeros(2)}, path.with_suffix(".whole"))
    with zipfile.ZipFile(path.with_suffix(".whole")) as whole, zipfile.ZipFile(path, "w") as packed:
        for name in whole.namelist():
            packed.writestr(name, whole.read(name), zipfile.ZIP_DEFLATED)


def weights(**tensors: object):
    return lambda path: torch.save(tensors, path)


FOREIGN = {
    "code": (weights(weight=Executed()), "is not a PyTorch checkpoint of plain weights"),
    "code in an older format": (lambda path: path.write_bytes(pickle.dumps(Executed())), "is not a PyTorch checkpoint"),
    "bomb": (bomb, "which no checkpoint does: do not use it"),
    "large claim": (
        weights(weight=torch.zeros(1).expand(10**6, 10**6), bias=torch.zeros(2)),
        r"weight is \(1000000, 1000000\) in the file, \(2, 3\) here",
    ),
    "no numbers": (
        weights(weight=torch.zeros(2, 3, device="meta"), bias=torch.zeros(2)),
        "not plain numbers in them",
    ),
    "other objects": (weights(weight=[1, 2], bias="text"), "holds something other than one network's weights"),
}


@pytest.mark.fault(
    "weights: pickled code, a deflated checkpoint, a tensor of 10^12 numbers with one stored, tensors without "
    "numbers, other objects",
    "refused in one line that names the file; nothing is run or unpacked",
)
@pytest.mark.parametrize("name", FOREIGN)
def test_foreign_checkpoints_are_refused_in_one_line(tmp_path, name):
    write, message = FOREIGN[name]
    write(tmp_path / "weights.pt")
    with pytest.raises(MonaiCaeError, match=message) as error:
        load_weights(nn.Linear(3, 2), tmp_path / "weights.pt")
    assert "\n" not in str(error.value) and str(tmp_path / "weights.pt") in str(error.value)


@pytest.mark.parametrize("said", [5, {"subjects": 5}, {"subjects": [5, "a"]}, {}])
def test_subjects_of_a_foreign_checkpoint_are_texts_or_none(tmp_path, said):
    state = OrderedDict(nn.Linear(3, 2).state_dict())
    state._metadata = {"monai_cae": said}
    torch.save(state, tmp_path / "weights.pt")
    assert trained_on(tmp_path / "weights.pt") == (
        ["a"] if isinstance(said, dict) and said.get("subjects") == [5, "a"] else []
    )


def test_plain_checkpoints_of_both_formats_load(tmp_path):
    network = nn.Linear(3, 2)
    save_weights(network, tmp_path / "new.pt", trained_on=["b", "a"])
    torch.save(network.state_dict(), tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    for name in ("new.pt", "old.pt"):
        assert torch.equal(load_weights(nn.Linear(3, 2), tmp_path / name).weight, network.weight)
    assert trained_on(tmp_path / "new.pt") == ["a", "b"] and trained_on(tmp_path / "old.pt") == []
