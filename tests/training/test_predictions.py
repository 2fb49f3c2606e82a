"""The table of predictions and its progress bar on bare engines."""

from __future__ import annotations

import contextlib
import io
import logging
import sys

import numpy as np
import pandas as pd
import pytest
import torch
from ignite.engine import Engine
from sklearn.dummy import DummyRegressor
from sklearn.metrics import roc_auc_score

from monai_cae.errors import MonaiCaeError
from monai_cae.targets import Diagnosis, Number
from monai_cae.training import Baselines, PredictionProgress, PredictionTable, TableColumns, print_predictions

BATCHES = [
    {"file": ["a.nii", "b.nii"], "pred": torch.tensor([[0.25], [0.75]])},
    {"file": ["c.nii"], "pred": torch.tensor([[0.5]])},
]
ROWS = "file,probability,prediction\r\na.nii,0.25,0\r\nb.nii,0.75,1\r\nc.nii,0.5,1\r\n"


def evaluator(*handlers, broken_at: int = 0) -> Engine:
    """An engine whose output is its batch; one iteration can fail."""

    def step(engine: Engine, batch: dict) -> dict:
        if engine.state.iteration == broken_at:
            raise RuntimeError("broken scan")
        return batch

    engine = Engine(step)
    for handler in handlers:
        handler.attach(engine)
    return engine


def test_table_holds_every_batch_and_a_second_run_starts_anew(tmp_path):
    table = PredictionTable(tmp_path / "new" / "predictions.csv", ["file"], Diagnosis())
    engine = evaluator(table)
    for _ in range(2):
        engine.run(BATCHES, max_epochs=1)
        assert (tmp_path / "new" / "predictions.csv").read_bytes().decode() == ROWS
        engine.state.epoch = engine.state.iteration = 0
    assert table.column("probability") == [0.25, 0.75, 0.5] and table.column("prediction") == [0, 1, 1]
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["predictions.csv"]


def test_numbers_of_a_small_unit_keep_their_digits_in_all_tables(tmp_path):
    """Diffusivities in m2/s: with six decimals all of them are 0.000001, and every error is 0."""
    labels, predicted = [7.06287e-10, 6.93395e-10, 0.0, 1234.5], [7.1234567e-10, 6.5e-10, -2.5e-11, 1234.25]
    batch = {"subject": list("abcd"), "label": torch.tensor(labels), "pred": torch.tensor(predicted)[:, None]}
    evaluator(PredictionTable(tmp_path / "network.csv", ["subject", "label"], Number("MD"))).run([batch])
    table = pd.read_csv(tmp_path / "network.csv")
    assert table["label"].tolist() == labels and table["predicted"].tolist() == pytest.approx(predicted, rel=1e-6)
    items = [{"subject": name, "label": torch.tensor(label)} for name, label in zip("abcd", labels, strict=True)]
    model = {"features": TableColumns([]), "regressor": DummyRegressor()}
    Baselines({"mean": model}, "", items[:3], items, str(tmp_path), Number("MD")).run()
    other = pd.read_csv(tmp_path / "baselines" / "mean.csv")
    assert other["label"].tolist() == labels  # the same as the network's, or they can't be compared
    assert other["predicted"].tolist() == pytest.approx([sum(labels[:3]) / 3] * 4, rel=1e-6)


def test_probabilities_near_0_and_1_keep_their_order(tmp_path):
    """With six decimals the patients would be 1.000000 and the control too, and the AUC 0.75 in place of 1."""
    certain = torch.sigmoid(torch.tensor([-25.0, 14.5, 15.0, 16.0]))
    batch = {"subject": list("abcd"), "label": torch.tensor([0, 0, 1, 1]), "pred": certain[:, None]}
    evaluator(PredictionTable(tmp_path / "p.csv", ["subject", "label"], Diagnosis())).run([batch])
    table = pd.read_csv(tmp_path / "p.csv")
    assert table["probability"].astype(np.float32).tolist() == certain.tolist()
    assert roc_auc_score(table["label"], table["probability"]) == 1


@pytest.mark.parametrize(("threshold", "expected"), [(0.2, [1, 1, 1]), (0.5, [0, 1, 1]), (0.8, [0, 0, 0])])
def test_threshold_itself_is_predicted_as_ad(tmp_path, threshold, expected):
    table = PredictionTable(tmp_path / "p.csv", ["file"], Diagnosis(), threshold)
    evaluator(table).run(BATCHES)
    assert table.column("prediction") == expected


def test_run_that_fails_leaves_the_older_table_and_no_half_one(tmp_path):
    path = tmp_path / "predictions.csv"
    path.write_text("older")
    with pytest.raises(RuntimeError, match="broken scan"):
        evaluator(PredictionTable(path, ["file"], Diagnosis()), PredictionProgress(3), broken_at=2).run(BATCHES)
    assert path.read_text() == "older" and list(tmp_path.iterdir()) == [path]


def test_place_that_can_not_be_written_is_told_before_the_first_batch(tmp_path):
    (tmp_path / "file").write_text("")
    engine = evaluator(PredictionTable(tmp_path / "file" / "out" / "predictions.csv", ["file"], Diagnosis()))
    with pytest.raises(MonaiCaeError, match=r"predictions.csv .*file is not a folder.*choose another --output_dir"):
        engine.run(BATCHES)
    assert engine.state.iteration == 0


def test_summary_tells_scans_per_second(tmp_path, capsys):
    table = PredictionTable(tmp_path / "p.csv", ["file"], Diagnosis())
    evaluator(table).run(BATCHES)
    assert table.seconds > 0
    table.seconds = 0.5
    print_predictions(table)
    assert "3 scans in 0.5 s (6.0 per second): 2 predicted as AD, 1 as HC (threshold 0.5)\n" in capsys.readouterr().out


class Terminal(io.StringIO):
    """What tqdm takes for a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def seconds(monkeypatch) -> list[float]:
    """A clock of the progress bar that goes on by the second."""
    passed = [0.0]

    def clock() -> float:
        passed[0] += 1.0
        return passed[0]

    monkeypatch.setattr("tqdm.std.time", clock)
    return passed


@pytest.mark.parametrize("broken_at", [0, 4], ids=["completed", "failed"])
@pytest.mark.usefixtures("seconds")
def test_progress_counts_scans_and_leaves_the_line_clean(monkeypatch, broken_at):
    monkeypatch.setattr(logging, "raiseExceptions", False)  # of handlers that other tests' programs have left
    monkeypatch.setattr(sys, "stderr", terminal := Terminal())
    engine = evaluator(PredictionProgress(12), broken_at=broken_at)
    with pytest.raises(RuntimeError, match="broken scan") if broken_at else contextlib.nullcontext():
        engine.run([BATCHES[0]] * 6, max_epochs=1)
    shown = terminal.getvalue()
    assert "predictions:  50%" in shown and " 6/12 " in shown and ("10/12" in shown) is not bool(broken_at)
    assert shown.endswith("\r") and not shown.split("\r")[-2].strip()


@pytest.mark.usefixtures("seconds")
def test_no_progress_bar_in_a_log_file(monkeypatch):
    monkeypatch.setattr(sys, "stderr", log := io.StringIO())
    evaluator(PredictionProgress(3)).run(BATCHES)
    assert log.getvalue() == ""
