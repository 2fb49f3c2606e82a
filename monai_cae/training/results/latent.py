"""What the numbers of an autoencoder's code do on images that it was not trained on."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from monai_cae.networks.variational import divergence
from monai_cae.training.results.figures import Infer

MOSTLY = 0.5  # share of dead channels from which on a reader has to know
ACTIVE = 0.01  # variance of a mean over the images: Burda et al., Importance weighted autoencoders, ICLR 2016
COLLAPSED = 0.1  # share of active dimensions under which the code has collapsed


def latent_statistics(network: nn.Module, images: torch.Tensor, inferer: Infer) -> tuple[dict[str, float], list[str]]:
    """Statistics of the code of images, for MLflow and results_pretrain.json.

    Args:
        network: the autoencoder, in evaluation mode. One whose encoder has `distribution(image)`, which gives means and
            logarithms of variances of shape `(N, L)`, is variational.
        images: on its device, shape `(N, C, H, W[, D])`.
        inferer: calls the network.

    Returns:
        `latent_dead`: share of the code's channels that have one number everywhere, in all images; `latent_active`:
        share of the code's numbers that are not 0; of a variational autoencoder also `latent_kl`, in nats for each
        image, and `latent_active_dimensions`, how many. And a caveat where most channels are dead or the divergence
        has collapsed.
    """
    encoder = network.get_submodule("encoder")
    distribution: Any = getattr(encoder, "distribution", None)
    lowest, highest, nonzero, count = [], [], 0, 0
    gaussians: list[tuple[torch.Tensor, torch.Tensor]] = []
    with torch.no_grad():
        for batch in images.split(8):
            code = inferer(batch, encoder)
            of_channel = code.transpose(0, 1).flatten(1)
            lowest.append(of_channel.amin(dim=1))
            highest.append(of_channel.amax(dim=1))
            nonzero += int(code.count_nonzero())
            count += code.numel()
            if distribution is not None:
                gaussians.append(inferer(batch, distribution))
    channels = len(lowest[0])
    dead = int((torch.stack(lowest).amin(dim=0) == torch.stack(highest).amax(dim=0)).sum())
    statistics: dict[str, Any] = {"latent_dead": dead / channels, "latent_active": nonzero / count}
    caveats = []
    if dead > MOSTLY * channels:
        caveats.append(f"DEAD UNITS: {dead} of the code's {channels} channels are the same in all validation images.")
    if gaussians:
        mean, log_variance = (torch.cat(parts) for parts in zip(*gaussians, strict=True))
        kl = float(divergence(mean, log_variance).sum(dim=1).mean())
        active = int((mean.var(dim=0, unbiased=False) > ACTIVE).sum())
        statistics |= {"latent_kl": kl, "latent_active_dimensions": active}
        if active < max(1, COLLAPSED * channels):
            caveats.append(
                f"COLLAPSED CODE: {active} of {channels} dimensions differ between the validation images (divergence "
                f"{kl:.2g} nats an image); lower the loss's beta or raise its free_bits."
            )
    return statistics, caveats if len(images) > 1 else []  # a single image differs from nothing
