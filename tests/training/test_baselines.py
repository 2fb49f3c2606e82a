"""The simpler models: what the config runs, against the same arithmetic by hand."""

from __future__ import annotations

import csv
import json
import random
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import torch
from mlflow import MlflowClient
from scipy.optimize import minimize
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedKFold
from sklearn.svm import SVC
from tiny import CONFIGS, mistake, random_network, write_discs, write_pair

from monai_cae.networks import save_weights
from monai_cae.targets import Diagnosis
from monai_cae.training import (
    Baselines,
    DarkPixels,
    EncoderCodes,
    InnerFolds,
    Pixels,
    PrecisionInferer,
    TableColumns,
    UnitNormScaler,
)

MODELS = {
    name: model
    for name, model in json.loads((CONFIGS / "baselines.json").read_text())["models"].items()
    if "classifier" in model  # those for numbers: tests/experiment/test_numbers_as_targets.py
}
WITHOUT_CODE = [name for name in MODELS if not name.startswith("code")]
SEED = 5
SETTINGS = {"cohort#controls": "all", "seed": SEED}


def write_table(root: Path, rows: list[dict]) -> None:
    with (root / "oasis_cross-sectional.csv").open("w", encoding="utf-8", newline="") as file:
        table = csv.DictWriter(file, list(rows[0]))
        table.writeheader()
        table.writerows(rows)


def read_csv(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8-sig") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def cohort(tmp_path_factory) -> Path:
    """18 controls and 12 patients, whose dark middle is larger; some cells of the table are blank."""
    root = write_discs(tmp_path_factory.mktemp("baselines") / "cohort", subjects=36)
    rng = np.random.default_rng(0)
    rows = read_csv(root / "oasis_cross-sectional.csv")
    for index, row in enumerate(rows):
        patient = index % 2
        row["CDR"] = "" if index % 6 == 1 else row["CDR"]  # a third of the patients were never rated
        row["Age"] = f"{rng.normal(70 + 2 * patient, 8):.0f}" if index % 7 != 2 else ""
        row["nWBV"] = f"{rng.normal(0.76 - 0.02 * patient, 0.03):.3f}" if index % 5 else "N/A"
        row["Educ"] = rng.integers(1, 6)
    write_table(root, rows)
    return root


def give_autoencoder(output: Path) -> None:
    save_weights(random_network("autoencoder"), output / "models" / "autoencoder.pt")


@pytest.fixture(scope="module")
def finished(cohort, run_bundle, tmp_path_factory) -> Path:
    """The output_dir after all models have run; not to be changed."""
    output = tmp_path_factory.mktemp("baselines run") / "out"
    give_autoencoder(output)
    run_bundle("baselines.json", cohort, output, experiment_name="baselines", **SETTINGS)
    return output


class ByHand:
    """The sets of a finished run, read without the package's transforms."""

    def __init__(self, root: Path, output: Path) -> None:
        content = json.loads((output / "datalist.json").read_text())
        self.fitting = sorted(content["training"] + content["validation"], key=lambda item: item["subject"])
        self.test = content["test"]
        self.root = root
        self.labels = np.array([item["label"] for item in self.fitting])

    def images(self, items: list[dict]) -> np.ndarray:
        planes = [np.asarray(nib.load(self.root / item["image"]).dataobj)[..., 10, 0].astype(float) for item in items]
        cropped = [plane[2:18, 4:20] for plane in planes]  # 20 x 24 to 16 x 16
        return np.stack([(plane - plane.min()) / (plane.max() - plane.min()) for plane in cropped])

    def table(self, columns: list[str]) -> tuple[np.ndarray, np.ndarray]:
        def value(item: dict, column: str) -> float:
            given = item.get(column, np.nan)
            return {"F": 0.0, "M": 1.0}[given] if column == "sex" else float(given)

        both = [np.array([[value(item, c) for c in columns] for item in items]) for items in (self.fitting, self.test)]
        medians = np.nanmedian(both[0], axis=0)
        assert np.isnan(both[0]).any()
        return tuple(np.where(np.isnan(part), medians, part) for part in both)

    def logistic(self, known: np.ndarray, unknown: np.ndarray, standardise: bool = True) -> np.ndarray:
        mean, sd = (known.mean(axis=0), known.std(axis=0)) if standardise else (0.0, 1.0)
        fitted = LogisticRegression(max_iter=10000).fit((known - mean) / sd, self.labels)
        return fitted.predict_proba((unknown - mean) / sd)[:, 1]


@pytest.fixture(scope="module")
def by_hand(cohort, finished) -> ByHand:
    return ByHand(cohort, finished)


def probabilities(output: Path, name: str) -> dict[str, float]:
    return {row["subject"]: float(row["probability"]) for row in read_csv(output / "baselines" / f"{name}.csv")}


def test_every_model_predicts_the_test_subjects_and_no_other(finished, by_hand):
    assert {path.stem for path in (finished / "baselines").iterdir()} == set(MODELS)
    for name in MODELS:
        rows = read_csv(finished / "baselines" / f"{name}.csv")
        assert list(rows[0]) == ["subject", "label", "probability", "prediction"]
        assert [(row["subject"], row["label"]) for row in rows] == [
            (item["subject"], str(item["label"])) for item in by_hand.test
        ]
        assert all(int(row["prediction"]) == (float(row["probability"]) >= 0.5) for row in rows)


def test_results_and_mlflow_have_every_models_scores(finished, tracking_uri):
    results = json.loads((finished / "results_baselines.json").read_text())
    assert results["fitted"] == 21 and results["tested"] == 9 and list(results["models"]) == list(MODELS)
    logged = MlflowClient(tracking_uri).get_run(results["run_id"])
    assert logged.data.tags["stage"] == "baselines" and logged.info.status == "FINISHED"
    for name, metrics in results["models"].items():
        rows = read_csv(finished / "baselines" / f"{name}.csv")
        right = [row["label"] == row["prediction"] for row in rows]
        assert metrics["accuracy"] == pytest.approx(np.mean(right))
        scores = [float(row["probability"]) for row in rows]
        assert metrics["auc"] == pytest.approx(roc_auc_score([int(row["label"]) for row in rows], scores))
        assert {f"test_{name}_{key}": value for key, value in metrics.items()}.items() <= logged.data.metrics.items()


def test_the_table_of_scores_is_printed(cohort, run_bundle, tmp_path, capsys):
    run_bundle("baselines.json", cohort, tmp_path / "out", only="majority", **SETTINGS)
    # 4 of 9 test subjects are patients; all are predicted to be controls
    assert (
        "  model     accuracy   F1 (AD)       AUC\n  majority     0.556     0.000     0.500\n"
        in capsys.readouterr().out
    )
    assert not (tmp_path / "out" / "baselines" / "table.csv").exists()


def test_majority_is_the_share_of_patients(finished, by_hand):
    share = sum(item["label"] for item in by_hand.fitting) / len(by_hand.fitting)
    assert list(probabilities(finished, "majority").values()) == pytest.approx([share] * len(by_hand.test), abs=1e-6)
    assert share != 0.5


@pytest.mark.parametrize(
    ("name", "columns"), [("table", ["age", "sex", "nWBV"]), ("table_education", ["age", "sex", "nWBV", "Educ"])]
)
def test_table_models_are_logistic_regressions_of_the_filled_columns(finished, by_hand, name, columns):
    expected = by_hand.logistic(*by_hand.table(columns))
    assert list(probabilities(finished, name).values()) == pytest.approx(expected, abs=1e-4)


def test_dark_pixels_are_counted(finished, by_hand):
    shares = [(by_hand.images(items) < 0.3).mean(axis=(1, 2))[:, None] for items in (by_hand.fitting, by_hand.test)]
    assert list(probabilities(finished, "dark_pixels").values()) == pytest.approx(by_hand.logistic(*shares), abs=1e-4)


def test_pca_logistic_is_a_regression_of_the_principal_components(finished, by_hand):
    known, unknown = (by_hand.images(items).reshape(len(items), -1) for items in (by_hand.fitting, by_hand.test))
    _, _, axes = np.linalg.svd(known - known.mean(axis=0), full_matrices=False)
    parts = [(part - known.mean(axis=0)) @ axes[: len(known) - 1].T for part in (known, unknown)]
    expected = by_hand.logistic(*parts, standardise=False)
    assert list(probabilities(finished, "pca_logistic").values()) == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("name", ["linear_svm", "rbf_svm"])
def test_support_vector_machines_are_calibrated_on_inner_folds(finished, by_hand, name):
    def pooled(items: list[dict]) -> np.ndarray:
        return by_hand.images(items).reshape(len(items), 4, 4, 4, 4).mean(axis=(2, 4)).reshape(len(items), 16)

    def scaled(known: np.ndarray, unknown: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        centre = known.mean(axis=0)
        norm = np.sqrt((np.linalg.norm(known - centre, axis=1) ** 2).mean())
        return (known - centre) / norm, (unknown - centre) / norm

    def folds(labels: np.ndarray) -> list:
        return list(StratifiedKFold(5, shuffle=True, random_state=SEED).split(labels, labels))

    def probability(known, labels, unknown, options) -> np.ndarray:
        """Platt's sigmoid on distances that were predicted in turn, then the machine of all."""
        distances = np.zeros(len(labels))
        for fit, left in folds(labels):
            fitted, rest = scaled(known[fit], known[left])
            distances[left] = SVC(**options).fit(fitted, labels[fit]).decision_function(rest)
        fitted, rest = scaled(known, unknown)
        machine = SVC(**options).fit(fitted, labels)
        return platt(distances, labels, machine.decision_function(rest))

    options = {"linear_svm": {"kernel": "linear", "C": 1.0}, "rbf_svm": {"kernel": "rbf", "C": 1.0, "gamma": 0.5}}[name]
    known, unknown, labels = pooled(by_hand.fitting), pooled(by_hand.test), by_hand.labels
    expected = probability(known, labels, unknown, options)
    assert list(probabilities(finished, name).values()) == pytest.approx(expected, abs=1e-4)


def platt(distances: np.ndarray, labels: np.ndarray, new: np.ndarray) -> np.ndarray:
    """Platt (1999): the sigmoid of greatest likelihood, its targets a little within 0 and 1."""
    patients = labels.sum()
    targets = np.where(labels == 1, (patients + 1) / (patients + 2), 1 / (len(labels) - patients + 2))

    def loss(line: np.ndarray) -> float:
        logits = line[0] * distances + line[1]
        return float((np.logaddexp(0, logits) - targets * logits).sum())

    slope, shift = minimize(
        loss, [0.0, 0.0], method="Nelder-Mead", options={"xatol": 1e-9, "fatol": 1e-12, "maxiter": 5000}
    ).x
    return 1 / (1 + np.exp(-(slope * new + shift)))


def test_code_is_the_averaged_output_of_the_trained_encoder(tmp_path):
    network = random_network("autoencoder", seed=3)
    save_weights(network, tmp_path / "autoencoder.pt")
    items = [{"image": torch.rand(1, 32, 32, generator=torch.Generator().manual_seed(i))} for i in range(5)]
    codes = EncoderCodes(
        random_network("autoencoder", seed=4),
        tmp_path / "autoencoder.pt",
        PrecisionInferer("float32"),
        size=4,
        batch_size=2,
    )
    codes.load()
    with torch.no_grad():
        full = network.encoder(torch.stack([item["image"] for item in items])).numpy()  # 128 x 8 x 8
    expected = full.reshape(5, 128, 4, 2, 4, 2).mean(axis=(3, 5)).reshape(5, -1)
    np.testing.assert_allclose(codes(items), expected, rtol=1e-4, atol=1e-5)


def test_features_of_pixels():
    image = np.arange(20, dtype=np.float32).reshape(1, 4, 5) / 20
    items = [{"image": torch.tensor(image)}, {"image": torch.tensor(image[:, ::-1].copy())}]
    np.testing.assert_allclose(Pixels()(items), np.stack([image.ravel(), image[:, ::-1].ravel()]))
    # squares of 2 x 2; the fifth column is left over
    np.testing.assert_allclose(Pixels(2)(items)[0] * 20, [3.0, 5.0, 13.0, 15.0], rtol=1e-6)
    assert DarkPixels(0.25)(items).tolist() == [[0.25], [0.25]]  # 0 to 4 of 20; the sixth is 0.25 itself


def test_features_of_the_table_are_numbers_whatever_the_case():
    items = [{"subject": "a", "age": 70, "sex": "F", "nWBV": 0.7}, {"subject": "b", "age": "81.5", "sex": "male"}]
    found = TableColumns(["Age", "sex", "nwbv"])(items).to_numpy()
    np.testing.assert_array_equal(found, [[70, 0, 0.7], [81.5, 1, np.nan]])


def test_scaler_gives_unit_mean_squared_norm():
    features = np.random.default_rng(0).normal(3, [1, 5, 0.1], (20, 3))
    scaler = UnitNormScaler().fit(features)
    assert (scaler.transform(features) ** 2).sum() / 20 == pytest.approx(1)
    new = np.ones((1, 3))
    np.testing.assert_allclose(scaler.transform(new) * scaler.scale_, new - features.mean(axis=0))
    assert np.array_equal(UnitNormScaler().fit_transform(np.ones((4, 2))), np.zeros((4, 2)))


@pytest.mark.parametrize(("patients", "folds"), [(9, 5), (5, 5), (4, 4), (2, 2)])
def test_inner_folds_shrink_to_the_smaller_class(patients, folds):
    labels = np.array([1] * patients + [0] * 11)
    parts = list(InnerFolds(5, seed=1).split(labels, labels))
    assert len(parts) == folds == InnerFolds(5).get_n_splits(labels, labels)
    assert sorted(np.concatenate([left for _, left in parts])) == list(range(len(labels)))
    assert all(set(labels[fit]) == set(labels[left]) == {0, 1} for fit, left in parts)


def test_same_command_twice_gives_the_same_tables(cohort, finished, run_bundle, tmp_path):
    give_autoencoder(tmp_path / "again")
    run_bundle("baselines.json", cohort, tmp_path / "again", **SETTINGS)
    for name in MODELS:
        first, again = (path / "baselines" / f"{name}.csv" for path in (finished, tmp_path / "again"))
        assert first.read_bytes() == again.read_bytes(), name


def test_the_order_of_subjects_changes_nothing(cohort, finished, run_bundle, tmp_path):
    content = json.loads((finished / "datalist.json").read_text())
    for part in ("training", "validation", "test"):
        random.Random(1).shuffle(content[part])
    datalist = tmp_path / "permuted.json"
    datalist.write_text(json.dumps(content))
    give_autoencoder(tmp_path / "out")
    names = ["table", "pca_logistic", "rbf_svm", "code_logistic"]
    run_bundle("baselines.json", cohort, tmp_path / "out", datalist=str(datalist), only=names, **SETTINGS)
    for name in names:
        first, permuted = probabilities(finished, name), probabilities(tmp_path / "out", name)
        assert list(first) != list(permuted)
        assert permuted == pytest.approx(first, abs=1e-5), name


def test_seed_decides_the_inner_folds_alone(cohort, finished, run_bundle, tmp_path):
    content = json.loads((finished / "datalist.json").read_text()) | {"made_from": {}}
    (tmp_path / "datalist.json").write_text(json.dumps(content))
    given = {**SETTINGS, "seed": 6, "datalist": str(tmp_path / "datalist.json"), "only": ["pca_logistic", "rbf_svm"]}
    run_bundle("baselines.json", cohort, tmp_path / "out", **given)
    assert probabilities(finished, "pca_logistic") == probabilities(tmp_path / "out", "pca_logistic")
    assert probabilities(finished, "rbf_svm") != probabilities(tmp_path / "out", "rbf_svm")


def test_a_darker_class_is_told_also_by_a_model_of_ones_own(run_bundle, tmp_path):
    root = write_discs(tmp_path / "cohort", subjects=20)
    for index in range(1, 20, 2):  # patients
        path = next(root.rglob(f"OAS1_{index + 1:04d}*.img"))
        darker = np.asarray(nib.load(path).dataobj)[..., 0].copy()
        darker[4:12] //= 4
        write_pair(path, darker)
    nearest = {"_target_": "sklearn.neighbors.KNeighborsClassifier", "n_neighbors": 1}
    entry = {"features": "@features#dark_pixels", "classifier": nearest}
    only = ("nearest", "dark_pixels")  # what the command line makes of nearest,dark_pixels
    run_bundle("baselines.json", root, tmp_path / "out", only=only, **{"models#nearest": entry}, **SETTINGS)
    assert {path.name for path in (tmp_path / "out" / "baselines").iterdir()} == {"nearest.csv", "dark_pixels.csv"}
    models = json.loads((tmp_path / "out" / "results_baselines.json").read_text())["models"]
    assert models["dark_pixels"]["auc"] == 1.0 and models["nearest"]["accuracy"] == 1.0


def test_few_patients_are_enough_until_there_are_too_few(cohort, finished, run_bundle, tmp_path):
    content = json.loads((finished / "datalist.json").read_text())
    path = tmp_path / "datalist.json"
    options = {**SETTINGS, "datalist": str(path), "only": "linear_svm"}
    for left in (2, 1):
        patients = [item for item in content["training"] if item["label"] == 1]
        drop = [item["subject"] for item in patients[left:]]
        content["training"] = [item for item in content["training"] if item["subject"] not in drop]
        controls = [item for item in content["validation"] if item["label"] == 0]
        content["validation"] = [*controls, *(patients[-1:] if left == 2 else [])]
        path.write_text(json.dumps(content))
        output = tmp_path / str(left)
        if left == 2:
            run_bundle("baselines.json", cohort, output, **options)
            assert 0 < probabilities(output, "linear_svm").popitem()[1] < 1
        else:
            assert mistake(lambda to=output: run_bundle("baselines.json", cohort, to, **options)).startswith(
                "linear_svm can't be fitted: too few subjects to choose or calibrate on: 1 patients and "
            )


SVM_ALONE = {"features": "@features#pixels", "classifier": {"_target_": "sklearn.svm.LinearSVC"}}
NEGATIVE = {
    "features": "@features#pixels",
    "classifier": {"_target_": "sklearn.linear_model.LogisticRegression", "C": -1},
}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "code_logistic needs an autoencoder, and there is none at "),
        ({}, "run pretrain.json with the same --output_dir first, or name one with --pretrained, "
             f"or leave such models out: --only {','.join(WITHOUT_CODE)}"),
        ({"only": "code_svm"}, "or name one with --pretrained"),
        ({"only": "majorty"}, "--only names the unknown model majorty: did you mean majority?"),
        ({"only": ["majority", "forest"]}, "--only names the unknown model forest: there are majority, table"),
        ({"only": "wmh", "models#wmh": {"features": {"_target_": "monai_cae.training.TableColumns", "columns": ["WMH"]},
                                        "classifier": "@models#table#classifier"}},
         "wmh needs the column WMH, which no training or validation subject has: add it to the table"),
        ({"only": "majority", "models#svm": SVM_ALONE}, "the classifier of models#svm gives no probabilities"),
        ({"only": "bad", "models#bad": NEGATIVE}, "bad can't be fitted: "),
        ({"models#a/b": SVM_ALONE}, "a model can't be called 'a/b'"),
        ({"models#mine": {"features": "@features#pixels"}}, "models#mine must have features and a classifier"),
        ({"features#pooled_pixels#pool": 17, "only": "linear_svm"}, "pool 17 is above the images' size (16, 16)"),
        ({"features#pooled_pixels#pool": 0}, "pool must be a whole number, 1 or more, not 0"),
        ({"max_epochs": 3}, "nothing here reads --max_epochs: it is a setting of"),
    ],
)  # fmt: skip
def test_mistakes_end_in_one_line(cohort, run_bundle, tmp_path, options, message):
    found = mistake(lambda: run_bundle("baselines.json", cohort, tmp_path / "out", **SETTINGS, **options))
    assert message in found, found
    assert not (tmp_path / "out" / "baselines").exists() and not (tmp_path / "out" / "results_baselines.json").exists()


def test_a_column_that_nobody_has_names_the_models_that_need_none(discs, run_bundle, tmp_path):
    table = tmp_path / "table.csv"
    pd.read_csv(discs / "oasis_cross-sectional.csv").drop(columns="nWBV").to_csv(table, index=False)
    options = {"only": WITHOUT_CODE, "cohort#table": str(table)}
    found = mistake(lambda: run_bundle("baselines.json", discs, tmp_path / "out", **options))
    without_table = ",".join(name for name in WITHOUT_CODE if not name.startswith("table"))
    assert found.startswith("table needs the column nWBV, which no training or validation subject has")
    assert found.endswith(f"or leave such models out: --only {without_table}")


def test_a_broken_cell_of_a_datalist_and_a_missing_class_are_named(cohort, finished, run_bundle, tmp_path):
    content = json.loads((finished / "datalist.json").read_text())
    content["training"][0]["nWBV"] = "high"
    path = tmp_path / "datalist.json"
    path.write_text(json.dumps(content))
    options = {**SETTINGS, "datalist": str(path), "only": "table"}
    found = mistake(lambda: run_bundle("baselines.json", cohort, tmp_path / "out", **options))
    assert found.startswith(f"nWBV of {content['training'][0]['subject']} is 'high', not a number")
    controls = [{"image": torch.zeros(1, 4, 4), "label": torch.zeros(1), "subject": str(i)} for i in range(4)]
    with pytest.raises(ValueError, match="are all of one class"):
        Baselines(
            {"dark": {"features": DarkPixels(), "classifier": LogisticRegression()}},
            "",
            controls,
            controls,
            str(tmp_path),
            Diagnosis(),
        )


def test_a_failing_write_leaves_no_half_of_a_table(cohort, finished, run_bundle, tmp_path):
    output = tmp_path / "out"
    shutil.copytree(finished, output)
    (output / "baselines" / "majority.csv").unlink()
    (output / "baselines" / "majority.csv").mkdir()  # can't be replaced by a file
    options = {"only": "majority", "overwrite": True, **SETTINGS}
    assert mistake(lambda: run_bundle("baselines.json", cohort, output, **options)).startswith("can't write ")
    assert [path.name for path in (output / "baselines").iterdir()] == ["majority.csv"]
