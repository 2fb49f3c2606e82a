"""How unlike the training's a scan is, against the same worked out by NumPy, SciPy and scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats
from sklearn.covariance import LedoitWolf

from monai_cae.errors import MonaiCaeError
from monai_cae.evaluation.caveats import many_strangers
from monai_cae.training.models.reference import MEASURES, Reference


def cohort(training: int, numbers: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Codes of training and validation with correlated numbers, and errors of validation."""
    rng = np.random.default_rng(4)
    mix = rng.normal(size=(numbers, numbers))
    known, others = (rng.normal(size=(n, numbers)) @ mix + 3 for n in (training, 12))
    return known, others, rng.lognormal(-4, 0.3, 12)


@pytest.mark.parametrize("shape", [(9, 20), (60, 6)])  # fewer scans than numbers, and more
def test_measures_and_percentiles(tmp_path, shape):
    known, codes, errors = cohort(*shape)
    tensors = [torch.tensor(part) for part in (known, errors, codes)]
    Reference.fitted("abc", [1, 8, 8], *tensors).save(tmp_path / "reference.pt")
    reference = Reference.load(tmp_path / "reference.pt")

    centre, scale = known.mean(0), known.std(0, ddof=1)
    covariance = LedoitWolf(assume_centered=True).fit((known - centre) / scale)

    def logs(errors: np.ndarray, codes: np.ndarray) -> np.ndarray:
        standard = (codes - centre) / scale
        near = np.sort(np.linalg.norm(standard[:, None] - (known - centre) / scale, axis=2), axis=1)[:, 4]
        measures = np.stack([errors, np.sqrt(covariance.mahalanobis(standard)), near], axis=1)
        return np.log(np.maximum(measures, 1e-12))  # the centre has no distance from itself

    usual = logs(errors, codes)
    unlike_errors, unlike_codes = np.array([errors.mean(), 40 * errors.max()]), np.stack([centre, codes[0]])
    found = (logs(unlike_errors, unlike_codes) - usual.mean(0)) / usual.std(0, ddof=1)
    largest = ((usual - usual.mean(0)) / usual.std(0, ddof=1)).max(1)
    expected = stats.t.cdf((found.max(1) - largest.mean()) / largest.std(ddof=1) / (1 + 1 / 12) ** 0.5, 11)

    far, percentiles, which = reference.compare(torch.tensor(unlike_errors), torch.tensor(unlike_codes))
    assert far == pytest.approx(found.max(1), abs=1e-3) and percentiles == pytest.approx(100 * expected, abs=1e-2)
    assert which == [MEASURES[number] for number in found.argmax(1)] and which[1] == "reconstruction"
    assert percentiles[0] < 95 < percentiles[1]


def test_what_is_not_finite_or_constant_is_unlike():
    known, codes, errors = cohort(9, 20)
    known[:, 3] = 5.0  # a channel that is the same in all training scans
    codes[:, 3] = 5.0
    reference = Reference.fitted("abc", [1, 8, 8], *(torch.tensor(part) for part in (known, errors, codes)))
    strange = np.stack([codes[0], codes[0], codes[0]])
    strange[1, 3], strange[2, 0] = 6.0, np.nan
    usual = np.full(3, np.median(errors))
    _, percentiles, which = reference.compare(torch.tensor(usual), torch.tensor(strange))
    assert percentiles[0] < 95 and (percentiles[1:] > 99).all() and which[2] != "reconstruction"


def test_scans_that_do_not_differ_are_no_reference():
    known, codes, errors = (torch.tensor(part) for part in cohort(9, 20))
    with pytest.raises(MonaiCaeError, match="the validation scans are all alike"):
        Reference.fitted("abc", [1, 8, 8], known, torch.full_like(errors, 0.01), codes[:1].repeat(len(codes), 1))


def test_a_broken_file_is_refused(tmp_path):
    known, codes, errors = (torch.tensor(part) for part in cohort(9, 20))
    reference = Reference.fitted("abc", [1, 8, 8], known, errors, codes)
    for number, (name, value) in enumerate({"codes": known[:, :4], "largest": torch.tensor([0.0, np.nan])}.items()):
        path = tmp_path / f"{number}.pt"
        Reference(**{**vars(reference), name: value}).save(path)
        with pytest.raises(MonaiCaeError, match="do not fit together"):
            Reference.load(path)
    torch.save({"weight": torch.zeros(1)}, tmp_path / "weights.pt")
    with pytest.raises(MonaiCaeError, match=r"not what pretrain\.json writes"):
        Reference.load(tmp_path / "weights.pt")


def test_many_strangers_among_the_tested_are_told():
    """Of 10 ordinary scans 3 are above percentile 95 with a probability of 0.0115, 4 of 0.001."""
    assert many_strangers(10, 3, 95, 28) == []
    (told,) = many_strangers(10, 4, 95, 28)
    assert "4 of 10 test scans are above percentile 95 of the 28 validation scans" in told
