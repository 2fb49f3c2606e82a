"""Numbers against their limits, and the steps that can be tried without a head."""

from __future__ import annotations

import numpy as np
import pytest

from monai_cae.prepare.intensity import scaled
from monai_cae.prepare.quality import QUALITY, judge

FINE = {item.name: (max(item.good[0], -1e6) + min(item.good[1], 1e6)) / 2 for item in QUALITY}


def test_a_fine_scan_passes():
    assert judge(FINE).status == "pass" and judge(FINE).reasons == ()


@pytest.mark.parametrize("item", QUALITY, ids=lambda item: item.name)
def test_each_number_is_held_against_its_limits(item):
    assert item.usable[0] <= item.good[0] < item.good[1] <= item.usable[1]
    doubtful = (item.usable[0] + item.good[0]) / 2 if item.usable[0] < item.good[0] else item.good[1] * 1.001 + 1e-6
    verdict = judge(FINE | {item.name: doubtful})
    assert verdict.status == "review" and len(verdict.reasons) == 1 and item.meaning in verdict.reasons[0]
    bad = item.usable[0] - 0.01 if item.usable[0] < item.good[0] else item.usable[1] * 1.01
    assert judge(FINE | {item.name: bad}).status == "fail"
    assert judge(FINE | {item.name: np.nan}).status == "fail"


def test_what_fails_is_said_before_what_is_doubtful():
    verdict = judge(FINE | {"dice": 0.1, "brain_ml": 990.0})
    assert verdict.status == "fail"
    assert verdict.reasons == (
        "Dice of the mask with the template's: 0.1, less than 0.88",
        "volume of the brain: 990 ml, less than 1000",
    )


def test_the_scale_is_the_brains_own():
    image = np.arange(-1, 1001, dtype=np.float32).reshape(1, 1, -1)
    mask = image < 1000
    result = scaled(image, mask, 50)
    assert result[0, 0, -1] == 0 and result[0, 0, 0] == pytest.approx(1e-3) and result[0, 0, 900] == 1
    assert result[0, 0, 251] == pytest.approx(250 / 499, rel=1e-4), "0 stays 0: no offset"
    np.testing.assert_allclose(scaled(7 * image, mask, 50), result, rtol=1e-5)
