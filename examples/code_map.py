"""Seam "figure": a function of a stage's outcome. Here where the encoder's code is large, one panel per class."""

from __future__ import annotations

import torch
from matplotlib.figure import Figure

from monai_cae.training import Outcome


class CodeMap:
    """The mean code of some test subjects, its size by place; one panel per class.

    Args:
        most: subjects to take.
    """

    def __init__(self, most: int) -> None:
        self.most = most

    def __call__(self, outcome: Outcome) -> Figure:
        with torch.no_grad():
            code = outcome.infer(outcome.images(self.most), outcome.network.encoder)
        labels = outcome.predictions["label"][: len(code)].to_numpy()
        figure = Figure()
        for label, axis in enumerate(figure.subplots(1, 2)):
            axis.imshow(code.float().abs().mean(dim=1).cpu().numpy()[labels == label].mean(axis=0))
            axis.set_title(f"{(labels == label).sum()} {('HC', 'AD')[label]}")
        figure.suptitle(outcome.note)
        return figure
