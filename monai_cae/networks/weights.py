"""Reading checkpoints as data: nothing in the file is executed, and a misfit is one line."""

from __future__ import annotations

import pickle
import struct
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn

from monai_cae.errors import MonaiCaeError
from monai_cae.files import marked, replacing, unmarked

Network = TypeVar("Network", bound=nn.Module)
_UNREADABLE = (
    pickle.UnpicklingError, struct.error, RuntimeError, EOFError, LookupError, ValueError, TypeError, AttributeError,
)  # fmt: skip
_OURS = "monai_cae"  # no submodule has this name, so `load_state_dict` passes over it


def save_weights(
    weights: nn.Module | Mapping[str, torch.Tensor],
    path: str | Path,
    trained_on: Iterable[str] = (),
    network_input: Mapping[str, Any] | None = None,
    labels_of: Iterable[str] = (),
) -> None:
    """Write a plain state dict, atomically, with hashed IDs of the subjects it has seen and a record of its input.

    All are in the state dict's own metadata, so the file is what `torch.load` and MONAI expect of plain weights.

    Args:
        weights: a network, or its state dict.
        path: the file.
        trained_on: hashed subject IDs, see `monai_cae.data.hash_subject`.
        network_input: plain values, see `monai_cae.data.NetworkInput`.
        labels_of: hashed IDs of the subjects whose labels it has learned.

    Raises:
        MonaiCaeError: the file can't be written.
    """
    given = weights.state_dict() if isinstance(weights, nn.Module) else weights
    state: Any = OrderedDict((name, tensor.cpu()) for name, tensor in given.items())  # who loads it may have no GPU
    ours = {"subjects": sorted(set(trained_on)), **({"input": dict(network_input)} if network_input else {})}
    ours |= {"labels": sorted(set(labels_of))} if labels_of else {}
    state._metadata = {**getattr(given, "_metadata", {}), _OURS: marked(ours)}
    write_checkpoint(state, path)


def write_checkpoint(content: Any, path: str | Path) -> None:
    """Write tensors and plain values with `torch.save`, atomically.

    Raises:
        MonaiCaeError: the file can't be written, by a full disk for instance.
    """
    with replacing(path) as temporary, temporary.open("wb") as file:
        try:
            torch.save(content, file)
        except RuntimeError as error:
            if isinstance(error.__context__, OSError):  # PyTorch tells of its own confusion after it
                raise error.__context__ from error
            raise


def read_checkpoint(path: str | Path, advice: str = "name another file") -> Any:
    """Read a file of `torch.save` as data.

    Args:
        path: the file.
        advice: what the user should do if it can't be read.

    Raises:
        MonaiCaeError: not only tensors and plain values, a broken file, or one of a later format.
    """
    _refuse_bomb(Path(path))
    try:
        with warnings.catch_warnings():  # PyTorch warns of pickles before it refuses them
            warnings.simplefilter("ignore")
            content = torch.load(path, map_location="cpu", weights_only=True)
    except _UNREADABLE as error:
        raise MonaiCaeError(f"{path} is not a PyTorch checkpoint of plain weights: {advice}") from error
    unmarked(_ours_in(content), path)
    return unmarked(content, path) if type(content) is dict else content


def read_state(path: str | Path) -> Mapping[str, torch.Tensor]:
    """The tensors of one network, by their names.

    Raises:
        MonaiCaeError: the file has something else.
    """
    state = read_checkpoint(path)
    if not isinstance(state, Mapping) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise MonaiCaeError(f"{path} holds something other than one network's weights: name another file")
    return state


def trained_on(path: str | Path) -> list[str]:
    """Hashed IDs of the subjects that a checkpoint has seen; empty if the file is missing or has none."""
    return _hashes(path, "subjects")


def labels_learned(path: str | Path) -> list[str]:
    """Hashed IDs of the subjects whose labels a checkpoint has learned; empty if the file is missing, or has none,
    as of an autoencoder that learns from images alone."""
    return _hashes(path, "labels")


def trained_with(*paths: str | Path) -> dict[str, dict[str, Any]]:
    """Checkpoint -> its recorded `network_input` (see `save_weights`); nothing if the file is missing or has none."""
    recorded = {str(path): _ours(path).get("input") for path in paths}
    return {path: dict(given) for path, given in recorded.items() if isinstance(given, Mapping)}


def _hashes(path: str | Path, name: str) -> list[str]:
    subjects = _ours(path).get(name)
    return [subject for subject in subjects if isinstance(subject, str)] if isinstance(subjects, list) else []


def _ours(path: str | Path) -> Mapping[str, Any]:
    return _ours_in(read_checkpoint(path)) if Path(path).is_file() else {}


def _ours_in(content: Any) -> Mapping[str, Any]:
    metadata = getattr(content, "_metadata", {})
    ours = metadata.get(_OURS) if isinstance(metadata, Mapping) else None
    return ours if isinstance(ours, Mapping) else {}


def on_device(network: Network, device: str | torch.device) -> Network:
    """Move the network to a device, with convolution weights in channels-last order.

    Raises:
        MonaiCaeError: it has no encoder.
    """
    if not any(name.rpartition(".")[2] == "encoder" for name, _ in network.named_modules()):  # of each of an ensemble
        raise MonaiCaeError(
            f"{type(network).__name__} has no encoder: give it a module of that name that makes the code"
        )
    sizes = {weight.ndim for weight in network.parameters()}  # a format is for weights of its number of dimensions
    order = torch.channels_last if 5 not in sizes else torch.channels_last_3d
    if {4, 5} <= sizes:
        order = torch.preserve_format
    network.to(device, memory_format=order)  # type: ignore[call-overload]
    return network


def load_weights(network: Network, path: str | Path, part: str = "") -> Network:
    """Load a state dict into a network, strictly.

    Args:
        network: module to fill, in place.
        path: file written by `torch.save(network.state_dict(), path)` or MONAI's `CheckpointSaver`.
        part: the network is this submodule of the one in the file, e.g. "encoder"; nothing for all of it.

    Returns:
        The same network.

    Raises:
        MonaiCaeError: no such file, a file without weights, or weights of another architecture.
    """
    state = _fitting(network, Path(path), part)
    try:
        network.load_state_dict(dict(state))
    except RuntimeError as error:  # tensors without numbers, or of a kind that can't be copied
        raise MonaiCaeError(f"{path} has the right shapes, but not plain numbers in them: name another file") from error
    return network


def check_fit(network: nn.Module, path: str | Path, part: str = "") -> None:
    """Raise what `load_weights` would raise, without memory if the network is on the device "meta"."""
    _fitting(network, Path(path), part)


def _fitting(network: nn.Module, path: Path, part: str) -> Mapping[str, torch.Tensor]:
    if not path.is_file():
        raise MonaiCaeError(f"no checkpoint at {path}: check the path, or train one first")
    state = read_state(path)
    if part:
        prefix = f"{part}."
        state = {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
    misfit = first_misfit(network.state_dict(), state)
    if misfit:
        raise MonaiCaeError(
            f"{path} holds the weights of a different architecture than {type(network).__name__} ({misfit}): "
            "name a checkpoint of this network, or set the network's arguments as they were in its training"
        )
    return state


def _refuse_bomb(path: Path) -> None:
    """PyTorch writes its zips uncompressed, and inflates whatever it is given: one of 5 MB can take 5 GB of memory."""
    try:
        with zipfile.ZipFile(path) as archive:
            unpacked = sum(info.file_size for info in archive.infolist())
    except (zipfile.BadZipFile, OSError):
        return  # no zip: an older format, or nothing that PyTorch reads
    if unpacked > path.stat().st_size:
        raise MonaiCaeError(
            f"{path} has {path.stat().st_size:,} bytes and unpacks to {unpacked:,}, which no checkpoint does: do not "
            "use it"
        )


def first_misfit(ours: Mapping[str, torch.Tensor], theirs: Mapping[str, torch.Tensor]) -> str:
    """What the second state dict has otherwise than the first, in words; "" for nothing."""
    for name, tensor in ours.items():
        if name not in theirs:
            return f"{name} is missing"
        if theirs[name].shape != tensor.shape:
            return f"{name} is {tuple(theirs[name].shape)} in the file, {tuple(tensor.shape)} here"
    return next((f"{name} is unknown here" for name in theirs if name not in ours), "")
