from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binom
from simulated import predictions
from sklearn.metrics import accuracy_score, roc_auc_score

from monai_cae.errors import MonaiCaeError
from monai_cae.evaluation.comparison import corrected_resampled_t, delong, mcnemar
from monai_cae.evaluation.curves import roc_band
from monai_cae.evaluation.pooled import pooled
from monai_cae.evaluation.scores import SCORES
from monai_cae.evaluation.subgroups import subgroup_table
from monai_cae.evaluation.summary import compare, summarise

FAST = {"resamples": 200}
TABLE = predictions()


def rng() -> np.random.Generator:
    return np.random.default_rng(11)


def test_mean_and_sd_are_over_the_repeats():
    summary = summarise(TABLE, rng(), scores=("auc", "accuracy"), **FAST)
    by_repeat = {
        "auc": [roc_auc_score(rows["label"], rows["probability"]) for _, rows in TABLE.groupby("repeat")],
        "accuracy": [accuracy_score(rows["label"], rows["probability"] >= 0.5) for _, rows in TABLE.groupby("repeat")],
    }
    assert summary.index.tolist() == ["auc", "accuracy"]
    for score, values in by_repeat.items():
        row = summary.loc[score]
        assert (row["mean"], row["sd"]) == pytest.approx((np.mean(values), np.std(values, ddof=1)))
        assert row["low"] < row["mean"] < row["high"]
        assert (row["subjects"], row["repeats"], row["note"]) == (60, 3, "")


def test_every_score_has_a_row():
    summary = summarise(TABLE, rng(), **FAST)
    assert summary.index.tolist() == list(SCORES)
    assert np.isfinite(summary[["mean", "sd", "low", "high"]].to_numpy()).all()


def test_repeating_the_same_predictions_makes_nobody_surer():
    once = TABLE[TABLE["repeat"] == 1]
    again = pd.concat([once.assign(repeat=repeat) for repeat in range(5)])
    one, five = (summarise(table, rng(), scores=("auc",), **FAST).loc["auc"] for table in (once, again))
    assert (five["low"], five["high"]) == pytest.approx((one["low"], one["high"]))
    assert five["sd"] == pytest.approx(0)
    assert math.isnan(one["sd"])


def test_the_order_of_the_rows_is_nothing():
    shuffled = TABLE.sample(frac=1, random_state=0)
    first, second = (summarise(table, rng(), scores=("auc", "ece"), **FAST) for table in (TABLE, shuffled))
    pd.testing.assert_frame_equal(first, second)
    assert TABLE.index.tolist() == list(range(180))


def test_each_fold_has_its_threshold():
    table = TABLE.assign(threshold=np.where(TABLE["fold"] == 1, 0.0, 0.5))
    right = (table["probability"] >= table["threshold"]) == (table["label"] == 1)
    summary = summarise(table, rng(), scores=("accuracy", "auc"), **FAST)
    assert summary.loc["accuracy", "mean"] == pytest.approx(right.mean())
    assert right.mean() < summarise(TABLE, rng(), scores=("accuracy",), **FAST).loc["accuracy", "mean"]


def test_hold_outs_test_different_subjects():
    table = TABLE[TABLE["fold"] == TABLE["repeat"]]
    row = summarise(table, rng(), scores=("accuracy",), **FAST).loc["accuracy"]
    values = [accuracy_score(rows["label"], rows["probability"] >= 0.5) for _, rows in table.groupby("repeat")]
    assert row["subjects"] == table["subject"].nunique() < len(TABLE) / 3
    assert (row["mean"], row["sd"]) == pytest.approx((np.mean(values), np.std(values, ddof=1)))


def test_notes_tell_what_is_undefined():
    patients = summarise(TABLE[TABLE["label"] == 1], rng(), scores=("sensitivity", "auc"), **FAST)
    assert patients.loc["auc", "note"] == "undefined without HC"
    assert np.isnan(patients.loc["auc", ["mean", "sd", "low", "high"]].astype(float)).all()
    assert 0 < patients.loc["sensitivity", "low"] < patients.loc["sensitivity", "high"] < 1

    constant = summarise(TABLE.assign(probability=0.5), rng(), scores=("calibration_slope", "auc"), **FAST)
    assert constant.loc["calibration_slope", "note"] == "undefined in 3 of 3 repeats"
    assert constant.loc["auc", ["mean", "note"]].tolist() == [0.5, "no interval, as resampling changes nothing"]
    assert np.isnan(constant.loc["auc", ["low", "high"]].astype(float)).all()

    separated = summarise(predictions(5, 1), rng(), scores=("auc",), **FAST)
    assert separated.loc["auc", "note"] == "no interval, as resampling changes nothing"


def said(labels: list[int], decisions: list[int], repeats: int = 1) -> pd.DataFrame:
    """The record of subjects who were taken for these classes in every repeat."""
    one = pd.DataFrame({"subject": range(len(labels)), "fold": 1, "label": labels, "probability": decisions})
    return pd.concat([one.assign(repeat=number) for number in range(repeats)])


@pytest.mark.parametrize("repeats", [1, 5])
def test_proportions_without_chance_have_wilsons_interval_of_the_subjects(repeats):
    # everybody is taken for AD: 4 of 9 right, and the same in every resample
    table = summarise(said([1] * 4 + [0] * 5, [1] * 9, repeats), rng(), **FAST)
    # (p + z^2 / 2n +- z sqrt(p (1 - p) / n + z^2 / 4n^2)) / (1 + z^2 / n) with z 1.95996
    assert table.loc["accuracy", ["low", "high"]].tolist() == pytest.approx([0.1888, 0.7333], abs=1e-4)
    assert table.loc["sensitivity", ["low", "high"]].tolist() == pytest.approx([0.5101, 1], abs=1e-4)
    assert table.loc["specificity", ["low", "high"]].tolist() == pytest.approx([0, 0.4345], abs=1e-4)
    assert (table.loc[["accuracy", "sensitivity"], "note"] == "Wilson's interval, as resampling changes nothing").all()
    assert table.loc["f1", "mean"] == pytest.approx(8 / 13) and math.isnan(table.loc["f1", "low"])
    assert table.loc[["f1", "auc", "mcc"], "note"].unique().tolist() == ["no interval, as resampling changes nothing"]


def test_proportions_of_few_subjects_have_wilsons_interval():
    table = summarise(said([1] * 4 + [0] * 5, [1, 1, 1, 0, 0, 0, 0, 1, 1]), rng(), **FAST)
    assert table.loc["accuracy", "mean"] == pytest.approx(6 / 9)
    assert table.loc["accuracy", ["low", "high"]].tolist() == pytest.approx([0.3542, 0.8794], abs=1e-4)
    assert table.loc["accuracy", "note"] == "Wilson's interval, as there are only 5 HC and 4 AD"
    assert table.loc["auc", "note"] == "interval too narrow, as there are only 5 HC and 4 AD"


def test_enough_subjects_that_differ_keep_the_bootstrap():
    table = summarise(said([1] * 20 + [0] * 20, [1] * 15 + [0] * 25), rng(), resamples=4000)
    low, high = table.loc["sensitivity", ["low", "high"]]
    assert (low, high) == pytest.approx(tuple(binom.ppf([0.025, 0.975], 20, 0.75) / 20), abs=0.05)
    assert table.loc["sensitivity", "note"] == ""
    # nobody of HC is taken for AD: only this one has no chance in it
    assert table.loc["specificity", "note"] == "Wilson's interval, as resampling changes nothing"
    assert table.loc["specificity", "low"] == pytest.approx(20 / (20 + 1.95996**2), abs=1e-4)


def test_resamples_without_a_score_are_told():
    table = pd.DataFrame({"subject": range(40), "repeat": 1, "fold": 1, "label": np.arange(40) % 2})
    # of two subjects on the wrong side one at least must be drawn
    table["probability"] = np.where(table["label"] == 1, 0.8, 0.2) + 0.001 * np.arange(40)
    table.loc[[0, 1], "probability"] = [0.9, 0.1]
    row = summarise(table, rng(), scores=("calibration_slope",), resamples=400).loc["calibration_slope"]
    share = float(row["note"].removeprefix("undefined in ").removesuffix("% of the resamples")) / 100
    # each is left out of its class's twenty draws with the chance (19/20)^20
    assert share == pytest.approx((19 / 20) ** 40, abs=0.05)
    assert np.isnan([row["low"], row["high"]]).all()
    assert np.isfinite(row["mean"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda table: table.drop(columns="fold"), "missing: fold"),
        (lambda table: table.assign(label=table["label"] * 2), "labels must be .*, not 2"),
        (lambda table: table.assign(probability=table["probability"] * 9), "probabilities must be between"),
        (lambda table: table.assign(repeat=1), "one prediction per repeat, but S000 has two in repeat 1"),
        (lambda table: table.assign(threshold=1.5), "threshold must be a probability"),
        (
            lambda table: table.assign(subject=table["subject"].mask(table.index == 4)),
            "blank under 'subject', in row 5",
        ),
        (lambda table: table.assign(label=table["label"].where(table.index != 61, 0)), "S001 has 0 and 1"),
        (lambda table: table.iloc[:0], "at least one subject"),
    ],
)
def test_refuses_predictions(change, message):
    table = TABLE.assign(label=TABLE["label"].where(TABLE["subject"] != "S001", 1))
    with pytest.raises(MonaiCaeError, match=message) as caught:
        pooled(change(table))
    assert "\n" not in str(caught.value)


def test_mean_predictions_count_a_subject_once():
    table = pd.DataFrame(
        {
            "subject": ["b", "a", "b", "b", "a"],
            "repeat": [1, 1, 2, 3, 3],
            "fold": 1,
            "label": [1, 0, 1, 1, 0],
            "probability": [0.9, 0.2, 0.1, 0.2, 0.6],
            "threshold": [0.5, 0.4, 0.3, 0.4, 0.4],
        }
    )
    probabilities, decisions = pooled(table).mean_predictions()
    assert probabilities == pytest.approx([0.4, 0.4])
    # 0.4 lies on the threshold of a, and on the mean of b's: 1.2 / 3
    assert decisions.tolist() == [True, True]
    assert not pooled(table.assign(threshold=0.41)).mean_predictions()[1].any()


def test_compare_is_the_three_tests():
    ours, other = TABLE, predictions(seed=1, strength=0.3)
    table = compare(ours, other, rng(), n_train=36, n_test=12, **FAST)
    by_fold = {"accuracy": [], "auc": []}
    for key, mine in ours.groupby(["repeat", "fold"]):
        theirs = other[(other["repeat"] == key[0]) & (other["fold"] == key[1])]
        scored = [
            (
                accuracy_score(rows["label"], rows["probability"] >= 0.5),
                roc_auc_score(rows["label"], rows["probability"]),
            )
            for rows in (mine, theirs)
        ]
        by_fold["accuracy"].append(scored[0][0] - scored[1][0])
        by_fold["auc"].append(scored[0][1] - scored[1][1])
    means = [rows.groupby("subject")["probability"].mean().to_numpy() for rows in (ours, other)]
    labels = ours.groupby("subject")["label"].first().to_numpy()
    paired = {
        "accuracy": ("McNemar", mcnemar(*[(mean >= 0.5) == labels for mean in means])),
        "auc": ("DeLong", delong(labels, *means).p_value),
    }
    for score, gains in by_fold.items():
        row = table.loc[score]
        expected = [summarise(rows, rng(), scores=(score,), **FAST).loc[score, "mean"] for rows in (ours, other)]
        assert (row["ours"], row["other"]) == pytest.approx(tuple(expected))
        assert row["difference"] == pytest.approx(expected[0] - expected[1])
        assert row["low"] < row["difference"] < row["high"]
        assert row["p_corrected_t"] == pytest.approx(corrected_resampled_t(gains, 36, 12).p_value)
        assert (row["paired_test"], row["p_paired"]) == (paired[score][0], pytest.approx(paired[score][1]))
        assert (row["trials"], row["note"]) == (15, "")


def test_compare_is_ours_minus_the_others():
    strong = predictions(strength=3)
    table = compare(strong, strong.assign(probability=1 - strong["probability"]), rng(), 36, 12, **FAST)
    assert (table["low"] > 0).all()
    assert (table[["p_corrected_t", "p_paired"]] < 0.01).all(axis=None)


def test_compare_resamples_pairs_of_predictions():
    ours = predictions(noise=0.01)
    nearly = ours.assign(probability=ours["probability"].round(2))
    row = compare(ours, nearly, rng(), 36, 12, **FAST).loc["auc"]
    alone = summarise(ours, rng(), scores=("auc",), **FAST).loc["auc"]
    assert row["high"] - row["low"] < 0.1 * (alone["high"] - alone["low"])


def test_compare_with_itself():
    table = compare(TABLE, TABLE.sample(frac=1, random_state=1), rng(), 36, 12, **FAST)
    assert (table[["difference", "low", "high"]] == 0).all(axis=None)
    assert (table[["p_corrected_t", "p_paired"]] == 1).all(axis=None)


def test_compare_folds_too_small_for_an_auc():
    ours, other = predictions(8, 2, folds=4), predictions(8, 2, folds=4, seed=1)
    table = compare(ours, other, rng(), 6, 2, **FAST)
    assert "folds, so no t test" in table.loc["auc", "note"]
    assert math.isnan(table.loc["auc", "p_corrected_t"])
    assert np.isfinite(table.loc["accuracy", ["p_corrected_t", "p_paired"]].astype(float)).all()
    patients = [rows[rows["label"] == 1] for rows in (ours, other)]
    assert math.isnan(compare(*patients, rng(), 6, 2, **FAST).loc["auc", "p_paired"])


@pytest.mark.parametrize(
    "change",
    [
        lambda table: table.assign(fold=table["fold"] % 5 + 1),
        lambda table: table[table["subject"] != "S007"],
        lambda table: table.assign(repeat=table["repeat"] + 1),
        lambda table: table.assign(label=1 - table["label"]),
    ],
    ids=["folds", "subjects", "repeats", "labels"],
)
def test_compare_refuses_other_splits(change):
    with pytest.raises(MonaiCaeError, match=r"same subjects, with one label.* rows differ, the first is subject S0"):
        compare(TABLE, change(TABLE), rng(), 36, 12)


def test_subgroups_by_hand():
    table = subgroup_table(TABLE, rng(), resamples=50).set_index(["by", "group", "score"])
    first = TABLE[TABLE["repeat"] == 1]
    assert list(dict.fromkeys(table.loc["cdr"].index)) == [
        ("0", "specificity"),
        *[(grade, score) for grade in ("0.5", "1") for score in ("sensitivity", "auc")],
    ]
    mild = TABLE[TABLE["cdr"].isin([0, 0.5])]
    row = table.loc["cdr", "0.5", "auc"]
    assert row["subjects"] == row["patients"] == (first["cdr"] == 0.5).sum()
    assert row["mean"] == pytest.approx(
        np.mean([roc_auc_score(rows["label"], rows["probability"]) for _, rows in mild.groupby("repeat")])
    )
    found = TABLE.loc[TABLE["cdr"] == 1, "probability"] >= 0.5
    assert table.loc["cdr", "1", "sensitivity"]["mean"] == pytest.approx(found.mean())
    for sex in ("F", "M"):
        rows = TABLE[TABLE["sex"] == sex]
        row = table.loc["sex", sex, "accuracy"]
        assert (row["subjects"], row["patients"]) == (len(rows) / 3, rows["label"].sum() / 3)
        assert row["mean"] == pytest.approx(((rows["probability"] >= 0.5) == (rows["label"] == 1)).mean())


@pytest.mark.parametrize(("size", "scored"), [(1, False), (4, False), (5, True)])
def test_groups_of_fewer_than_five_have_counts_alone(size, scored):
    mild = TABLE.loc[TABLE["label"] == 1, "subject"].unique()
    grades = dict.fromkeys(mild, 0.5) | dict.fromkeys(mild[:size], 2)
    table = TABLE.assign(cdr=TABLE["subject"].map(grades).fillna(0), sex="F")
    groups = subgroup_table(table, rng(), by=("cdr", "sex"), resamples=20)
    rows = groups[(groups["by"] == "cdr") & (groups["group"] == "2")]
    assert (rows[["subjects", "patients"]] == size).all(axis=None)
    assert rows["score"].tolist() == (["sensitivity", "auc"] if scored else ["auc"])
    assert rows[["mean"]].notna().all(axis=None) == scored
    if not scored:
        assert rows[["mean", "sd", "low", "high"]].isna().all(axis=None)
        assert rows["note"].tolist() == ["fewer than 5 subjects, no score"]
    assert groups.loc[groups["by"] == "sex", "mean"].notna().all()


def test_age_tertiles_hold_a_third_of_the_subjects_each():
    table = TABLE.assign(age=TABLE["subject"].str[1:].astype(int) + 40)
    groups = subgroup_table(table, rng(), by=("age",), resamples=20)
    assert groups["group"].unique().tolist() == ["40-59", "60-79", "80-99"]
    assert (groups["subjects"] == 20).all()
    # most rows are of the youngest; cuts by rows would lie among them
    youngest = table[(table["repeat"] == 1) & (table["age"] < 50)]
    many = pd.concat([table[table["repeat"] == 1], *[youngest.assign(repeat=10 + number) for number in range(9)]])
    groups = subgroup_table(many, rng(), by=("age",), resamples=20)
    assert groups["group"].unique().tolist() == ["40-59", "60-79", "80-99"]
    assert subgroup_table(table.assign(age=70), rng(), by=("age",), resamples=20)["group"].unique().tolist() == ["70"]


def test_subgroups_of_one_class_and_of_blanks():
    table = TABLE.assign(sex=np.where(TABLE["label"] == 1, "F", None), cdr=np.nan, age=np.nan)
    groups = subgroup_table(table, rng(), resamples=20)
    assert groups.groupby("by")["group"].unique().map(list).to_dict() == {
        "cdr": ["unknown"],
        "age": ["unknown"],
        "sex": ["F", "unknown"],
    }
    women = groups[groups["group"] == "F"].set_index("score")
    assert math.isnan(women.loc["auc", "mean"])
    assert women.loc["specificity", "note"] == "undefined without HC"
    assert women.loc["sensitivity", "note"] == ""


@pytest.mark.parametrize(
    ("change", "by", "message"),
    [
        (lambda table: table.drop(columns="sex"), ("sex",), "by must name columns"),
        (lambda table: table, ("fold",), "by must name columns"),
        (lambda table: table, (), "by must name columns"),
        (lambda table: table.assign(cdr=0.5), ("cdr",), "label must be 0 for CDR 0 .* subject S002"),
        (lambda table: table.assign(age=table.index), ("age",), "one age in all its rows, but S000"),
    ],
)
def test_subgroups_refuse(change, by, message):
    with pytest.raises(MonaiCaeError, match=message):
        subgroup_table(change(TABLE), rng(), by=by, resamples=5)


def test_roc_band_goes_through_the_points_of_the_curve():
    table = pd.DataFrame({"subject": list("abcde"), "repeat": 1, "fold": 1, "label": [1, 0, 1, 0, 0]})
    table["probability"] = [0.9, 0.8, 0.6, 0.4, 0.2]
    band = roc_band(table, rng(), resamples=50)
    assert band.repeats.shape == (1, 202)
    assert (band.false_positive_rate[0], band.mean[0], band.low[0], band.high[0]) == (0, 0, 0, 0)  # where nobody is AD
    # one AD before the first HC, the other after it
    at = {rate: band.mean[1 + round(200 * rate)] for rate in (0, 0.2, 0.5, 1)}
    assert at == pytest.approx({0: 0.5, 0.2: 0.5, 0.5: 1, 1: 1})


def test_roc_band_averages_the_repeats_and_covers_them():
    band = roc_band(TABLE, rng(), **FAST)
    assert band.mean == pytest.approx(band.repeats.mean(axis=0))
    assert np.trapezoid(band.mean, band.false_positive_rate) == pytest.approx(
        summarise(TABLE, rng(), scores=("auc",), **FAST).loc["auc", "mean"], abs=0.01
    )
    inside = (band.low <= band.mean) & (band.mean <= band.high)
    assert inside.mean() > 0.95


def test_roc_band_of_too_few():
    # the only AD of the first repeat is missing from nearly half of the resamples
    labels = [1, 1, 1, 0, 0]
    table = pd.DataFrame({"subject": list("abcde") * 2, "repeat": [1] * 5 + [2] * 5, "fold": 1, "label": labels * 2})
    table["probability"] = np.linspace(0.1, 0.9, 10)
    band = roc_band(table.drop(index=[0, 1]), rng(), **FAST)
    assert np.isnan(band.low[1:]).all()
    assert np.isfinite(band.mean).all()
    with pytest.raises(MonaiCaeError, match="subjects of repeat 1 have one"):
        roc_band(table.drop(index=[0, 1, 2]), rng(), **FAST)
