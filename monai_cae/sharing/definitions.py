"""A bundle's networks, built from the plain values of its config: no expression is evaluated, nothing else called."""

from __future__ import annotations

from typing import Any

from torch import nn

from monai_cae.errors import MonaiCaeError
from monai_cae.networks import ConvAutoencoder, ConvDecoder, ConvEncoder, EncoderClassifier
from monai_cae.sharing.bundle import DEFINITIONS, Bundle

_NETWORKS = {
    f"monai_cae.networks.{network.__name__}": network
    for network in (ConvAutoencoder, ConvDecoder, ConvEncoder, EncoderClassifier)
}


def build_network(bundle: Bundle, network: str) -> nn.Module:
    """Build "classifier" or "autoencoder" with random weights.

    Raises:
        MonaiCaeError: the config defines it otherwise than by this package's networks and plain values.
    """
    name = DEFINITIONS[network]
    try:
        built = _build(bundle, bundle.config[name])
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        reason = str(error) if isinstance(error, MonaiCaeError) else f"{type(error).__name__}: {error}"
        raise MonaiCaeError(
            f"{bundle.config_file}: {name} can't be built as data ({reason}): it is another bundle's"
        ) from error
    return built


def _build(bundle: Bundle, value: Any) -> Any:
    if isinstance(value, dict):
        if "_target_" not in value:
            return {name: _build(bundle, member) for name, member in value.items()}
        if value.get("_target_") not in _NETWORKS:
            raise MonaiCaeError(f"{value.get('_target_')} is no network of monai-cae")
        arguments = {name: _build(bundle, member) for name, member in value.items() if not name.startswith("_")}
        return _NETWORKS[value["_target_"]](**arguments)
    if isinstance(value, list):
        return [_build(bundle, member) for member in value]
    if isinstance(value, str) and value.startswith("@"):
        return _build(bundle, bundle.config[value[1:]])
    if isinstance(value, str):
        raise MonaiCaeError(f"{value!r} is not a plain value")
    return value
