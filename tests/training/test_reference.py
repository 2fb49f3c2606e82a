"""How unlike the training's a scan is, against the same worked out by NumPy, SciPy and scikit-learn."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import stats
from sklearn.covariance import LedoitWolf

from monai_cae.errors import MonaiCaeError
from monai_cae.evaluation.caveats import many_strangers
from monai_cae.networks import ConvAutoencoder, ConvDecoder, ConvEncoder
from monai_cae.training.models.reference import MEASURES, Measured, Reference
from monai_cae.training.models.strangers import measure


def of(codes: np.ndarray, errors: np.ndarray, sides: np.ndarray) -> Measured:
    return Measured(*(torch.tensor(part) for part in (errors, codes, sides)))


def cohort(training: int, numbers: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Codes of training and validation with correlated numbers, and errors of validation."""
    rng = np.random.default_rng(4)
    mix = rng.normal(size=(numbers, numbers))
    known, others = (rng.normal(size=(n, numbers)) @ mix + 3 for n in (training, 12))
    return known, others, rng.lognormal(-4, 0.3, 12)


@pytest.mark.parametrize("shape", [(9, 20), (60, 6)])  # fewer scans than numbers, and more
def test_measures_and_percentiles(tmp_path, shape):
    known, codes, errors = cohort(*shape)
    rng = np.random.default_rng(5)
    known_sides, sides = (rng.normal(2, 1, (n, 7)) for n in (shape[0], 12))
    parts = of(known, np.ones(len(known)), known_sides), of(codes, errors, sides)
    Reference.fitted("abc", [1, 8, 8], *parts).save(tmp_path / "reference.pt")
    reference = Reference.load(tmp_path / "reference.pt")

    def standard(some: np.ndarray, training: np.ndarray) -> np.ndarray:
        return (some - training.mean(0)) / training.std(0, ddof=1)

    def distance(some: np.ndarray, training: np.ndarray) -> np.ndarray:
        covariance = LedoitWolf(assume_centered=True).fit(standard(training, training))
        return np.sqrt(covariance.mahalanobis(standard(some, training)))

    def logs(errors: np.ndarray, codes: np.ndarray, sides: np.ndarray) -> np.ndarray:
        apart = np.linalg.norm(standard(codes, known)[:, None] - standard(known, known), axis=2)
        near = np.sort(apart, axis=1)[:, 4]
        measures = np.stack([errors, distance(codes, known), near, distance(sides, known_sides)], axis=1)
        return np.log(np.maximum(measures, 1e-12))  # the centre has no distance from itself

    usual = logs(errors, codes, sides)
    ordinary = np.tile(np.median(sides, axis=0), (2, 1))
    unlike = np.array([errors.mean(), 40 * errors.max()]), np.stack([known.mean(0), codes[0]]), ordinary
    found = (logs(*unlike) - usual.mean(0)) / usual.std(0, ddof=1)
    largest = ((usual - usual.mean(0)) / usual.std(0, ddof=1)).max(1)
    expected = stats.t.cdf((found.max(1) - largest.mean()) / largest.std(ddof=1) / (1 + 1 / 12) ** 0.5, 11)

    far, percentiles, which = reference.compare(of(unlike[1], unlike[0], unlike[2]))
    assert far == pytest.approx(found.max(1), abs=1e-3) and percentiles == pytest.approx(100 * expected, abs=1e-2)
    assert which == [MEASURES[number] for number in found.argmax(1)] and which[1] == "reconstruction"
    assert percentiles[0] < 95 < percentiles[1]


def test_what_is_not_finite_or_constant_is_unlike():
    known, codes, errors = cohort(9, 20)
    known[:, 3] = 5.0  # a channel that is the same in all training scans
    codes[:, 3] = 5.0
    sides = np.random.default_rng(1).normal(size=(12, 7))
    parts = of(known, np.ones(len(known)), sides[:9]), of(codes, errors, sides)
    reference = Reference.fitted("abc", [1, 8, 8], *parts)
    strange = np.stack([codes[0], codes[0], codes[0]])
    strange[1, 3], strange[2, 0] = 6.0, np.nan
    usual = np.full(3, np.median(errors))
    _, percentiles, which = reference.compare(of(strange, usual, sides[:3]))
    assert percentiles[0] < 95 and (percentiles[1:] > 99).all() and which[2] != "reconstruction"


def test_scans_that_do_not_differ_are_no_reference():
    known, codes, _ = cohort(9, 20)
    parts = of(known, np.ones(9), known), of(np.tile(codes[:1], (12, 1)), np.full(12, 0.01), codes)
    with pytest.raises(MonaiCaeError, match="the validation scans are all alike"):
        Reference.fitted("abc", [1, 8, 8], *parts)


def test_a_mirrored_image_differs_in_its_sides_alone():
    """The left is brighter by 1 at one place, here in the upper half."""
    images = torch.full((1, 1, 16, 16), 0.5)
    images[:, :, 2:4, 10:12] = 1.5
    network = ConvAutoencoder(encoder=ConvEncoder(channels=(2, 4)), decoder=ConvDecoder(channels=(2, 4))).eval()
    (found, _), (mirrored, _) = measure(network, images), measure(network, images.flip(2))
    sides = found.sides.reshape(8, 8)
    assert torch.equal(sides, -mirrored.sides.reshape(8, 8)) and sides.nonzero().tolist() == [[2, 5], [3, 5]]
    symmetric = measure(network, images + images.flip(2))[0]
    assert not symmetric.sides.any()


def test_a_broken_file_is_refused(tmp_path):
    known, codes, errors = cohort(9, 20)
    reference = Reference.fitted("abc", [1, 8, 8], of(known, np.ones(9), known), of(codes, errors, codes))
    changed = {"codes": reference.codes[:, :4], "largest": torch.tensor([0.0, np.nan])}
    changed["sides"] = replace(reference.sides, centre=torch.zeros(3))
    for number, (name, value) in enumerate(changed.items()):
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
