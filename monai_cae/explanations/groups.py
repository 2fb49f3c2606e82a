"""Maps of groups of subjects: the difference of their means, and where it is larger than chance makes it."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

PERMUTATIONS = 1000
LEVEL = 0.05
_FEWEST = 2  # subjects of a group
_PLACES = 10_000  # that are tested; of a larger map every second, third ...


def difference(
    maps: NDArray[np.float32], positive: NDArray[np.bool_], rng: np.random.Generator
) -> tuple[NDArray[np.float32], NDArray[np.bool_] | None]:
    """Compare two groups place by place.

    Args:
        maps: a row per subject, shape `(n, places)`.
        positive: who is in the first group, shape `(n,)`.
        rng: draws the permutations.

    Returns:
        The first group's mean less the second's, and where that is significant: groups are permuted a thousand times
        (subjects as a whole), and a place is significant if its t-like statistic is larger than 95 % of the
        permutations' largest ones, which controls the error rate of the whole map (Nichols and Holmes 2002). To the SD
        its median over the places is added, so that places where nothing varies do not count as certain. None where
        the groups are too small for any permutation to tell.
    """
    first, second = int(positive.sum()), int((~positive).sum())
    if min(first, second) == 0:
        return np.zeros_like(maps[0]), None
    found = maps[positive].mean(axis=0) - maps[~positive].mean(axis=0)
    if min(first, second) < _FEWEST or math.comb(first + second, first) < 1 / LEVEL:
        return found, None
    step = -(-maps.shape[1] // _PLACES)
    rows = maps[:, ::step].astype(np.float64)
    orders = np.stack([positive, *(rng.permutation(positive) for _ in range(PERMUTATIONS))])
    weights = np.where(orders, 1 / first, -1 / second)
    means = weights @ rows
    squares = (rows**2).mean(axis=0) - rows.mean(axis=0) ** 2
    within = np.sqrt(np.maximum(squares - means**2 * first * second / len(rows) ** 2, 0))
    floor = np.median(within[0][within[0] > 0]) if (within[0] > 0).any() else 1.0
    statistics = np.abs(means) / (within + floor)
    limit = np.quantile(statistics.max(axis=1), 1 - LEVEL)
    spread = np.sqrt(np.maximum(maps[positive].var(axis=0) * first + maps[~positive].var(axis=0) * second, 0))
    return found, np.abs(found) / (spread / math.sqrt(len(maps)) + floor) > limit


class Cases:
    """Who is explained, and what to call them.

    Args:
        rows: of the predictions: `subject`, `label`, the target's column, and `drawn`, whether the scan was chosen
            without regard to its prediction.
        target: what is predicted.
        threshold: of a binary target.

    Attributes:
        names: of the upper group and the lower: patients and controls, or above and below the median label.
        compared: what is said of the difference of the two.
        ends: what a negative and a positive map mean.
        far_off: what is said of a scan that was predicted badly.
    """

    def __init__(self, rows: pd.DataFrame, target: Any, threshold: float) -> None:
        labels, predicted = rows["label"].astype(float), rows[target.column].astype(float)
        self.binary = bool(target.binary)
        middle = 0.5 if self.binary else float(labels.median())
        self.rows = rows.assign(upper=labels > middle, up=predicted >= (threshold if self.binary else middle))
        self.predicted = predicted.to_numpy()
        self.names = ("AD", "HC") if self.binary else ("above the median", "below it")
        self.ends = tuple(f"towards {name}" for name in (("HC", "AD") if self.binary else ("less", "more")))
        self.compared = " less ".join(self.names)
        self.far_off = "misclassified" if self.binary else "farthest off"

    @property
    def labels(self) -> NDArray[np.float64]:
        return self.rows["label"].to_numpy(dtype=float)

    def shown(self) -> dict[str, list[int]]:
        """What a row of pictures shows -> which cases, four at most: of classes the most certain."""
        upper, up = (self.rows[name].to_numpy(dtype=bool) for name in ("upper", "up"))
        if self.binary:
            by_certainty = np.argsort(-np.abs(self.predicted - 0.5), kind="stable")
            kinds = {"AD, right": upper & up, "HC, right": ~upper & ~up, "wrong": upper != up}
            found = {name: [int(n) for n in by_certainty if chosen[n]][:4] for name, chosen in kinds.items()}
        else:
            order, errors = np.argsort(self.predicted, kind="stable"), np.abs(self.predicted - self.labels)
            rows = {"highest": order[::-1], "lowest": order, "largest errors": np.argsort(-errors, kind="stable")}
            found = {name: [int(n) for n in chosen[:4]] for name, chosen in rows.items()}
        return {name: chosen for name, chosen in found.items() if chosen}

    def title(self, n: int) -> str:
        """Of a case's picture."""
        row, predicted = self.rows.iloc[n], self.predicted[n]
        if self.binary:
            return f"{row['subject']}\n{self.names[not row['upper']]}, probability {predicted:.2f}"
        return f"{row['subject']}\n{row['label']:.4g}, predicted {predicted:.4g}"

    def by_subject(self, maps: NDArray[np.float32]) -> tuple[pd.DataFrame, NDArray[np.float32]]:
        """A row and a map for each subject, the mean of its scans'; the groups are those of its first scan."""
        subjects, first, of = np.unique(self.rows["subject"].astype(str), return_index=True, return_inverse=True)
        each = np.stack([maps[of == number].mean(axis=0) for number in range(len(subjects))])
        return self.rows.iloc[first].reset_index(drop=True), each

    def groups(self, people: pd.DataFrame) -> dict[str, NDArray[np.bool_]]:
        """The four groups by label and prediction."""
        upper, up = (people[name].to_numpy(dtype=bool) for name in ("upper", "up"))
        high, low = self.names
        return {
            f"{high}, predicted {high}": upper & up,
            f"{low}, predicted {high}": ~upper & up,
            f"{low}, predicted {low}": ~upper & ~up,
            f"{high}, predicted {low}": upper & ~up,
        }
