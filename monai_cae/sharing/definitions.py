"""A bundle's networks, built from the plain values of its config: no expression is evaluated, nothing else called."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from pydoc import locate
from typing import Any

import torch
from torch import nn

from monai_cae.data import Extraction, SliceExtraction
from monai_cae.errors import MonaiCaeError
from monai_cae.networks import (
    ConvAutoencoder,
    ConvDecoder,
    ConvEncoder,
    EncoderClassifier,
    ResNet50Encoder,
    VGG16Encoder,
    load_weights,
)
from monai_cae.networks.weights import check_fit
from monai_cae.sharing.bundle import DEFINITIONS, Bundle, printable

_NETWORKS = {
    f"monai_cae.networks.{network.__name__}": network
    for network in (ConvAutoencoder, ConvDecoder, ConvEncoder, EncoderClassifier, ResNet50Encoder, VGG16Encoder)
}
_EXTRACTIONS = {"monai_cae.data.SliceExtraction": SliceExtraction}
# what the shipped networks take of the extraction: its words in the configs, and what they mean
_COMPUTED: dict[str, Callable[[Extraction, int], Any]] = {
    "$@extraction.spatial_dims": lambda extraction, size: extraction.spatial_dims,
    "$@extraction.channels": lambda extraction, size: extraction.channels,
    "$[@image_size] * @extraction.spatial_dims": lambda extraction, size: [size] * extraction.spatial_dims,
}
_LONGEST = 1000  # of a list
_UNREADABLE = (KeyError, TypeError, ValueError, RuntimeError, ArithmeticError, IndexError, RecursionError, MemoryError)


def load_network(bundle: Bundle, network: str, weights: Path, part: str = "") -> nn.Module:
    """Build "classifier" or "autoencoder", or a part of it, and load its weights.

    Raises:
        MonaiCaeError: what `check_network` refuses.
    """
    check_network(bundle, network, weights, part)
    return load_weights(_built(bundle, network).get_submodule(part), weights, part)


def check_network(bundle: Bundle, network: str, weights: Path, part: str = "") -> None:
    """Compare a config with its weights before the network takes any memory.

    Args:
        bundle: has the config.
        network: "classifier" or "autoencoder".
        weights: the file.
        part: the submodule that they are loaded into; nothing for all of it.

    Raises:
        MonaiCaeError: the config defines it otherwise than by this package's networks and plain values, there are no
            weights, or they are another network's.
    """
    with torch.device("meta"):  # shapes, without numbers
        outline = _built(bundle, network)
    if part not in dict(outline.named_modules()):
        raise MonaiCaeError(f"{bundle.config_file}: {DEFINITIONS[network]} has no {part}: it is another bundle's")
    check_fit(outline.get_submodule(part), weights, part)


def _built(bundle: Bundle, network: str) -> nn.Module:
    name = DEFINITIONS[network]
    if name not in bundle.config:
        raise MonaiCaeError(f"{bundle.config_file} has no {name}: take the file from the bundle again")
    try:
        built = _build(bundle, bundle.config[name])
    except _UNREADABLE as error:
        reason = str(error) if isinstance(error, MonaiCaeError) else f"{type(error).__name__}: {error}"
        raise MonaiCaeError(
            f"{bundle.config_file}: {name} can't be built as data ({printable(reason)}): it is another bundle's"
        ) from error
    if not isinstance(built, nn.Module):
        raise MonaiCaeError(f"{bundle.config_file}: {name} is no network: it is another bundle's")
    return built


def _class(bundle: Bundle, target: Any, known: Mapping[str, type], kind: type, what: str) -> type:
    """The class of that name: one of this package's, or any that can be imported where the bundle is trusted."""
    found = known.get(target) or (locate(target) if bundle.doubts and isinstance(target, str) else None)
    if not (isinstance(found, type) and issubclass(found, kind)):
        raise MonaiCaeError(f"{target} is not {what}{' that Python finds' if bundle.doubts else ' of monai-cae'}")
    return found


def extraction_of(bundle: Bundle) -> Extraction:
    """What a bundle's network sees, from the plain values of its config.

    Raises:
        MonaiCaeError: the config defines it otherwise than by this package's extraction and plain values.
    """
    config = bundle.config
    try:
        given = {**config["extraction"]}
        kind = _class(bundle, given.pop("_target_"), _EXTRACTIONS, Extraction, "an extraction")
        values = {name: config[v[1:]] if str(v).startswith("@") else v for name, v in given.items()}
        return kind(**values)
    except _UNREADABLE as error:
        raise MonaiCaeError(f"{bundle.config_file}: extraction can't be built ({printable(str(error))})") from error


def _build(bundle: Bundle, value: Any) -> Any:
    if isinstance(value, dict):
        if "_target_" not in value:
            return {name: _build(bundle, member) for name, member in value.items()}
        arguments = {name: _build(bundle, member) for name, member in value.items() if not name.startswith("_")}
        return _class(bundle, value["_target_"], _NETWORKS, nn.Module, "a network")(**arguments)
    if isinstance(value, list) and len(value) > _LONGEST:
        raise MonaiCaeError(f"a list of {len(value)} values")
    if isinstance(value, list):
        return [_build(bundle, member) for member in value]
    if isinstance(value, str) and value in _COMPUTED:
        return _COMPUTED[value](extraction_of(bundle), bundle.config["image_size"])
    if isinstance(value, str) and value.startswith("@"):
        return _build(bundle, bundle.config[value[1:]])
    if isinstance(value, str) and value:  # nothing is what networks take for "no file of weights"
        raise MonaiCaeError(f"{value!r} is not a plain value")
    return value
