"""The decoder's own view: how the reconstruction changes where the network's output rises."""

from __future__ import annotations

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import nn

from monai_cae.errors import MonaiCaeError
from monai_cae.evaluation.latent_figure import influence_maps
from monai_cae.explanations.explained import Outcome, image_of
from monai_cae.explanations.methods import Score
from monai_cae.networks import reconstruction_of


class Decoded:
    """Decode the code that goes with an output one SD below the mean of the test scans, and with one above it.

    How the code changes with the output is a linear regression over the scans. It needs no gradient, and the classifier
    may have another encoder than the autoencoder, or the same one fine-tuned.

    Args:
        autoencoder: with `encoder` and `decoder`, on the network's device.
        scans: the first so many are used.
    """

    def __init__(self, autoencoder: nn.Module, scans: int = 200) -> None:
        self.autoencoder = autoencoder
        self.scans = scans

    def __call__(self, outcome: Outcome) -> Figure | None:
        """
        Returns:
            See `influence_maps`; None where all scans have one output.

        Raises:
            MonaiCaeError: the autoencoder has no decoder of a code that is one tensor.
        """
        model = self.autoencoder.eval()
        encoder, decoder = (getattr(model, name, None) for name in ("encoder", "decoder"))
        if not (isinstance(encoder, nn.Module) and isinstance(decoder, nn.Module)):
            raise MonaiCaeError(f"{type(model).__name__} has no encoder and decoder, which this figure needs")
        score = Score(outcome.network, outcome.infer)
        count, device = min(self.scans, len(outcome.predictions)), next(outcome.network.parameters()).device
        outputs: list[float] = []
        codes: torch.Tensor | float = 0.0
        products: torch.Tensor | float = 0.0
        with torch.no_grad():
            for index in range(count):
                image = image_of(outcome.dataset, index)[None].to(device)
                code = outcome.infer(image, encoder)
                if not isinstance(code, torch.Tensor):
                    raise MonaiCaeError(f"the encoder of {type(model).__name__} gives no code, which is one tensor")
                outputs.append(float(score(image)))
                codes, products = codes + code.double(), products + code.double() * outputs[-1]
            output = np.array(outputs)
            if count < 2 or output.std() == 0:
                return None
            mean = codes / count
            step = (products / count - mean * output.mean()) / output.std()
            drawn = [reconstruction_of(model, outcome.infer((mean + n * step).float(), decoder)) for n in (-1, 0, 1)]
        pictures = [outcome.extraction.picture(one[0].float().cpu().numpy()) for one in drawn]
        title = "What the decoder draws where the network's output is lower or higher"
        return influence_maps({"": pictures}, outcome.note, f"regression over {count} test scans", title)
