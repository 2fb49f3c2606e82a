"""What an autoencoder's engines take from a batch, and how a classifier gets its pretrained encoder."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from monai.utils import CommonKeys
from torch import nn

from monai_cae.errors import MonaiCaeError
from monai_cae.networks import load_weights, reconstruction_of, trained_on
from monai_cae.networks.head import VoteLoss, VotingHead

Network = TypeVar("Network", bound=nn.Module)


def reconstruction_batch(
    batchdata: Mapping[str, torch.Tensor],
    device: str | torch.device | None = None,
    non_blocking: bool = False,
    **kwargs: Any,
) -> tuple[torch.Tensor, torch.Tensor]:
    """MONAI `prepare_batch` of an autoencoder: the image is the input and the target.

    Args:
        batchdata: has `image`, shape `(N, C, H, W[, D])`.
        device, non_blocking, kwargs: as for `torch.Tensor.to`.
    """
    image = batchdata[CommonKeys.IMAGE].to(device=device, non_blocking=non_blocking, **kwargs)
    return image, image


def labelled_batch(
    batchdata: Mapping[str, torch.Tensor],
    device: str | torch.device | None = None,
    non_blocking: bool = False,
    **kwargs: Any,
) -> tuple[torch.Tensor, tuple[torch.Tensor, torch.Tensor]]:
    """As `reconstruction_batch`, but the target is the image and its label of shape `(N, 1)`."""
    image, _ = reconstruction_batch(batchdata, device, non_blocking, **kwargs)
    return image, (image, batchdata[CommonKeys.LABEL].to(device=device, non_blocking=non_blocking, **kwargs))


def batch_for(loss: nn.Module) -> Callable[..., tuple[torch.Tensor, Any]]:
    """The `prepare_batch` of an autoencoder's training: `labelled_batch` for a loss with `labelled`, else
    `reconstruction_batch`."""
    return labelled_batch if getattr(loss, "labelled", False) else reconstruction_batch


class Reconstructed:
    """Postprocessing of an evaluator: the image in an autoencoder's output, for metrics.

    Args:
        network: the autoencoder, see `monai_cae.networks.reconstruction_of`.
    """

    def __init__(self, network: nn.Module) -> None:
        self.network = network

    def __call__(self, data: Mapping[str, Any]) -> dict[str, Any]:
        """Replace `pred` by its image."""
        return {**data, CommonKeys.PRED: reconstruction_of(self.network, data[CommonKeys.PRED])}


def with_pretrained(network: Network, autoencoder: nn.Module, pretrained: str) -> Network:
    """A classifier whose encoder has the weights of a trained autoencoder.

    Args:
        network: the classifier; its encoder is the autoencoder's encoder, one module.
        autoencoder: takes the weights.
        pretrained: checkpoint of the autoencoder, or "none" for random weights.

    Raises:
        MonaiCaeError: no such checkpoint, or one of another architecture.
    """
    if str(pretrained) != "none":
        if not Path(pretrained).is_file():
            raise MonaiCaeError(
                f"no pretrained autoencoder at {pretrained}: make one with `python -m monai.bundle run training "
                "--config_file .../configs/pretrain.json` and the same --dataset_dir and --output_dir, "
                "or start from random weights with --pretrained none"
            )
        load_weights(autoencoder, pretrained)
    return network


def learned_loss(network: nn.Module, loss: nn.Module) -> nn.Module:
    """The loss that a classifier learns by.

    Args:
        network: the classifier.
        loss: the target's, of outputs and labels of shape `(N, 1)`.

    Returns:
        `VoteLoss` of it where the network's samples vote, else the loss itself.
    """
    return VoteLoss(loss) if isinstance(getattr(network, "head", None), VotingHead) else loss


def seen_by(checkpoint: str, pretrained: str) -> list[str]:
    """Hashed IDs of the subjects that a classifier and its autoencoder have seen.

    Args:
        checkpoint: of the classifier.
        pretrained: of the autoencoder.

    Raises:
        MonaiCaeError: one of them is missing; names the stage that makes it.
    """
    for path, stage, option in ((checkpoint, "train", "checkpoint"), (pretrained, "pretrain", "pretrained")):
        if not Path(path).is_file():
            raise MonaiCaeError(
                f"no checkpoint at {path}: run {stage}.json with the same --output_dir first, or name one with "
                f"--{option}"
            )
    return trained_on(checkpoint) + trained_on(pretrained)
