"""Whether a map says anything about the network that it is of: the sanity checks of Adebayo et al. 2018, and others."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import spearmanr
from sklearn.linear_model import Ridge
from torch import nn

from monai_cae.explanations.methods import BATCH_VALUES, Method, Score, Subject

ALIKE = 0.5  # correlation of two maps from which on they count as the same
BETTER = 0.8  # share of random orders that a map's order has to beat
_LEVELS = 4
_STEPS = 6
_ORDERS = 4
_CELLS = 6  # along each axis of a slice; of a volume 4
_RELATED = 0.4  # correlation of permuted labels with the labels, at most
_NOISE = 0.01  # of an image's range
_COMPARED = 20_000  # places of a map
MAPS = _LEVELS + 3  # of each scan: permuted labels, and twice with noise
PASSES = 2 * (1 + _ORDERS) * (_STEPS - 1)  # of each scan, for its orders


class Check(NamedTuple):
    """A test of a method.

    Attributes:
        test: its name.
        value: what was measured, a mean over subjects; nan where it can't be.
        bound: to pass, `value` must be below it, or for `above` not below.
        above: see `bound`.
        about: what `value` is, in a few words.
    """

    test: str
    value: float
    bound: float
    above: bool
    about: str

    @property
    def passed(self) -> bool | None:
        """None where it could not be tested."""
        if math.isnan(self.value):
            return None
        return bool(self.value >= self.bound if self.above else self.value < self.bound)


def check(
    method: Method,
    subjects: Sequence[Subject],
    maps: Sequence[torch.Tensor],
    images: torch.Tensor,
    labels: NDArray[np.float64],
    seed: int,
) -> list[Check]:
    """Test a method on a network.

    Args:
        method: see `monai_cae.explanations.methods`.
        subjects: some, all with the same network.
        maps: what the method says of them.
        images: of all subjects, shape `(n, C, H, W[, D])`.
        labels: shape `(n,)`.
        seed: of whatever is random.

    Returns:
        `weights`: the map must not outlast the weights, nor turned over, as the sign of a random output is chance; the
        network's modules get random numbers, the last first, a quarter of them at a time. `labels`: nor may it be that
        of a network whose last layer is fitted to permuted labels. `deletion`, `insertion`: to replace what pushes up
        by the mean image, most first, must lower the output sooner than a random order, and the reverse raise it.
        `repeat`: of the same image with other noise the map must be the same.
    """

    def of(network: nn.Module) -> NDArray[np.float64]:
        return np.array([alike(one, method(subject.under(network), seed), subject)
                         for subject, one in zip(subjects, maps, strict=True)])  # fmt: skip

    checks = []
    network = subjects[0].score.network
    for level, changed in enumerate(randomised(network, seed), start=1):
        share = f"after the last {level} of {_LEVELS} parts of its weights" if level < _LEVELS else "after all weights"
        last = level == _LEVELS
        size = float(np.nanmean(np.abs(of(changed))))
        checks.append(Check(f"weights {level}/{_LEVELS}", size, ALIKE if last else math.inf, False, share))
    other = relabelled(subjects[0].score, images, labels, seed)
    permuted = math.nan if other is None else float(np.nanmean(of(other)))
    checks.append(Check("labels", permuted, ALIKE, False, "with its last layer fitted to permuted labels"))
    beaten = [orders(subject, one, np.random.default_rng((seed, index)))
              for index, (subject, one) in enumerate(zip(subjects, maps, strict=True))]  # fmt: skip
    deletion, insertion = np.mean(beaten, axis=0)
    checks.append(Check("deletion", deletion, BETTER, True, "random orders that it beats"))
    checks.append(Check("insertion", insertion, BETTER, True, "random orders that it beats"))
    noisy = []
    for subject in subjects:
        first, second = (method(noised(subject, seed + n), seed + n) for n in (1, 2))
        noisy.append(alike(first, second, subject))
    checks.append(Check("repeat", float(np.nanmean(noisy)), ALIKE, True, f"with two draws of noise of {_NOISE:.0%}"))
    return checks


def alike(one: torch.Tensor, other: torch.Tensor, subject: Subject) -> float:
    """Spearman's correlation of two maps within the brain; 0 where one of them is constant."""
    brain = (subject.by_sample(subject.reference).cpu() > 0.02 * float(subject.reference.max())).numpy()
    pairs = np.stack([one.numpy()[brain], other.numpy()[brain]])
    pairs = pairs[:, :: max(1, pairs.shape[1] // _COMPARED)]
    if pairs.shape[1] < 3 or not np.isfinite(pairs).all() or (np.ptp(pairs, axis=1) == 0).any():
        return 0.0
    return float(spearmanr(*pairs).statistic)


def randomised(network: nn.Module, seed: int) -> Iterator[nn.Module]:
    """Copies of a network with ever more random weights, from its last module to its first: numbers with the SD of
    those that there were, around 0, as a common shift would switch ReLUs off; biases and norms' factors change their
    places."""
    changed = _copy(network)
    modules = [one for one in changed.modules() if any(True for _ in one.parameters(recurse=False))]
    device = next(changed.parameters()).device
    generator = torch.Generator(device).manual_seed(seed)
    for part in np.array_split(np.arange(len(modules))[::-1], _LEVELS):
        with torch.no_grad():
            for index in part:
                for tensor in modules[index].parameters(recurse=False):
                    if tensor.ndim > 1:
                        tensor.normal_(0, float(tensor.std()) if tensor.numel() > 1 else 1.0, generator=generator)
                    else:
                        tensor.copy_(tensor[torch.randperm(len(tensor), generator=generator, device=device)])
        yield changed


def relabelled(score: Score, images: torch.Tensor, labels: NDArray[np.float64], seed: int) -> nn.Module | None:
    """A copy of a network whose last linear layer is fitted, by ridge regression, to permuted labels: of a hundred
    permutations the one that has least to do with the labels. None where there is no such layer, one label alone, or so
    few images that each permutation has to do with the labels."""
    network = _copy(score.network)
    linear = [one for one in network.modules() if isinstance(one, nn.Linear) and one.out_features == 1]
    if not linear or len(set(labels.tolist())) < 2:
        return None
    seen: list[torch.Tensor] = []
    handle = linear[-1].register_forward_hook(lambda layer, given, output: seen.append(given[0].detach()))
    with torch.no_grad():
        for batch in images.split(max(1, min(32, BATCH_VALUES // images[0].numel()))):
            Score(network, score.infer)(batch)
    handle.remove()
    rows = torch.cat(seen).float().reshape(-1, linear[-1].in_features).cpu().numpy()  # of each sample that votes
    rng = np.random.default_rng(seed)
    draws = [rng.permutation(labels) for _ in range(100)]
    related = [abs(np.corrcoef(draw, labels)[0, 1]) for draw in draws]
    if min(related) > _RELATED:
        return None
    permuted = np.repeat(draws[int(np.argmin(related))], len(rows) // len(labels))
    centre, scale = rows.mean(axis=0), rows.std(axis=0) + 1e-8
    weights = Ridge(alpha=1.0).fit((rows - centre) / scale, permuted).coef_ / scale
    with torch.no_grad():
        linear[-1].weight.copy_(torch.as_tensor(weights)[None])
    return network


def _copy(network: nn.Module) -> nn.Module:
    with torch.no_grad():  # or the weights of a TorchScript's copy are no leaves
        return copy.deepcopy(network)


def noised(subject: Subject, seed: int) -> Subject:
    """The subject with noise in the image, where it is brain."""
    image = subject.image
    spread = _NOISE * float(image.max() - image.min())
    noise = torch.randn(image.shape, generator=torch.Generator().manual_seed(seed)).to(image.device)
    return replace(subject, image=image + spread * noise * (image > image.min()))


def orders(subject: Subject, found: torch.Tensor, rng: np.random.Generator) -> tuple[float, float]:
    """The share of random orders that a map's order of an image's cells beats, by deletion and by insertion.

    Cells are replaced by the reference in six steps. An order is better by deletion if the output is lower on the way,
    and by insertion, which begins at the reference, if it is higher. Half of a draw counts.
    """
    cells = list(_cells(subject))
    values = np.array([float(found[cell].mean()) for cell in cells])
    by_map = np.argsort(-values, kind="stable")
    every = [by_map, *(rng.permutation(len(cells)) for _ in range(_ORDERS))]
    ends = np.linspace(0, len(cells), _STEPS + 1).round().astype(int)[1:-1]
    channels = subject.image.shape[1] // subject.samples
    areas = []
    for start, target in ((subject.image, subject.reference), (subject.reference, subject.image)):
        outputs = []
        for order in every:
            image, steps = start.clone(), []
            for first, end in zip([0, *ends[:-1]], ends, strict=True):
                for index in order[first:end]:
                    sample, *place = cells[index]
                    at = (slice(None), slice(sample * channels, (sample + 1) * channels), *place)
                    image[at] = target[at]
                steps.append(image.clone())
            outputs.append(_mean_output(subject.score, torch.cat(steps)))
        areas.append(np.array(outputs))
    lower, higher = areas[0][1:] - areas[0][0], areas[1][0] - areas[1][1:]
    deletion, insertion = (float(np.mean((gain > 0) + 0.5 * (gain == 0))) for gain in (lower, higher))
    return deletion, insertion


def _mean_output(score: Score, images: torch.Tensor) -> float:
    together = max(1, min(32, BATCH_VALUES // images[0].numel()))
    with torch.no_grad():
        return float(torch.cat([score(batch) for batch in images.split(together)]).mean())


def _cells(subject: Subject) -> Iterator[tuple[Any, ...]]:
    """Sample and place of each cell: the box in a grid."""
    each = _CELLS if len(subject.box) == 2 else 4
    edges = [np.unique(np.linspace(one.start, one.stop, each + 1).round().astype(int)) for one in subject.box]
    for sample in range(subject.samples):
        for place in np.ndindex(*(len(one) - 1 for one in edges)):
            yield (sample, *(slice(int(one[n]), int(one[n + 1])) for one, n in zip(edges, place, strict=True)))
