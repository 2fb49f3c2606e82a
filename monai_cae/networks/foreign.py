"""Encoders from elsewhere: a network of any class, its weights from a local file, what it expects of an image."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from monai_cae.errors import MonaiCaeError
from monai_cae.networks.weights import read_checkpoint
from monai_cae.terminal import say

_SHOWN = 3
_told: set[str] = set()  # a network is built many times, for many stages


class ForeignEncoder(nn.Module):
    """A network from elsewhere as the encoder of an `EncoderClassifier`, its features as the code.

    An image goes through what the network was trained with: its channel is copied to `channels`, it is resized to
    `size`, standardised by its own brain (`by_image`) or by `mean` and `std`. The code is what comes out of the network
    or of one of its layers, averaged over places or tokens.

    Args:
        network: of any class; `layer` names a part of it.
        image_size: sides of the images that come.
        weights_file: .safetensors, or a file of `torch.save` that holds tensors and plain values alone. Nothing is run.
            "" for the weights that the network has: the control, or if a checkpoint of this encoder is loaded.
        prefix: of the names in the file that are the network's; others are not looked at.
        layer: dotted name of the layer whose output is the code, such as "layer4"; "" for the network's own output.
        channels: of the images that the network was trained on.
        size: sides of these, to which others are resized; null for `image_size`.
        by_image: mean 0 and SD 1 over the numbers of each image that are not 0, before `mean` and `std`.
        mean, std: subtracted, and divided by; one number, or one of each channel; of images in [0, 1].

    Attributes:
        out_channels: features of an image.
        downsampling: 1, as there is one place, whatever the image's size.

    Raises:
        MonaiCaeError: a file that is missing, no plain weights or others than the network's, no such layer, or features
            of another shape than `(N, C)`, `(N, tokens, C)` or `(N, C, H, W[, D])`.
    """

    def __init__(
        self,
        network: nn.Module,
        image_size: Sequence[int],
        weights_file: str = "",
        *,
        prefix: str = "",
        layer: str = "",
        channels: int = 1,
        size: Sequence[int] | int | None = None,
        by_image: bool = False,
        mean: Sequence[float] | float = 0.0,
        std: Sequence[float] | float = 1.0,
    ) -> None:
        super().__init__()
        if not isinstance(network, nn.Module):
            raise MonaiCaeError(f"network must be a module, such as {{_target_: my.Network}}, not {network!r}")
        dims = len(image_size)
        self.network = network
        self.channels = channels
        sides = [*image_size] if size is None else [size] * dims if isinstance(size, int) else size
        self.by_image = by_image
        self.layer = layer
        self.mean: torch.Tensor
        self.std: torch.Tensor
        for name, given in (("mean", mean), ("std", std)):
            self.register_buffer(name, _by_channel(name, given, channels, dims), persistent=False)
        if not isinstance(sides, Sequence) or len(sides) != dims or any(type(n) is not int or n < 1 for n in sides):
            raise MonaiCaeError(f"size must be {dims} sides, or one number for all, not {size!r}")
        self.size = [*sides]
        if layer and layer not in dict(network.named_modules()):
            known = ", ".join(name for name, _ in network.named_children())
            raise MonaiCaeError(f"{type(network).__name__} has no layer {layer!r}: its parts are {known}")
        if weights_file:
            load_foreign(network, weights_file, prefix)
        self.downsampling = 1
        self.out_channels = self._features()

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """
        Args:
            image: shape `(N, C, H, W[, D])`, values in [0, 1]; C is 1 or `channels`.

        Returns:
            Code of shape `(N, out_channels, 1, 1[, 1])`.
        """
        if list(image.shape[2:]) != self.size:
            mode = "bilinear" if image.ndim == 4 else "trilinear"
            image = functional.interpolate(image, self.size, mode=mode, antialias=image.ndim == 4)
        if self.by_image:
            image = _standardised(image)
        image = (image - self.mean) / self.std  # a single channel is broadcast to all
        image = image.expand([-1, self.channels] + [-1] * (image.ndim - 2))
        if torch.jit.is_scripting():
            if self.layer != "":
                raise RuntimeError("a layer's output can't be exported: give the network up to it, and layer ''")
            code = self.network(image)
        else:
            code = self._output(image)
        if code.ndim == 3:  # of a transformer's tokens
            code = code.mean(dim=1)
        code = code.flatten(2).mean(dim=2) if code.ndim > 2 else code
        return code.reshape([code.shape[0], -1] + [1] * (image.ndim - 2))

    def _output(self, image: torch.Tensor) -> torch.Tensor:
        if not self.layer:
            return _first(self.network(image))
        found: list[Any] = []
        hook = self.network.get_submodule(self.layer).register_forward_hook(lambda *call: found.append(call[2]))
        try:
            self.network(image)
        finally:
            hook.remove()
        if len(found) != 1:
            raise MonaiCaeError(
                f"layer {self.layer} is used {len(found)} times for an image: name one that is used once"
            )
        return _first(found[0])

    def _features(self) -> int:
        """How many there are, found by trying."""
        training, where = self.training, next(iter(self.network.parameters()), self.mean).device
        self.eval()
        try:
            with torch.no_grad():
                code = self._output(torch.zeros(1, self.channels, *self.size, device=where))
                known = code.ndim in (2, 3, 2 + len(self.size))
        except MonaiCaeError:
            raise
        except Exception as error:  # whatever a network of somebody's raises
            reason = str(error).strip().partition("\n")[0]
            raise MonaiCaeError(
                f"{type(self.network).__name__} can't take {self.channels} channels of "
                f"{' x '.join(map(str, self.size))} ({reason}): set channels and size as in its training"
            ) from error
        finally:
            self.train(training)
        if not known:
            raise MonaiCaeError(
                f"layer {self.layer or type(self.network).__name__} gives {tuple(code.shape)}, which are no features: "
                "name a layer that gives (N, C), (N, tokens, C) or (N, C, places ...)"
            )
        return int(code.shape[2 if code.ndim == 3 else 1])


def load_foreign(network: nn.Module, path: str, prefix: str = "") -> None:
    """Load a network's weights from a file of somebody else's, read as data, and say how many there were.

    Every tensor of the network must be in the file; what the file has besides, such as a head, is not used.

    Args:
        network: to be filled, in place.
        path: see `ForeignEncoder`; of a mapping of several things the one that has tensors, such as "state_dict".
        prefix: of the names that are the network's.

    Raises:
        MonaiCaeError: no such file, no plain weights, or tensors that are missing or have other shapes.
    """
    file = _tensors(Path(path))
    theirs = {name.removeprefix(prefix): value for name, value in file.items() if name.startswith(prefix)}
    counters = {name for name in network.state_dict() if name.endswith("num_batches_tracked")}  # which nothing reads
    ours = {name: value for name, value in network.state_dict().items() if name not in counters}
    missing = [name for name in ours if name not in theirs]
    other = [
        f"{name} is {tuple(theirs[name].shape)} in the file, {tuple(value.shape)} here"
        for name, value in ours.items()
        if name in theirs and theirs[name].shape != value.shape
    ]
    unused = [name for name in theirs if name not in ours and name not in counters]
    if missing or other:
        lacks = f"{len(missing)} of {len(ours)} tensors are missing, such as {_few(missing)}; it has {_few([*file])}"
        raise MonaiCaeError(
            f"{path} does not hold the weights of this {type(network).__name__} ({lacks if missing else _few(other)}): "
            "set prefix, or the network's arguments, as in its training"
        )
    if any(value.is_meta for value in ours.values()):  # an outline, without numbers
        return
    if bad := [name for name, value in ours.items() if value.is_floating_point() != theirs[name].is_floating_point()]:
        raise MonaiCaeError(f"{path} has whole or complex numbers in {_few(bad)}: name a file that is not quantised")
    try:
        network.load_state_dict({name: theirs[name] for name in ours}, strict=False)
    except RuntimeError as error:
        raise MonaiCaeError(f"{path} has no plain numbers in its tensors: name another file") from error
    bad = [name for name, value in network.state_dict().items() if name in ours and not value.isfinite().all()]
    if bad:
        raise MonaiCaeError(f"{path} has numbers that are not finite in {_few(bad)}: name another file")
    line = f"{Path(path).name}: all {len(ours)} tensors of {type(network).__name__} found"
    line += f"; {len(unused)} more in the file are not used: {_few(unused)}" if unused else ""
    if line not in _told:
        _told.add(line)
        say(line)


def _tensors(path: Path) -> Mapping[str, torch.Tensor]:
    if not path.is_file():
        raise MonaiCaeError(f"no weights at {path}: check the path, or leave it empty for random weights")
    content = _read_safetensors(path) if path.suffix.lower() == ".safetensors" else read_checkpoint(path)
    if isinstance(content, Mapping) and not any(isinstance(value, torch.Tensor) for value in content.values()):
        inner = [value for value in content.values() if _is_state(value)]
        content = inner[0] if len(inner) == 1 else content
    if not _is_state(content):
        raise MonaiCaeError(f"{path} holds something other than one network's weights: name another file")
    return content


def _is_state(content: Any) -> bool:
    return isinstance(content, Mapping) and bool(content) and all(
        isinstance(name, str) and isinstance(value, torch.Tensor) for name, value in content.items()
    )  # fmt: skip


def _read_safetensors(path: Path) -> Any:
    try:
        from safetensors import SafetensorError
        from safetensors.torch import load_file
    except ImportError as error:
        raise MonaiCaeError(f"{path} needs safetensors: pip install 'monai-cae[safetensors]'") from error
    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError, KeyError, MemoryError) as error:
        raise MonaiCaeError(f"{path} is not a readable .safetensors file ({error}): name another file") from error


def _by_channel(name: str, given: Sequence[float] | float, channels: int, dims: int) -> torch.Tensor:
    try:
        numbers = [float(number) for number in ([given] if isinstance(given, (int, float)) else given)]
    except (TypeError, ValueError):
        numbers = []
    if (
        len(numbers) not in (1, channels)
        or not all(map(math.isfinite, numbers))
        or (name == "std" and min(numbers) <= 0)
    ):
        raise MonaiCaeError(f"{name} must be one number, or one of each of {channels} channels, not {given!r}")
    return torch.tensor(numbers).reshape(1, -1, *[1] * dims)


def _standardised(image: torch.Tensor) -> torch.Tensor:
    """Mean 0 and SD 1 over what is not 0 of each image; the rest becomes 0."""
    brain = (image != 0).to(image.dtype)
    places = list(range(1, image.ndim))
    count = brain.sum(dim=places, keepdim=True).clamp(min=1)
    centred = (image - (image * brain).sum(dim=places, keepdim=True) / count) * brain
    return centred / (centred.square().sum(dim=places, keepdim=True) / count).sqrt().clamp(min=1e-6)


def _first(output: Any) -> torch.Tensor:
    """The output, or the first of several."""
    found = output[0] if isinstance(output, (tuple, list)) and output else output
    if not isinstance(found, torch.Tensor):
        raise MonaiCaeError(f"the network gives a {type(found).__name__}, which is no tensor: name a layer")
    return found


def _few(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
