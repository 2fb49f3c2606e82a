"""A bundle's networks, built by MONAI from a config that has been screened, and compared with their weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from monai.bundle import ConfigParser
from torch import nn

from monai_cae.errors import MonaiCaeError
from monai_cae.networks import load_weights
from monai_cae.networks.weights import check_fit
from monai_cae.sharing.bundle import DEFINITIONS, Bundle, printable


def load_network(bundle: Bundle, network: str, weights: Path, part: str = "") -> nn.Module:
    """Build "classifier" or "autoencoder", or a part of it, and load its weights.

    Raises:
        MonaiCaeError: what `check_network` refuses.
    """
    check_network(bundle, network, weights, part)
    return load_weights(_network(bundle, network).get_submodule(part), weights, part)


def check_network(bundle: Bundle, network: str, weights: Path, part: str = "") -> None:
    """Compare a config with its weights before the network takes any memory.

    Args:
        bundle: has the config, screened or trusted: MONAI executes what the network is defined by.
        network: "classifier" or "autoencoder".
        weights: the file.
        part: the submodule that they are loaded into; nothing for all of it.

    Raises:
        MonaiCaeError: the config does not define it, there are no weights, or they are another network's.
    """
    with torch.device("meta"):  # shapes, without numbers
        outline = _network(bundle, network)
    if part not in dict(outline.named_modules()):
        raise MonaiCaeError(f"{bundle.config_file}: {DEFINITIONS[network]} has no {part}: it is another bundle's")
    check_fit(outline.get_submodule(part), weights, part)


def built(bundle: Bundle, name: str) -> Any:
    """An item of the bundle's config, as MONAI makes it.

    Raises:
        MonaiCaeError: there is none of that name, or it can't be built.
    """
    if name not in bundle.config:
        raise MonaiCaeError(f"{bundle.config_file} has no {name}: get the file from the bundle again")
    parser = ConfigParser(bundle.config)
    try:
        return parser.get_parsed_content(name)
    except Exception as error:  # whatever a component raises, in MONAI's wrapping
        cause: BaseException = error
        while cause.__cause__ is not None:
            cause = cause.__cause__
        reason = printable(str(cause).strip().partition("\n")[0])
        raise MonaiCaeError(f"{bundle.config_file}: {name} can't be built ({reason})") from error


def _network(bundle: Bundle, network: str) -> nn.Module:
    found = built(bundle, DEFINITIONS[network])
    if not isinstance(found, nn.Module):
        raise MonaiCaeError(f"{bundle.config_file}: {DEFINITIONS[network]} is no network: it is another bundle's")
    return found
