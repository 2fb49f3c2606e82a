"""A truncated, an all-zero and a garbage scan in a cohort, through monai.bundle: refused, or left out and told."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path

import numpy as np
import pytest
from mlflow import MlflowClient
from tiny import SHAPE, random_network, write_discs, write_pair

from monai_cae.data.cohort.pseudonyms import KEY_VARIABLE, pseudonym
from monai_cae.networks import save_weights
from monai_cae.training.stages.workflow import find_mistake

BAD = {"OAS1_0004": "truncated", "OAS1_0007": "zero everywhere", "OAS1_0010": "not a readable image"}
WHAT = "cohort: a truncated, an all-zero and a garbage scan, {}"


@pytest.fixture(scope="module")
def broken(tmp_path_factory):
    """Twelve patients, of whom two can't be used, and twelve controls, of whom one; not to be changed."""
    root = write_discs(tmp_path_factory.mktemp("broken"))
    cut, zero, garbage = (next(root.rglob(f"{subject}*.img")) for subject in BAD)
    cut.write_bytes(cut.read_bytes()[:500])
    write_pair(zero, np.zeros(SHAPE))
    garbage.with_suffix(".hdr").write_bytes(np.random.default_rng(0).bytes(348))
    return root


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    path = tmp_path_factory.mktemp("models") / "model.pt"
    save_weights(random_network("classifier"), path)
    return str(path)


def runs_of(tracking_uri: str, name: str) -> tuple[MlflowClient, list]:
    client = MlflowClient(tracking_uri)
    return client, client.search_runs([client.get_experiment_by_name(name).experiment_id])


@pytest.mark.fault(
    WHAT.format("`on_bad_scan` fail"), "pretrain, experiment and inference name all three; nothing written"
)
@pytest.mark.parametrize("config", ["pretrain.json", "experiment.yaml", "inference.json"])
def test_fail_names_all_before_anything_is_written(broken, checkpoint, run_bundle, tmp_path, config):
    options = {"checkpoint": checkpoint} if config == "inference.json" else {}
    with pytest.raises(RuntimeError) as error:
        run_bundle(config, broken, tmp_path / "out", **options)
    first, *lines = str(find_mistake(error.value)).splitlines()
    assert first == "3 of 24 scans can't be used: repair them, or leave them out with --on_bad_scan skip"
    assert len(lines) == 3
    for line, (subject, reason) in zip(lines, BAD.items(), strict=True):
        assert subject in line and reason in line
    assert not list(tmp_path.rglob("out"))


@pytest.mark.fault(
    WHAT.format("`on_bad_scan` skip, pretrain"),
    "ten patients and controls are left; the three are named in datalist and audit, counted in results and MLflow",
)
def test_pretraining_without_them_says_so_everywhere(broken, run_bundle, tracking_uri, tmp_path, capsys):
    output = tmp_path / "out"
    run_bundle("pretrain.json", broken, output, on_bad_scan="skip", max_epochs=1, experiment_name="left out")
    printed = capsys.readouterr().out
    assert "left out, as they can't be used: 3 scans" in printed
    datalist = json.loads((output / "datalist.json").read_text())
    items = [item for name in ("training", "validation", "test") for item in datalist[name]]
    assert len(items) == 20 and sum(item["label"] for item in items) == 10
    assert not {item["subject"] for item in items} & BAD.keys()
    assert datalist["recipe"]["left_out"]["scans that can't be used (on_bad_scan skip)"] == 3
    for told in (datalist["recipe"]["bad_scans"], json.loads((output / "audit.json").read_text())["bad_scans"]):
        assert [one["subject"] for one in told] == [f"{subject}_MR1" for subject in BAD]
        assert all(reason in one["reason"] for one, reason in zip(told, BAD.values(), strict=True))
    assert all(subject in text for subject in BAD for text in (printed, (output / "audit.html").read_text()))
    assert json.loads((output / "results_pretrain.json").read_text())["scans_left_out"] == 3
    _, (run,) = runs_of(tracking_uri, "left out")
    assert run.data.tags["scans_left_out"] == "3"


@pytest.mark.fault(
    WHAT.format("`on_bad_scan` skip, an experiment with `hash_ids`"),
    "results.md has the caveat, every stage the count; their IDs are only in the private datalist, not in MLflow",
)
def test_experiment_without_them_hides_their_ids_too(
    broken, run_bundle, tracking_uri, tmp_path, tmp_path_factory, monkeypatch, capsys
):
    monkeypatch.setenv(KEY_VARIABLE, "a key of sixteen letters or more")
    output, name = tmp_path / "out", "left out and hidden"
    options = {"on_bad_scan": "skip", "hash_ids": "true", "repeats": 1, "max_epochs": 1, "experiment_name": name}
    run_bundle("experiment.yaml", broken, output, **options)
    printed = capsys.readouterr().out
    assert "3 of 23 scans can't be used and are left out:" in printed
    assert "- **SCANS LEFT OUT**: 3, as they can't be used" in (output / "results.md").read_text()
    part = output / "repeat_1"
    for stage in ("pretrain", "train", "evaluate"):
        assert json.loads((part / f"results_{stage}.json").read_text())["scans_left_out"] == 3
    hidden = [pseudonym(subject) for subject in BAD]
    audit = json.loads((part / "audit.json").read_text())
    assert [one["subject"] for one in audit["bad_scans"]] == hidden
    assert all(one["image"].startswith(alias) for one, alias in zip(audit["bad_scans"], hidden, strict=True))
    assert all(alias in printed for alias in hidden)
    client, runs = runs_of(tracking_uri, name)
    told = tmp_path_factory.mktemp("told")
    for run in runs:
        client.download_artifacts(run.info.run_id, "", str(told))
        assert not re.search(r"OAS1_\d{4}", repr(run.to_dictionary()))
        assert run.data.tags.get("scans_left_out", "3") == "3"
    assert len(runs) == 4 and sum("scans_left_out" in run.data.tags for run in runs) == 3
    files = [path for folder in (output, told) for path in folder.rglob("*") if path.is_file()]
    assert {path for path in files if re.search(rb"OAS1_\d{4}", path.read_bytes())} == {part / "datalist.json"}
    assert len(files) > 20 and not re.search(r"OAS1_\d{4}", printed)


@pytest.mark.fault(
    WHAT.format("`on_bad_scan` skip, inference"), "the others are predicted; left_out.csv names file and reason"
)
def test_inference_lists_them_beside_the_predictions(broken, checkpoint, run_bundle, tmp_path, capsys):
    run_bundle("inference.json", broken, tmp_path / "out", checkpoint=checkpoint, on_bad_scan="skip")
    with (tmp_path / "out" / "left_out.csv").open() as file:
        left_out = list(csv.DictReader(file))
    with (tmp_path / "out" / "predictions.csv").open() as file:
        predicted = [Path(row["file"]).name[:9] for row in csv.DictReader(file)]
    assert [Path(row["file"]).name[:9] for row in left_out] == list(BAD)
    assert all(reason in row["reason"] for row, reason in zip(left_out, BAD.values(), strict=True))
    assert len(predicted) == 21 and not set(predicted) & BAD.keys()
    printed = capsys.readouterr().out
    assert "3 of 24 scans can't be used and are left out:" in printed and "LEFT OUT     3 of 24 scans" in printed
