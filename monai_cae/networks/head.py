"""The classifier's dense layers: on the code of one image, or on each of its samples, whose votes are then pooled."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import nn
from torch.nn import functional

from monai_cae.errors import MonaiCaeError

VOTES = ("none", "mean", "majority", "attention")
_FIRST = 3  # linear layer, ReLU, dropout


class Head(nn.Sequential):
    """Dense layers on a code; the logit is their output plus a weighted sum of the covariates.

    Args:
        layers: from a flattened or unflattened code to one logit.
        covariates: how many numbers add to it; their weights start at 0.
        number: what comes out is `logit * unit + zero`, in the units of what is predicted. Both are kept with the
            weights, so that whoever loads them predicts in these units; see `set_units`.
    """

    def __init__(self, layers: Sequence[nn.Module], covariates: int = 0, number: bool = False) -> None:
        super().__init__(*layers)
        self.register_buffer("zero", torch.zeros(1) if number else None)
        self.register_buffer("unit", torch.ones(1) if number else None)
        self.covariate_weight = nn.Parameter(torch.zeros(covariates)) if covariates else None

    def forward(self, code: torch.Tensor, covariates: torch.Tensor | None = None) -> torch.Tensor:
        """
        Args:
            code: shape `(N, ...)`.
            covariates: shape `(N, covariates)`; None adds nothing.

        Returns:
            Logits or numbers, shape `(N, 1)`.
        """
        for layer in self:
            code = layer(code)
        return self.finished(code, covariates)

    def finished(self, logits: torch.Tensor, covariates: torch.Tensor | None) -> torch.Tensor:
        """Logits of shape `(N, K)`, to each of which the weighted sum of its row's covariates is added; or numbers."""
        if self.covariate_weight is not None and covariates is not None:
            logits = logits + (covariates * self.covariate_weight).sum(dim=1, keepdim=True)
        if self.zero is not None and self.unit is not None:
            # in float32, whatever the layers compute in; TorchScript takes no annotation that would tell mypy
            logits = logits * self.unit + self.zero  # type: ignore[operator]
        return logits

    def set_units(self, zero: float, unit: float) -> None:
        """Say what a logit of 0 means and what one more of it adds, in a network of numbers.

        Raises:
            MonaiCaeError: it is a network of logits.
        """
        if not (isinstance(self.zero, torch.Tensor) and isinstance(self.unit, torch.Tensor)):
            raise MonaiCaeError("the network gives logits, and the target is a number: set network_def#number to true")
        self.zero.fill_(zero)
        self.unit.fill_(unit)

    def scale(self, factor: float) -> None:
        """Multiply the logits by a number, by scaling the last weights."""
        last = self[len(self) - 1]
        with torch.no_grad():
            for weight in (*last.parameters(), self.covariate_weight):
                if weight is not None:
                    weight.mul_(factor)


class VotingHead(Head):
    """Dense layers on each of an image's samples, and one logit from all of them.

    "mean": each sample has a logit, its vote, and learns with its subject's label. What is predicted is the mean of the
    votes' probabilities, as a logit; of a number, the mean of the votes.

    "majority": as "mean", but a vote counts as 1 where its probability is at least a half, else as 0. Of n votes, k of
    them 1, the prediction is (k + 1/2) / (n + 1), which is never 0 or 1, and 1/2 where they are even.

    "attention": one logit of the samples' features behind the first dense layer, weighted as in
    `monai.networks.nets.MILModel` (mode "att") and by Ilse et al. 2018 (arXiv:1802.04712).

    Covariates add to a logit, never more than once to the same.

    Args:
        features: of a sample.
        samples: of an image.
        votes: "mean", "majority" or "attention".
        hidden: widths of the dense layers.
        dropout: probability after the first of them.
        covariates: how many numbers add to the logit.
        number: see `Head`.
        probabilities: the votes are logits of a probability, whose mean counts; else they are numbers.

    Raises:
        MonaiCaeError: one sample, attention without a dense layer to look at, or a majority of numbers.
    """

    def __init__(
        self,
        features: int,
        samples: int,
        votes: Literal["mean", "majority", "attention"],
        hidden: Sequence[int],
        dropout: float = 0.0,
        covariates: int = 0,
        number: bool = False,
        probabilities: bool = True,
    ) -> None:
        if samples < 2:
            raise MonaiCaeError(
                f"votes {votes} is for images of several samples, and these have one: set votes to none, or take "
                "with_slices.yaml or with_patches.yaml"
            )
        if votes == "attention" and not hidden:
            raise MonaiCaeError(
                "votes attention weighs what the first dense layer makes of the samples: give network_def#hidden a "
                "layer, or set votes to mean"
            )
        if votes == "majority" and not probabilities:
            raise MonaiCaeError("votes majority is for two classes, and numbers are predicted: set votes to mean")
        layers = dense_layers(features, hidden, dropout)
        if votes == "attention":
            layers.insert(_FIRST, Attention(hidden[0]))
        super().__init__([nn.Unflatten(1, (samples, features)), *layers], covariates, number)
        self.by_mean = votes != "attention"
        self.by_majority = votes == "majority"
        self.factor: torch.Tensor | None
        pooled = self.by_mean and probabilities
        self.register_buffer("factor", torch.ones(()) if pooled else None)  # what no scaling of the last layer can do

    def forward(self, code: torch.Tensor, covariates: torch.Tensor | None = None) -> torch.Tensor:
        """
        Args:
            code: of all samples, one behind the other; shape `(N, samples * features)`.
            covariates: as for `Head`.

        Returns:
            Logits, shape `(N, 1)`; in training those of the samples but by "attention", shape `(N, samples)`.
        """
        for layer in self:
            code = layer(code)
        votes = self.finished(code.flatten(1), covariates)
        if not self.by_mean or self.training:
            return votes
        votes = votes.float()
        if self.factor is None:
            return votes.mean(dim=1, keepdim=True)
        if self.by_majority:
            ones = (votes >= 0).to(votes.dtype).sum(dim=1, keepdim=True) + 0.5
            return (ones / (votes.shape[1] + 1 - ones)).log() * self.factor
        yes = torch.logsumexp(functional.logsigmoid(votes), dim=1, keepdim=True)
        no = torch.logsumexp(functional.logsigmoid(-votes), dim=1, keepdim=True)
        return (yes - no) * self.factor  # the logit of the mean, also where that is 0 or 1 in float32

    def votes(self, code: torch.Tensor, covariates: torch.Tensor | None = None) -> tuple[torch.Tensor, torch.Tensor]:
        """What each sample says by itself, and how much that counts.

        Args:
            code, covariates: as for `forward`.

        Returns:
            Logits and weights, each of shape `(N, samples)`; the weights of an image add up to 1. By "mean" these
            logits are what is pooled, before any calibration; by "attention" what the head makes of one sample alone.
        """
        weights = code.new_full((len(code), 1), math.nan)
        for layer in self:
            if isinstance(layer, Attention):
                weights = layer.weights(code)
            else:
                code = layer(code)
        votes = self.finished(code.flatten(1), covariates)
        return votes, torch.full_like(votes, 1 / votes.shape[1]) if self.by_mean else weights

    def scale(self, factor: float) -> None:
        """Multiply the pooled logits by a number."""
        if self.factor is None:
            super().scale(factor)
        else:
            self.factor.mul_(factor)


class Attention(nn.Module):
    """Weights of samples by their features, and the weighted mean of these.

    Args:
        features: of a sample.
    """

    def __init__(self, features: int) -> None:
        super().__init__()
        self.score = nn.Sequential(nn.Linear(features, features), nn.Tanh(), nn.Linear(features, 1))

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """
        Args:
            features: shape `(N, samples, features)`.

        Returns:
            Shape `(N, features)`.
        """
        return (features * self.weights(features).unsqueeze(2)).sum(dim=1)

    def weights(self, features: torch.Tensor) -> torch.Tensor:
        """Those of the samples, shape `(N, samples)`; each row adds up to 1."""
        return torch.softmax(self.score(features).squeeze(2), dim=1)


class VoteLoss(nn.Module):
    """A loss in which each vote about a subject is compared with the subject's label.

    Args:
        loss: of outputs and labels, each of shape `(N, 1)`.
    """

    def __init__(self, loss: nn.Module) -> None:
        super().__init__()
        self.loss = loss

    def forward(self, votes: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        """
        Args:
            votes: shape `(N, samples)`, or `(N, 1)` if they are pooled.
            label: shape `(N, 1)`.
        """
        return self.loss(votes.reshape(-1, 1), label.expand_as(votes).reshape(-1, 1))


def dense_layers(features: int, hidden: Sequence[int], dropout: float) -> list[nn.Module]:
    """Linear layers with ReLU between them, the last to one number; dropout behind the first."""
    layers: list[nn.Module] = []
    for index, width in enumerate(hidden):
        layers += [nn.Linear(features, width), nn.ReLU(inplace=True)]
        if index == 0:
            layers.append(nn.Dropout(dropout))
        features = width
    return [*layers, nn.Linear(features, 1)]
