"""The explanations of a stage as its figures: some scans, groups of subjects, and the tests of the method."""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple, Protocol

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import nn
from torch.utils.data import Dataset

from monai_cae.errors import MonaiCaeError
from monai_cae.evaluation.explanation_figures import Mapped, explanation_grid, map_thumbnails
from monai_cae.explanations.checks import MAPS, PASSES, Check, check
from monai_cae.explanations.groups import LEVEL, Cases, difference
from monai_cae.explanations.methods import METHODS, Infer, Method, Occlusion, Score, Subject

FEWEST_PASSES, PASSES_EACH, MOST_PASSES = 1000, 60, 4000
TESTED = 3  # scans that the tests are done on
_MOST_VALUES = 2**26  # of the images and of the maps that are kept in memory, 256 MiB each


class Outcome(Protocol):
    """What is explained; `monai_cae.training.Outcome` of evaluate is one, and says what these are."""

    network: nn.Module
    infer: Infer
    extraction: Any
    dataset: Dataset
    predictions: pd.DataFrame
    target: Any
    threshold: float

    @property
    def note(self) -> str: ...


class Maps(NamedTuple):
    """Explanations of some scans.

    Attributes:
        cases: who they are.
        images: shape `(n, C, H, W[, D])`.
        maps: of each, shape `(samples, H, W[, D])`, positive where it pushes the output up.
        checks: the tests.
        how: the method in a few words.
        tested: scans that the tests are done on.
    """

    cases: Cases
    images: torch.Tensor
    maps: list[torch.Tensor]
    checks: list[Check]
    how: str
    tested: int


class Explained:
    """Explain test scans, and test the explanations; an entry of the config item `figures` of evaluate.

    Args:
        method: "occlusion", a name in `METHODS`, or your own, which is called as those are.
        patch: side of an occluded square, in mm where the extraction knows the size of its voxels, else in voxels.
        passes: the most images that go through the network for occlusion and its tests; squares grow to keep to it.
            None: 60 for each test scan, at least 1,000 and at most 4,000, so that it stays a small part of the training
            of a small cohort.
        scans: the most that are explained.
        seed: chooses them, and draws what the tests need.

    Raises:
        MonaiCaeError: an unknown method, or a setting that is no number, or too small.
    """

    def __init__(
        self,
        method: str | Method = "occlusion",
        patch: float = 16,
        passes: int | None = None,
        scans: int = 32,
        seed: int = 0,
    ) -> None:
        names = ("occlusion", *METHODS)
        if not (callable(method) or method in names):
            raise MonaiCaeError(f"method must be one of {', '.join(names)}, or a function of your own, not {method!r}")
        given = {"patch": patch, "passes": 1 if passes is None else passes, "scans": scans, "seed": seed}
        for name, value in given.items():
            kinds, kind = ((int, float), "number") if name == "patch" else ((int,), "whole number")
            least = 0 if name == "seed" else 1
            if isinstance(value, bool) or not isinstance(value, kinds) or not least <= value < float("inf"):
                raise MonaiCaeError(f"{name} of explanations must be a {kind} from {least} on, not {value!r}")
        self.method = method
        self.patch = patch
        self.passes = passes
        self.scans = scans
        self.seed = seed

    def __call__(self, outcome: Outcome) -> dict[str, Figure | pd.DataFrame | dict[str, NDArray[Any]]]:
        """
        Returns:
            "": scans with their maps; "groups": maps of groups; "tests": a row for each test, see `check`; "maps":
            small pictures of the explained scans and the map of the groups' difference, which
            `monai_cae.training.results.pictures` reads.

        Raises:
            MonaiCaeError: the method can't explain this network; the message says why.
        """
        made = self.maps(outcome)
        cases, pictured = made.cases, outcome.extraction.picture
        failed = ", ".join(dict.fromkeys(one.test.split()[0] for one in made.checks if one.passed is False))
        told: dict[str, Any] = {"note": outcome.note, "ends": cases.ends, "failed": failed}
        images, mean = [pictured(one.cpu().numpy()) for one in made.images], pictured(made.images.mean(0).cpu().numpy())
        found = [_picture(one.numpy(), made.images.shape[1], outcome.extraction) for one in made.maps]
        every = {name: [Mapped(images[n], found[n], cases.title(n)) for n in chosen]
                 for name, chosen in cases.shown().items()}  # fmt: skip
        more = int((~cases.rows["drawn"]).sum())
        further = f" ({more} of them as they were {cases.far_off})" if more else ""
        whom = f"{len(images)} of {len(outcome.predictions)} test scans{further}, {made.how}\n{_verdict(made, failed)}"
        grid = explanation_grid(every, about=f"Where the image pushes the output up or down\n{whom}", **told)
        people, of_people = cases.by_subject(np.stack(found))
        tiles, tested = _group_tiles(people, of_people, mean, cases, np.random.default_rng(self.seed))
        groups = explanation_grid({"": tiles}, about=f"Mean maps of groups of subjects\n{whom}\n{tested}", **told)
        subjects = cases.rows["subject"].astype(str).to_numpy(dtype=str)
        small = {"subjects": subjects, "pictures": map_thumbnails(images, found), "failed": np.array(failed)}
        if tiles[0].title.startswith(cases.compared):
            small["difference"] = tiles[0].found.astype(np.float32)
        return {"": grid, "groups": groups, "tests": _table(made), "maps": small}

    def maps(self, outcome: Outcome) -> Maps:
        """The maps without their figures.

        Raises:
            MonaiCaeError: see above.
        """
        rng = np.random.default_rng(self.seed)
        cases = Cases(self._some(outcome, rng), outcome.target, outcome.threshold)
        images = torch.stack([image_of(outcome.dataset, index) for index in cases.rows.index])
        images = images.to(next(outcome.network.parameters()).device)
        drawn, score = np.flatnonzero(cases.rows["drawn"]), Score(outcome.network, outcome.infer)
        reference = _mean_image(outcome).to(images.device)
        place, samples = _box(reference), int(getattr(outcome.extraction, "samples", 1))
        subjects = [Subject(score, one[None], reference, place, samples) for one in images]
        tested = sorted(rng.permutation(drawn)[:TESTED])
        passes = self.passes or min(MOST_PASSES, max(FEWEST_PASSES, PASSES_EACH * len(outcome.predictions)))
        places = max(1, (passes - PASSES * len(tested)) // (len(subjects) + MAPS * len(tested)))
        method, how = self._method(outcome.extraction, subjects[0], places)
        maps = [method(subject, self.seed) for subject in subjects]
        some = [subjects[n] for n in tested], [maps[n] for n in tested]
        checks = check(method, *some, images, cases.labels, self.seed)
        return Maps(cases, images, maps, checks, how, len(tested))

    def _some(self, outcome: Outcome, rng: np.random.Generator) -> pd.DataFrame:
        """Rows to explain: all, or at least half of the most by label alone, as many of each class as can be, which
        are `drawn`, and beside them the first scans of subjects that were misclassified, as many as there is room for;
        of numbers those with the largest errors, a quarter of the most."""
        rows = outcome.predictions.reset_index(drop=True)
        if len(rows) < 2:
            raise MonaiCaeError(f"a map compares a scan with the mean of the test scans, and there are {len(rows)}")
        most = max(1, min(self.scans, _MOST_VALUES // image_of(outcome.dataset, 0).numel()))
        if len(rows) <= most:
            return rows.assign(drawn=True)
        order = rows.loc[rng.permutation(len(rows))]
        kind = order["label"] if outcome.target.binary else pd.Series(0, index=order.index)
        turn = list(order.groupby(kind).cumcount().sort_values(kind="stable").index)
        wrong = _far_off(rows, outcome, most // 4)
        later = [n for n in range(most, most // 2, -1) if n + len(wrong.difference(turn[:n])) <= most]
        drawn = turn[: max([*later[:1], most // 2, 1])]
        more = [n for n in turn if n in wrong and n not in drawn][: most - len(drawn)]
        return rows.loc[sorted([*drawn, *more])].assign(drawn=lambda some: some.index.isin(drawn))

    def _method(self, extraction: Any, one: Subject, places: int) -> tuple[Method, str]:
        """The method, and what it is called on a figure."""
        if callable(self.method):
            return partial(_own, self.method), getattr(self.method, "__name__", type(self.method).__name__)
        if self.method != "occlusion":
            return METHODS[self.method], self.method.replace("_", " ")
        grid = getattr(extraction, "grid", None)
        spacing = 1.0 if grid is None else float(grid.spacing)
        method = Occlusion(self.patch / spacing, places)
        sides = method.sides([part.stop - part.start for part in one.box], one.samples)
        size = " x ".join(f"{side * spacing:g}" for side in sides)
        return method, f"occlusion of {size} {'pixels' if grid is None else 'mm'}"


def _own(method: Method, subject: Subject, seed: int) -> torch.Tensor:
    found, shape = method(subject, seed), (subject.samples, *subject.image.shape[2:])
    if not isinstance(found, torch.Tensor) or found.shape != shape:
        given = tuple(found.shape) if isinstance(found, torch.Tensor) else type(found).__name__
        raise MonaiCaeError(f"the method of explanations must give a tensor of shape {shape}, not {given}")
    return found.detach().float().cpu()


def _far_off(rows: pd.DataFrame, outcome: Outcome, most: int) -> set[int]:
    """The first scans of the subjects that are misclassified by the mean of their scans, or, of numbers, of the most
    with the largest errors."""
    people = rows.groupby("subject")
    predicted, label = people[outcome.target.column].mean(), people["label"].mean()
    first = rows.reset_index().groupby("subject")["index"].min()
    if outcome.target.binary:
        return set(first[(predicted >= outcome.threshold) != (label > 0.5)])
    return set(first[(predicted - label).abs().nlargest(most).index])


def image_of(dataset: Any, index: int) -> torch.Tensor:
    """One image, shape `(C, H, W[, D])`, on the CPU."""
    return torch.as_tensor(dataset[index]["image"]).float()


def _mean_image(outcome: Outcome) -> torch.Tensor:
    """Of all test scans, however few are explained: shape `(1, C, H, W[, D])`."""
    count = len(outcome.predictions)
    total = sum(image_of(outcome.dataset, index).double() for index in range(count))
    return (torch.as_tensor(total) / count).float()[None]


def _box(reference: torch.Tensor) -> tuple[slice, ...]:
    """Where the mean image is brighter than its background, without channels; all of it where that is nowhere."""
    inside = reference[0].amax(dim=0) > reference.min() + 0.02 * (reference.max() - reference.min())
    if not inside.any():
        return tuple(slice(0, size) for size in inside.shape)
    return tuple(slice(int(places.min()), int(places.max()) + 1) for places in torch.nonzero(inside).T)


def _picture(found: NDArray[np.float32], channels: int, extraction: Any) -> NDArray[np.float32]:
    """A map as the image's pictures show it. Between several pictures lies the least of them: 0 of either part."""
    each = np.repeat(found, channels // len(found), axis=0)
    return np.asarray(extraction.picture(each.clip(min=0)) - extraction.picture((-each).clip(min=0)))


def _verdict(made: Maps, failed: str) -> str:
    silent = list(dict.fromkeys(one.test for one in made.checks if one.passed is None))
    told = f"tests on {made.tested} scans: " + (f"FAILED {failed}" if failed else "all passed")
    return told + (f"; not tested: {', '.join(silent)}" if silent else "")


def _table(made: Maps) -> pd.DataFrame:
    words = {True: "passed", False: "FAILED", None: "not tested"}
    rows = []
    for one in made.checks:
        needed = "" if np.isinf(one.bound) else f"{'>=' if one.above else '<'} {one.bound:g}"
        result = words[one.passed] if needed else ""
        rows.append({"test": one.test, "value": one.value, "needed": needed, "result": result, "scans": made.tested,
                     "about": one.about})  # fmt: skip
    return pd.DataFrame(rows)


def _group_tiles(
    people: pd.DataFrame, maps: NDArray[np.float32], mean: NDArray[Any], cases: Cases, rng: np.random.Generator
) -> tuple[list[Mapped], str]:
    """The difference between the groups, and the mean of each of four; and how the first was tested."""
    drawn = people["drawn"].to_numpy(dtype=bool)
    upper = people["upper"].to_numpy(dtype=bool)[drawn]
    tiles, told = [], "one group alone, so no difference"
    if 0 < upper.sum() < len(upper):
        less, sure = difference(maps[drawn].reshape(len(upper), -1), upper, rng)
        title = f"{cases.compared}\n{upper.sum()} and {(~upper).sum()} subjects"
        tiles.append(Mapped(mean, less.reshape(mean.shape), title, None if sure is None else sure.reshape(mean.shape)))
        told = "too few subjects to test the difference"
        if sure is not None:
            share = f"{100 * sure.mean():.2g}% of them" if sure.any() else "nowhere"
            told = f"outlined where the difference has p < {LEVEL:g}, corrected for all places by permutation: {share}"
    for name, chosen in cases.groups(people).items():
        if chosen.any():
            whom = "1 subject" if chosen.sum() == 1 else f"{chosen.sum()} subjects"
            tiles.append(Mapped(mean, maps[chosen].mean(axis=0), f"{name}\n{whom}"))
    return tiles, told
