"""The experiment's card and page: their numbers are the experiment's, the card names nobody, nothing is invented."""

from __future__ import annotations

import csv
import html
import json
import re
import shutil
import zipfile
from pathlib import Path

import monai.bundle
import numpy as np
import pandas as pd
import pytest
from deploy import Deploy
from drawing import drawing
from sklearn.metrics import roc_auc_score
from tiny import volume, write_discs

from monai_cae.cli import main
from monai_cae.errors import MonaiCaeError
from monai_cae.experiment.card import experiment_card, write_card
from monai_cae.experiment.explained import explanation_tests
from monai_cae.experiment.figures import drawings
from monai_cae.experiment.misjudged import write_errors
from monai_cae.experiment.page import experiment_page
from monai_cae.experiment.results import compute
from monai_cae.experiment.wording import better_or_worse
from monai_cae.files import only_writer
from monai_cae.targets import Diagnosis

OPTIONS = {"repeats": 2, "seed": 3, "max_epochs": 1, "experiment_name": "cards", "cohort#sessions": "first"}
ALWAYS_OPEN = {1, 2, 3, 4, 5, 6, 11, 15, 16, 18, 21, 31, 33, 34, 39, 42, 43, 44}


@pytest.fixture(scope="module")
def cohort(tmp_path_factory) -> Path:
    """26 scans: 3 without a CDR, 11 patients and 12 controls, so that one of these is not chosen."""
    root = write_discs(tmp_path_factory.mktemp("discs"), subjects=26)
    path = root / "oasis_cross-sectional.csv"
    with path.open(encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file))
    for number in (1, 3, 4):
        rows[number]["CDR"] = ""
    with path.open("w", encoding="utf-8-sig", newline="") as file:
        table = csv.DictWriter(file, list(rows[0]))
        table.writeheader()
        table.writerows(rows)
    return root


@pytest.fixture(scope="module")
def run(run_bundle, cohort, tmp_path_factory) -> Path:
    """A finished experiment with a variant and a baseline; not to be changed."""
    output = tmp_path_factory.mktemp("experiment")
    variants = {"scratch": {"train": {"pretrained": "none"}}}
    run_bundle("experiment.yaml", cohort, output, **OPTIONS, variants=variants, baselines=["dark_pixels"])
    return output


@pytest.fixture(scope="module")
def card(run) -> str:
    return (run / "model_card.md").read_text(encoding="utf-8")


def test_the_networks_of_all_repeats_are_packaged_as_one(run, cohort, tmp_path, capsys):
    """It predicts their mean and says how far they differ, and claims no score of its own."""
    package, bundle, scans = tmp_path / "cae.zip", tmp_path / "cae", cohort / "disc1"
    assert main(["package", str(package), "--output-dir", str(run), "--ensemble"]) == 0
    assert "2 times the weights and the time" in capsys.readouterr().out
    assert main(["bundle", str(bundle), "--from", str(package)]) == 0  # nothing but what is shipped
    singles = []
    for number in (1, 2):
        assert main(["predict", str(run / f"repeat_{number}"), str(scans), str(tmp_path / str(number))]) == 0
        singles.append(pd.read_csv(tmp_path / str(number) / "predictions.csv")["probability"])
    to = {"dataset_dir": str(scans), "output_dir": str(tmp_path / "both"), "device": "cpu"}
    monai.bundle.run(run_id="run", config_file=str(bundle / "configs" / "inference.json"), **to)
    found = pd.read_csv(tmp_path / "both" / "predictions.csv")
    each = pd.concat(singles, axis=1)
    assert found["probability"].to_numpy() == pytest.approx(each.mean(axis=1).to_numpy(), abs=2e-6)
    assert found["probability_lowest"].to_numpy() == pytest.approx(each.min(axis=1).to_numpy(), abs=2e-6)
    assert found["probability_highest"].to_numpy() == pytest.approx(each.max(axis=1).to_numpy(), abs=2e-6)
    assert not np.allclose(found["probability_lowest"], found["probability_highest"])
    assert main(["predict", str(bundle), str(scans), str(tmp_path / "chunks"), "--parquet"]) == 0
    chunks = pd.read_parquet(tmp_path / "chunks" / "predictions").set_index("subject")
    for column in ("probability", "probability_lowest", "probability_highest"):
        assert chunks.loc[found["subject"], column].to_numpy() == pytest.approx(found[column].to_numpy(), abs=2e-6)
    trained = {
        item["subject"]
        for n in (1, 2)
        for item in json.loads((run / f"repeat_{n}" / "datalist.json").read_text())["training"]
    }
    assert all(row.seen_in_training == "yes" for row in found.itertuples() if row.subject in trained)
    told = (bundle / "docs" / "README.md").read_text()
    assert "## Scores of the single networks, not of the ensemble" in told and "NOT TESTED" in told
    results = [json.loads((run / f"repeat_{n}" / "results_evaluate.json").read_text()) for n in (1, 2)]
    mean = sum(one["test_auc"] for one in results) / 2
    metadata = json.loads((bundle / "configs" / "metadata.json").read_text())
    assert metadata["eval_metrics"]["test_auc_of_single_networks"] == pytest.approx(mean)
    assert "test_auc" not in metadata["eval_metrics"] and f"| auc | {mean:.4g} |" in told
    assert Deploy(bundle)(volume(0, 0))["probabilities"].shape == (1, 1)


@pytest.mark.parametrize("changed", ["one part", "another network", "no experiment"])
def test_what_is_no_ensemble_is_refused(copy, tmp_path, capsys, changed):
    summary = copy / "summary.json"
    message = "holds no finished experiment"
    if changed == "one part":
        content = json.loads(summary.read_text())
        summary.write_text(json.dumps(content | {"results": content["results"][:1]}))
        message = "has one network alone: package repeat_1 without --ensemble"
    elif changed == "another network":
        path = copy / "repeat_2" / "config_evaluate.json"
        path.write_text(path.read_text().replace('"dropout": 0.2', '"dropout": 0.3'))
        message = "the networks of repeat_1 and repeat_2 differ in network_def"
    else:
        summary.unlink()
    assert main(["package", str(tmp_path / "cae.zip"), "--output-dir", str(copy), "--ensemble"]) == 1
    assert message in capsys.readouterr().err and not (tmp_path / "cae.zip").exists()


@pytest.fixture
def copy(run, tmp_path) -> Path:
    """The finished experiment, to be changed."""
    return Path(shutil.copytree(run, tmp_path / "copy"))


def section(card: str, title: str) -> str:
    return re.search(rf"^## {title}\n(.*?)(?=^## |\Z)", card, re.MULTILINE | re.DOTALL).group(1)


def rows(text: str) -> list[list[str]]:
    """Of all tables in a text, without their rules."""
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def summary_of(folder: Path) -> dict:
    return json.loads((folder / "summary.json").read_text())


def card_of(folder: Path, **changed: object) -> str:
    """The card of a finished experiment whose summary says something else."""
    summary = summary_of(folder) | changed
    record = pd.read_csv(folder / "predictions.csv", dtype={"subject": str})
    computed = compute(record, pd.DataFrame(), summary["results"], folder, target=Diagnosis(), seed=3, seen_before=0)
    return experiment_card(summary, computed, folder)


def shown(row: dict) -> str:
    if row["mean"] is None:
        return row["note"] if row.get("note", "").startswith("fewer than 5") else "undefined"
    return f"{row['mean']:.3f}" + ("" if row["low"] is None else f" [{row['low']:.3f}, {row['high']:.3f}]")


def test_scores_are_those_of_the_summary(run, card):
    scores = summary_of(run)["scores"]
    names = {"accuracy": "accuracy", "AUC": "auc", "sensitivity": "sensitivity", "F1 (AD)": "f1", "MCC": "mcc"}
    told = {row[0]: row[1] for row in rows(section(card, "Scores of the network"))}
    assert {name: told[name] for name in names} == {name: shown(scores["network"][key]) for name, key in names.items()}
    told = {row[0]: row[1] for row in rows(section(card, "Calibration"))}
    calibration = {"Brier": "brier", "ECE": "ece", "calibration slope": "calibration_slope"}
    assert {name: told[name] for name in calibration} == {
        name: shown(scores["network"][key]) for name, key in calibration.items()
    }
    record = pd.read_csv(run / "predictions.csv")
    ours = record[record["method"] == "network"]
    aucs = [roc_auc_score(one["label"], one["probability"]) for _, one in ours.groupby("repeat")]
    assert f"AUC {sum(aucs) / 2:.3f}" in next(row[2] for row in claim(card) if row[0] == "37")


def test_subgroups_and_comparisons_are_those_of_the_summary(run, card):
    summary = summary_of(run)
    told = [[row[1], row[2], row[4]] for row in rows(section(card, "Subgroups"))[1:]]
    assert told == [[str(one["subjects"]), str(one["patients"]), shown(one)] for one in summary["subgroups"]]
    told = {(row[0], row[1]): row for row in rows(section(card, "Against other methods"))[1:]}
    assert {method for method, _ in told} == {"scratch", "dark pixels"}
    for method, name in (("scratch", "scratch"), ("dark_pixels", "dark pixels")):
        row, expected = told[(name, "AUC")], summary["comparisons"][method]["auc"]
        assert row[2] == shown(summary["scores"][method]["auc"])
        assert row[3].startswith(f"{expected['difference']:+.3f}")
        assert row[4].endswith("(DeLong)")
    for caveat in summary["caveats"]:
        assert f"- {caveat}" in section(card, "Caveats")


def test_flow_adds_up_and_says_who_is_left_out_and_why(run, cohort, card):
    lines = section(card, "Data").splitlines()
    assert "26 found (OASIS-1 discs)" in lines and " +--> 4 left out" in lines
    assert any(re.fullmatch(r" \|\s+3 scans without a label .*", line) for line in lines)
    assert any(re.fullmatch(r" \|\s+1 controls not chosen \(oldest\)", line) for line in lines)
    assert "22 scans of 22 subjects take part (11 AD, 11 HC)" in lines
    sets = json.loads((run / "repeat_1" / "datalist.json").read_text())
    counted = {name: len(sets[name]) for name in ("training", "validation", "test")}
    told = {name: int(re.search(rf"--> {name}\s+(\d+) subjects", "\n".join(lines)).group(1)) for name in counted}
    assert told == counted and sum(told.values()) == 22
    tested = pd.read_csv(run / "predictions.csv")["subject"].nunique()
    assert any(line.startswith(f"{tested} subjects tested (") and "2 repeats of a hold-out" in line for line in lines)
    assert "3 scans without a label left out" in next(row[2] for row in claim(card) if row[0] == "12")


def claim(card: str) -> list[list[str]]:
    return rows(section(card, "CLAIM 2024"))[1:]


def test_every_item_of_claim_is_there_once_and_none_is_invented(card):
    items = claim(card)
    assert [row[0] for row in items] == [str(number) for number in range(1, 45)]
    assert all(len(row) == 3 and row[1] and row[2] for row in items)
    still_open = {int(row[0]) for row in items if row[2].startswith("open:")}
    assert still_open == ALWAYS_OPEN | {7, 13}
    assert f"{44 - len(still_open)} of 44 are answered" in card and f"{len(still_open)} are open" in card
    # the six blocks of the checklist, by an item of each
    by_number = {int(row[0]): row[1] for row in items}
    names = {8: "inclusion", 20: "disjoint", 27: "ensembling", 33: "external", 36: "per partition", 44: "funding"}
    assert all(word in by_number[number] for number, word in names.items())


def test_settings_are_the_runs(card):
    told = {row[0]: row[1:] for row in rows(section(card, "Model and settings"))}
    assert told["image_size"] == ["16", "16", "16"] and told["max_epochs"] == ["1", "1", ""]
    by_number = {int(row[0]): row[2] for row in claim(card)}
    assert "encoder from the autoencoder" in by_number[24] and "seeds 3 to 4" in by_number[19]
    assert "axial slice 11" in by_number[10] and "16 x 16" in by_number[9]


def test_what_the_classifier_sees_beside_the_slice_is_said(copy):
    path = copy / "repeat_1" / "config_train.json"
    config = json.loads(path.read_text())
    config |= {"covariates": {"age": [70, 8]}, "pretrained": "none", "keep": "last"}
    config["network_def"]["encoder"] = {"_target_": "some.ResNet50Encoder", "weights": "/home/me/resnet50.pth"}
    path.write_text(json.dumps(config))
    card = card_of(copy)
    assert "axial slice 11 of a volume and age, nothing else" in section(card, "Limits")
    by_number = {int(row[0]): row[2] for row in claim(card)}
    assert "encoder=ResNet50Encoder" in by_number[22] and "with age from the table" in by_number[22]
    assert "autoencoder: the epoch of the lowest validation loss" in by_number[26]
    assert "classifier: the last epoch" in by_number[26]
    assert "encoder from resnet50.pth" in by_number[24] and "/home/me" not in card


def test_nobody_is_named_and_no_folder_of_this_machine(run, cohort, card):
    subjects = set(pd.read_csv(run / "predictions.csv")["subject"])
    sets = json.loads((run / "repeat_2" / "datalist.json").read_text())
    subjects |= {item["subject"] for name in ("training", "validation", "test") for item in sets[name]}
    assert len(subjects) == 22 and not [name for name in subjects if name in card]
    assert str(run) not in card and str(cohort) not in card and "OAS1_" not in card


def test_real_data_without_a_leak_has_no_label(card):
    assert card.startswith("# Model card") and "not a medical device" in card.splitlines()[2]
    assert "SYNTHETIC" not in card and "LEAKY" not in card


def test_synthetic_and_leaky_results_are_labelled_first_thing(copy):
    first, second = (card_of(copy, **changed).splitlines()[0] for changed in ({"synthetic": True}, {"leaks": 2}))
    assert first.startswith("**SYNTHETIC DATA, NOT REAL MRI") and "LEAKY" not in first
    assert second.startswith("**LEAKY: 2 found between the sets, the scores are worthless") and "SYNTH" not in second
    both = card_of(copy, synthetic=True, leaks=2)
    assert re.match(r"\*\*SYNTHETIC DATA.*LEAKY: 2", both)
    by_number = {int(row[0]): row[2] for row in claim(both)}
    assert "synthetic" in by_number[7] and "LEAKY" in by_number[20]
    assert "The images are synthetic" in section(both, "Limits")


def test_a_given_datalist_leaves_more_open(copy):
    path = copy / "repeat_1" / "datalist.json"
    content = json.loads(path.read_text())
    for name in ("made_from", "recipe"):
        del content[name]
    path.write_text(json.dumps(content))
    card = card_of(copy)
    still_open = {int(row[0]) for row in claim(card) if row[2].startswith("open:")}
    assert still_open == ALWAYS_OPEN | {7, 8, 12, 13, 14, 17, 19, 35}
    assert "found: not recorded" in card and "whose rule is not recorded" in card


def test_a_missing_file_is_one_line(copy):
    (copy / "repeat_1" / "audit.json").unlink()
    with pytest.raises(MonaiCaeError, match="the model card needs it"):
        card_of(copy)


def test_card_is_in_mlflow_with_the_results(run, tracking_uri):
    from mlflow import MlflowClient

    run_id = json.loads((run / "experiment.json").read_text())["run_id"]
    assert "model_card.md" in {item.path for item in MlflowClient(tracking_uri).list_artifacts(run_id)}


def test_package_of_a_part_carries_the_card_unless_it_names_somebody(copy, card, tmp_path, capsys):
    def package(name: str) -> int:
        return main(["package", str(tmp_path / name), "--output_dir", str(copy / "repeat_1")])

    assert package("one.zip") == 0
    with zipfile.ZipFile(tmp_path / "one.zip") as archive:
        assert archive.read("one/docs/model_card_experiment.md").decode() == card
        assert "model_card_experiment.md" in archive.read("one/docs/README.md").decode()
    assert main(["package", str(tmp_path / "one.zip"), "--check"]) == 0
    subject = json.loads((copy / "repeat_1" / "datalist.json").read_text())["test"][0]["subject"]
    (copy / "model_card.md").write_text(f"{card}\n{subject} was wrong.\n")
    capsys.readouterr()
    assert package("two.zip") == 1
    assert f"names subject {subject}" in capsys.readouterr().err and not (tmp_path / "two.zip").exists()
    (copy / "model_card.md").unlink()
    assert package("three.zip") == 0
    with zipfile.ZipFile(tmp_path / "three.zip") as archive:
        assert "three/docs/model_card_experiment.md" not in archive.namelist()
        assert "model_card_experiment" not in archive.read("three/docs/README.md").decode()


def test_a_card_that_its_author_has_edited_stays(tmp_path, capsys):
    path = tmp_path / "model_card.md"
    assert write_card(path, "# Card\n\nfirst\n") == path
    assert write_card(path, "# Card\n\nsecond\n") == path and "second" in path.read_text()
    assert not capsys.readouterr().out
    edited = path.read_text().replace("second", "what only the author knows")
    path.write_text(edited)
    other = write_card(path, "# Card\n\nthird\n")
    assert path.read_text() == edited and other.name == "model_card.new.md" and "third" in other.read_text()
    assert "has been edited and is kept" in capsys.readouterr().out


@pytest.fixture(scope="module")
def page(run) -> str:
    return (run / "report.html").read_text(encoding="utf-8")


def text_of(page: str) -> str:
    """What a reader sees, in one line."""
    seen = re.sub(r"<(style|svg)\b.*?</\1>", " ", page, flags=re.DOTALL)
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", seen)).split())


@pytest.fixture(scope="module")
def doubtful(run, tmp_path_factory) -> tuple[Path, pd.DataFrame]:
    """The experiment again, with a network that is wrong about some; and its record."""
    folder = Path(shutil.copytree(run, tmp_path_factory.mktemp("doubtful") / "copy"))
    record = pd.read_csv(folder / "predictions.csv", dtype={"subject": str})
    ours = record["method"] == "network"
    turned = ours & record["subject"].isin(sorted(record.loc[ours, "subject"].unique())[::2])
    record.loc[turned, "probability"] = 1 - record.loc[turned, "probability"]
    summary = summary_of(folder)
    computed = compute(record, pd.DataFrame(), summary["results"], folder, target=Diagnosis(), seed=3, seen_before=0)
    errors = write_errors(computed, folder)
    with drawing():
        page = experiment_page(summary, computed, folder, drawings(summary, computed), errors)
    (folder / "report.html").write_text(page, encoding="utf-8")
    return folder, record


def test_page_tells_the_scores_the_doubts_and_who_took_part(run, page, card):
    summary, told = summary_of(run), text_of(page)
    assert all(" ".join(caveat.split()[-6:]) in told for caveat in summary["caveats"])
    assert told.index(shown(summary["scores"]["network"]["auc"])) < told.index("Before you quote a number")
    for method, name in (("network", "network"), ("dark_pixels", "dark pixels")):
        values = summary["scores"][method]
        assert re.search(rf"{name} .*?{re.escape(shown(values['accuracy']))} {re.escape(shown(values['auc']))}", told)
    assert "26 scans found OASIS-1 discs 4 left out" in told and "1 controls not chosen (oldest)" in told
    assert all(f"{row[1]} {row[2]}" in told for row in claim(card)) and len(claim(card)) == 44
    changed = {one["name"]: (one["value"], one["default"]) for one in summary["changed"]}
    assert (
        changed["max_epochs"] == ("1", "400") and changed["image_size"] == ("16", "176") and "output_dir" not in changed
    )
    weights = json.loads((run / "repeat_2" / "results_evaluate.json").read_text())["weights"]
    assert weights["checkpoint"] in told and weights["pretrained"] in told
    paragraph = told.partition("A methods paragraph to paste")[2]
    assert f"AUC {shown(summary['scores']['network']['auc'])}" in paragraph and "Yagis et al. [1]" in paragraph
    assert "DeLong's test [" in paragraph and "OASIS-1 [2]" in paragraph and "synthetic" not in paragraph[:300]


def test_page_stands_alone_and_shows_everybody_who_was_misjudged(doubtful, in_browser):
    folder, _ = doubtful
    in_browser(folder / "report.html")
    in_browser(folder / "repeat_1" / "audit.html")
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert len(page) < 2_000_000 and "<script" not in page and "http-equiv" not in page
    assert not re.findall(r"(?:src|href)=[\"'](?!data:|#)", page) and "url(" not in page.replace("url(#", "")
    wrong = pd.read_csv(folder / "errors.csv", dtype={"subject": str})["subject"].tolist()
    assert wrong and re.findall(r'<li class="person.*?<b>(.*?)</b>', page, re.DOTALL) == wrong
    assert page.count(', its reconstruction, its map"') == len(wrong)  # each with its pictures


def test_errors_are_the_wrong_answers_of_the_network(doubtful):
    folder, record = doubtful
    record = record.assign(wrong=(record["probability"] >= record["threshold"]) != (record["label"] == 1))
    ours = record[record["method"] == "network"]
    expected = ours.groupby("subject")["wrong"].sum()
    table = pd.read_csv(folder / "errors.csv", dtype={"subject": str}).set_index("subject")
    assert len(table) and table["wrong"].to_dict() == expected[expected > 0].to_dict()
    assert (table["tested"] == ours.groupby("subject").size().reindex(table.index)).all()
    mean = ours.groupby("subject")["probability"].mean().reindex(table.index)
    assert table["probability"].to_numpy() == pytest.approx(mean.to_numpy(), abs=1e-5)
    others = record[record["method"] != "network"].groupby(["method", "subject"])["wrong"].mean().gt(0.5)
    assert table["others"].to_dict() == others.groupby("subject").sum().reindex(table.index).to_dict()
    assert (table["wrong"] / table["tested"]).is_monotonic_decreasing


def test_verdict_claims_only_what_interval_and_test_show(doubtful, run):
    words = {(0.4, 0.9, 0.5): "", (0.02, 0.2, 0.5): "", (0.02, 0.2, 0.01): "better", (-0.2, -0.02, 0.01): "worse"}
    for (low, high, p), expected in words.items():
        row = {"low": low, "high": high, "p_corrected_t": float("nan"), "p_paired": p}
        assert better_or_worse(row, 1) == expected
        assert better_or_worse(row, -1) == {"better": "worse", "worse": "better", "": ""}[expected]
    folder, _ = doubtful
    said = re.search(r"<strong>(.*?)</strong>", (folder / "report.html").read_text())[1]
    auc = pd.read_csv(folder / "scores.csv").query("method == 'network' and score == 'auc'").iloc[0]
    sure = {True: "Perhaps better than chance", False: "Better than chance"}["too narrow" in str(auc["note"])]
    assert said.startswith(sure) == bool(auc["low"] > 0.5) and f"AUC {auc['mean']:.3f}" in said
    assert "Against dark pixels, the simpler method" in text_of((run / "report.html").read_text())


def test_page_and_errors_are_in_mlflow(run, tracking_uri):
    from mlflow import MlflowClient

    run_id = json.loads((run / "experiment.json").read_text())["run_id"]
    assert {"report.html", "errors.csv"} <= {item.path for item in MlflowClient(tracking_uri).list_artifacts(run_id)}


def test_status_tells_what_is_done_runs_and_is_left(run, copy, capsys):
    assert main(["status", str(run)]) == 0
    printed = capsys.readouterr().out
    assert "finished" in printed and "8 of 8 steps" in printed and str(run / "report.html") in printed
    with only_writer(copy):
        assert main(["status", str(copy)]) == 0
    assert "  running   the comparison of all methods, and the page\n" in capsys.readouterr().out
    path = copy / "repeat_2" / "steps.json"
    steps = json.loads(path.read_text())
    seconds = {"pretrain": 10, "network": 20, "scratch": 30, "baselines": 40}
    (copy / "repeat_1" / "steps.json").write_text(
        json.dumps({name: {**steps[name], "seconds": took} for name, took in seconds.items()})
    )
    path.write_text(json.dumps({"pretrain": {**steps["pretrain"], "seconds": 20}}))
    state = json.loads((copy / "experiment.json").read_text())
    del state["finished"]
    (copy / "experiment.json").write_text(json.dumps(state))
    assert main(["status", str(copy)]) == 0
    printed = capsys.readouterr().out
    assert "not running" in printed and "5 of 8 steps in 2 min" in printed and "--resume true" in printed
    assert "3 steps; to the end about 90 s" in printed and "network -, scratch -, baselines -" in printed
    with only_writer(copy):
        assert main(["status", str(copy)]) == 0
    printed = capsys.readouterr().out
    assert "running   repeat 2, network, for" in printed and "left      2 steps" in printed
    # on a cluster: whoever is at a step holds the lock of its folder
    with only_writer(copy), only_writer(copy / "repeat_2"), only_writer(copy / "repeat_2" / "variants" / "scratch"):
        assert main(["status", str(copy)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[3:6] == ["  running   repeat 2, network", "            repeat 2, scratch", lines[5]]
    assert lines[5] == "  left      1 step; to the end about 45 s"  # 20, 30 and 40 s, two at a time


def test_status_tells_of_jobs_of_an_array(copy, capsys):
    for name in ("experiment.json", "report.html", "summary.json"):
        (copy / name).unlink(missing_ok=True)
    assert main(["status", str(copy)]) == 0
    printed = capsys.readouterr().out
    assert "not running, and not finished" in printed and "done      8 steps" in printed
    assert "left      not recorded: jobs of an array" in printed


def test_status_tells_parts_and_inner_folds_apart(tmp_path, capsys):
    steps = ["pretrain", "inner_1/plain", "inner_1/with_age", "inner_2/plain", "inner_2/with_age", "network"]
    (tmp_path / "experiment.json").write_text(json.dumps({"steps": {"repeat_1/fold_1": steps}}))
    (tmp_path / "repeat_1" / "fold_1").mkdir(parents=True)
    done = {name: {"seconds": 30} for name in steps[:3]}
    (tmp_path / "repeat_1" / "fold_1" / "steps.json").write_text(json.dumps(done))
    assert main(["status", str(tmp_path)]) == 0
    line = next(one for one in capsys.readouterr().out.splitlines() if "fold 1" in one)
    assert line.split("  ")[1:] == ["repeat 1, fold 1", "pretrain 30 s, inner 1 2 of 2 in 60 s, inner 2 -, network -"]


@pytest.mark.parametrize("broken", [{"steps": ["a"]}, {"steps": {"repeat_1": 5}}, {"steps": {"repeat_1": ["a"]}}])
def test_status_of_a_broken_record_is_one_line(tmp_path, capsys, broken):
    (tmp_path / "experiment.json").write_text(json.dumps(broken))
    (tmp_path / "repeat_1").mkdir()
    (tmp_path / "repeat_1" / "steps.json").write_text(json.dumps({"a": 3}))
    assert main(["status", str(tmp_path)]) == 1
    assert "is not what an experiment writes" in capsys.readouterr().err


def test_status_of_no_experiment_is_one_line(tmp_path, capsys):
    assert main(["status", str(tmp_path)]) == 1
    assert f"error: no experiment in {tmp_path}" in capsys.readouterr().err
    (tmp_path / "results_pretrain.json").write_text("{}")
    assert main(["status", str(tmp_path)]) == 1
    assert "stages that were run alone: pretrain done" in capsys.readouterr().err


def test_tests_of_maps_are_told_over_the_parts_and_parts_compared(run, tmp_path):
    table = pd.read_csv(run / "explanations.csv").set_index("test")
    parts = [pd.read_csv(run / f"repeat_{n}" / "figures" / "evaluate_explanations_tests.csv") for n in (1, 2)]
    deletion = [one.set_index("test").loc["deletion"] for one in parts]
    assert table.loc["deletion", "value"] == pytest.approx(sum(one["value"] for one in deletion) / 2, abs=1e-3)
    passed = sum(one["result"] == "passed" for one in deletion)
    assert table.loc["deletion", ["parts", "passed"]].tolist() == [2, passed]
    assert f"| {passed} of 2 | random orders that it beats |" in (run / "results.md").read_text()
    maps = (
        np.array([[1.0, 2, 0], [3, -1, 0]]),
        np.array([[2.0, 4, 0], [9, -5, 0]]),
        np.array([[-1.0, -2, 0], [-3, 1, 0]]),
    )
    folders = [tmp_path / str(number) for number in range(3)]
    for folder, found in zip(folders, maps, strict=True):
        shutil.copytree(run / "repeat_1" / "figures", folder / "figures")
        np.savez(folder / "figures" / "evaluate_explanations_maps.npz", difference=found)
    row = explanation_tests(folders).set_index("test").loc["parts"]
    assert row[["value", "low", "high", "parts"]].tolist() == pytest.approx([-1 / 3, -1, 1, 3])
    assert explanation_tests([tmp_path]).empty
