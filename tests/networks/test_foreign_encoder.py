"""Encoders from elsewhere: files read as data, what an image goes through, which features are the code."""

from __future__ import annotations

import json
import math
import struct
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from test_foreign_weights import Executed, bomb
from tiny import mistake
from torch import nn

from monai_cae.errors import MonaiCaeError
from monai_cae.networks import ForeignEncoder


class Net(nn.Module):
    """Convolution, mean, dense; a head that nobody asks for."""

    def __init__(self, channels: int = 3) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, 4, 1)
        self.norm = nn.BatchNorm2d(4)
        self.fc = nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(self.norm(self.conv(x)).mean(dim=(2, 3)))


class Tokens(nn.Module):
    """Four tokens of three features, and something beside them."""

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, list[int]]:
        return x.flatten(2)[:, :, :12].unflatten(2, (4, 3)).squeeze(1), []


def written(path: Path, state: dict[str, torch.Tensor], prefix: str = "") -> str:
    state = {prefix + name: value.contiguous() for name, value in state.items()}
    if path.suffix == ".safetensors":
        save_file(state, path)
    else:
        torch.save({"epoch": 3, "state_dict": state}, path)
    return str(path)


@pytest.mark.parametrize("name", ["net.safetensors", "net.pth"])
def test_weights_and_preprocessing_of_somebody_else(tmp_path, capsys, name):
    torch.manual_seed(0)
    theirs = Net()
    kept = {name: value for name, value in theirs.state_dict().items() if name != "norm.num_batches_tracked"}
    file = written(tmp_path / name, {**kept, "decoder.weight": torch.zeros(1)}, "module.")
    encoder = ForeignEncoder(
        Net(), (6, 6), file, prefix="module.", layer="conv", channels=3, size=[4, 4], mean=[0.1, 0.2, 0.3], std=0.5
    )
    assert "all 8 tensors of Net found; 1 more in the file are not used: decoder.weight" in capsys.readouterr().out
    assert (encoder.out_channels, encoder.downsampling) == (4, 1)
    image = torch.full((2, 1, 6, 6), 0.5)  # constant, so that any way of resizing gives 0.5
    red_green_blue = torch.tensor([0.8, 0.6, 0.4])  # (0.5 - mean) / 0.5
    expected = theirs.conv.weight[:, :, 0, 0] @ red_green_blue + theirs.conv.bias
    assert torch.allclose(encoder(image), expected.expand(2, 4)[:, :, None, None], atol=1e-6)


def test_an_image_is_standardised_by_its_own_brain():
    encoder = ForeignEncoder(nn.Identity(), (2, 2), by_image=True)
    seen = []
    encoder.network.register_forward_hook(lambda module, given, out: seen.append(out))
    encoder(torch.tensor([[[[0.0, 1.0], [0.0, 3.0]]]]))
    assert seen[0].flatten().tolist() == pytest.approx([0, -1, 0, 1])  # of 1 and 3: mean 2, SD 1; the background is 0


def test_tokens_are_averaged():
    encoder = ForeignEncoder(Tokens(), (4, 4))
    image = torch.arange(16.0).reshape(1, 1, 4, 4)
    assert encoder.out_channels == 3
    assert encoder(image).flatten().tolist() == [4.5, 5.5, 6.5]  # 0, 3, 6, 9; and so on


def test_a_network_can_be_scripted_and_outlined(tmp_path):
    encoder = ForeignEncoder(Net(1), (4, 4), size=8, by_image=True).eval()
    image = torch.rand(2, 1, 4, 4)
    assert torch.equal(torch.jit.script(encoder)(image), encoder(image))
    with pytest.raises(torch.jit.Error, match="a layer's output can't be exported"):
        torch.jit.script(ForeignEncoder(Net(1), (4, 4), layer="conv"))(image)
    file = written(tmp_path / "net.pth", Net(1).state_dict())
    with torch.device("meta"):
        assert ForeignEncoder(Net(1), (4, 4), file).out_channels == 2


def header(text: bytes, size: int | None = None) -> bytes:
    return struct.pack("<Q", len(text) if size is None else size) + text


CLAIM = json.dumps({"conv.weight": {"dtype": "F32", "shape": [10**6, 10**6], "data_offsets": [0, 4 * 10**12]}}).encode()
FILES = {
    "absent.pth": (lambda path: None, "no weights at"),
    "folder.pth": (lambda path: path.mkdir(), "no weights at"),
    "code.pth": (lambda path: torch.save({"conv.weight": Executed()}, path), "is not a PyTorch checkpoint of plain"),
    "bomb.pth": (bomb, "which no checkpoint does"),
    "text.pth": (lambda path: path.write_text("weights"), "is not a PyTorch checkpoint"),
    "two.pth": (
        lambda path: torch.save({"a": {"x": torch.ones(1)}, "b": {"x": torch.ones(1)}}, path),
        "something other than one network's weights",
    ),
    "none.pth": (lambda path: torch.save({}, path), "something other than one network's weights"),
    "list.pth": (lambda path: torch.save([torch.ones(1)], path), "something other than one network's weights"),
    "empty.safetensors": (lambda path: path.write_bytes(b""), "is not a readable .safetensors file"),
    "claim.safetensors": (lambda path: path.write_bytes(header(CLAIM)), "is not a readable .safetensors file"),
    "header.safetensors": (lambda path: path.write_bytes(header(b"{}", 10**15)), "is not a readable .safetensors file"),
    "pickle.safetensors": (lambda path: torch.save({"x": Executed()}, path), "is not a readable .safetensors file"),
    "prefix.pth": (
        lambda path: written(path, Net().state_dict(), "backbone."),
        "8 of 8 tensors are missing, such as conv.weight, conv.bias, norm.weight and 5 more; it has "
        "backbone.conv.weight, backbone.conv.bias, backbone.norm.weight and 6 more",
    ),
    "channels.safetensors": (
        lambda path: written(path, Net(1).state_dict()),
        "conv.weight is (4, 1, 1, 1) in the file, (4, 3, 1, 1) here",
    ),
}


@pytest.mark.fault(
    "weights from elsewhere: pickled code, a bomb, a .safetensors that is empty, a pickle or claims 4 TB, other names",
    "refused in one line that names the file and the first names that differ; nothing is run or unpacked",
)
@pytest.mark.parametrize("name", FILES)
def test_files_of_strangers_are_refused_in_one_line(tmp_path, name):
    write, message = FILES[name]
    write(tmp_path / name)
    with pytest.raises(MonaiCaeError) as error:
        ForeignEncoder(Net(), (4, 4), str(tmp_path / name), channels=3)
    assert message in str(error.value) and "\n" not in str(error.value) and name in str(error.value)


WRONG = {
    "layer": ({"layer": "conv2"}, "Net has no layer 'conv2': its parts are conv, norm, fc"),
    "channels": ({"channels": 1}, "Net can't take 1 channels of 4 x 4"),
    "size": ({"size": [4, 4, 4]}, "size must be 2 sides"),
    "mean": ({"mean": [0.1, 0.2]}, "mean must be one number, or one of each of 3 channels"),
    "std": ({"std": 0}, "std must be one number"),
    "no module": ({"network": "resnet"}, "network must be a module"),
    "no features": ({"network": nn.Flatten(0), "channels": 1}, "gives (16,), which are no features"),
    "no tensor": ({"network": nn.LSTM(4, 2), "channels": 1, "layer": ""}, "can't take 1 channels"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_arguments_are_told_in_one_line(name):
    given, message = WRONG[name]
    with pytest.raises(MonaiCaeError) as error:
        ForeignEncoder(**{"network": Net(), "image_size": (4, 4), "channels": 3, **given})
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x: x * math.nan, "not finite in weight"),
        (lambda x: x.to(torch.int8), "whole or complex numbers in weight"),
        (lambda x: x.to(torch.complex64), "whole or complex numbers in weight"),
    ],
)
def test_broken_and_quantised_numbers_are_refused(change, message, tmp_path):
    network = torch.nn.Conv2d(1, 2, 3)
    torch.save({**network.state_dict(), "weight": change(network.weight.detach())}, tmp_path / "theirs.pth")
    assert message in mistake(ForeignEncoder, network, (4, 4), str(tmp_path / "theirs.pth"))


@pytest.mark.parametrize("size", ["a", 2.5, [4, 0], [4.0, 4], 0])
def test_sides_that_are_none(size):
    assert "size must be 2 sides" in mistake(ForeignEncoder, torch.nn.Conv2d(1, 2, 3), (4, 4), size=size)
