"""Groups of scans by how unlike the training's they are."""

from __future__ import annotations

import pandas as pd
import pytest
from scipy import stats

from monai_cae.errors import MonaiCaeError
from monai_cae.evaluation.drift import drift, drift_figure


def scans(by: list[str], unlike: list[float], subjects: list[str] | None = None) -> pd.DataFrame:
    names = subjects or [f"s{number}" for number in range(len(by))]
    return pd.DataFrame({"subject": names, "by": by, "unlike": unlike})


def test_sites_are_compared_and_small_ones_are_not_tested():
    near, far = [10.0, 30.0, 50.0, 70.0, 96.0], [97.0, 98.0, 99.0, 99.5, 60.0]
    found = drift(scans(["a"] * 5 + ["b"] * 5 + [""], [*near, *far, 99.0]), 95)
    table = found.groups.set_index("group")
    assert list(table["marked"]) == [1, 1, 4] and set(table.index) == {"a", "b", "not given"}
    assert table.loc["b", "p"] == pytest.approx(5 * 0.05**4 * 0.95 + 0.05**5)
    assert table.loc["b", "q"] == pytest.approx(2 * table.loc["b", "p"]) and pd.isna(table.loc["not given", "p"])
    assert found.p == pytest.approx(stats.kruskal(near, far).pvalue) and not found.time
    assert drift_figure(found, 95).axes


def test_numbers_are_sites_if_that_is_said():
    rows = scans(["1"] * 5 + ["2"] * 5, [10.0, 30.0, 50.0, 70.0, 96.0, 97.0, 98.0, 99.0, 99.5, 60.0])
    found = drift(rows, 95, as_sites=True)
    assert not found.time and list(found.groups["group"]) == ["1", "2"] and list(found.groups["marked"]) == [1, 4]


def test_dates_and_numbers_are_time_and_scans_of_a_subject_count_once():
    days = [f"2024-0{month}-1{day}" for month in range(1, 9) for day in range(2)]
    unlike = [float(number) for number in range(16)]
    found = drift(scans(days, unlike), 95)
    assert found.time and found.statistic == pytest.approx(1) and list(found.groups["subjects"]) == [4] * 4
    assert found.groups["group"][0] == "2024-01-10 to 2024-02-11"
    twice = drift(scans(["1", "1", "2", "3"], [0.0, 100.0, 99.0, 1.0], ["x", "x", "y", "z"]), 95)
    assert list(twice.groups["subjects"]) == [1, 1, 1] and twice.groups["median"][0] == 50


def test_one_group_and_too_many_texts():
    assert drift(scans(["all"] * 3, [1.0, 2.0, 99.0]), 95).test == ""
    with pytest.raises(MonaiCaeError, match="41 different texts, 40 are the most"):
        drift(scans([f"site {number}" for number in range(41)], [1.0] * 41), 95)
