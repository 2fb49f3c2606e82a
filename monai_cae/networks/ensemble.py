"""Several trained classifiers as one network, whose probability is the mean of theirs."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn

from monai_cae.errors import MonaiCaeError
from monai_cae.networks.classifier import EncoderClassifier

MOST_MEMBERS = 100


class Ensemble(nn.Module):
    """The mean of several networks `EncoderClassifier` of one kind, each with weights of its own, such as those of a
    cross-validation's folds (Lakshminarayanan et al. 2017, NeurIPS).

    It takes as many times one network's memory and time as it has members.

    Args:
        members: how many, from 2 to 100.
        of_each: what `EncoderClassifier` takes.

    Attributes:
        members: the classifiers.
        together: makes the mean of their votes; a hook on it sees these.

    Raises:
        MonaiCaeError: another number of members, or what `EncoderClassifier` refuses.
    """

    def __init__(self, *, members: int, **of_each: Any) -> None:
        super().__init__()
        if isinstance(members, bool) or not isinstance(members, int) or not 2 <= members <= MOST_MEMBERS:
            raise MonaiCaeError(f"members must be a whole number from 2 to {MOST_MEMBERS}, not {members!r}")
        first = EncoderClassifier(**of_each)
        self.members = nn.ModuleList([first, *(copy.deepcopy(first) for _ in range(members - 1))])
        self.together = Together(number=bool(of_each.get("number", False)))

    def forward(self, image: torch.Tensor, covariates: torch.Tensor | None = None) -> torch.Tensor:
        """
        Args:
            image, covariates: see `EncoderClassifier`.

        Returns:
            Logits of the mean probability of AD, or the mean of the predicted numbers; shape `(N, 1)`.
        """
        return self.together(torch.cat([member(image, covariates) for member in self.members], dim=1))


class Together(nn.Module):
    """The mean of several classifiers' predictions.

    Args:
        number: they are numbers, not logits.
    """

    def __init__(self, number: bool) -> None:
        super().__init__()
        self.number = number

    def forward(self, votes: torch.Tensor) -> torch.Tensor:
        """
        Args:
            votes: what each of `n` classifiers gives, shape `(N, n)`.

        Returns:
            Their mean, of logits that of the probabilities as a logit again; shape `(N, 1)`.
        """
        votes = votes.float()
        if self.number:
            return votes.mean(dim=1, keepdim=True)
        return torch.logit(torch.sigmoid(votes).mean(dim=1, keepdim=True), eps=1e-7)
