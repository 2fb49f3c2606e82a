"""Handlers, metrics, inferer and tracking on bare engines."""

from __future__ import annotations

import csv
import stat
from pathlib import Path

import numpy as np
import pytest
import torch
from ignite.engine import Engine, Events
from mlflow import MlflowClient
from monai.metrics import MSEMetric

from monai_cae.errors import MonaiCaeError
from monai_cae.targets import ClassificationScore, Diagnosis
from monai_cae.training import (
    BestCheckpoint,
    BrainPSNR,
    EpochTracking,
    ImageMetric,
    LossWatch,
    PrecisionInferer,
    PredictionTable,
    StopWhenWorse,
    TrackedRun,
    bundle_root,
    default_tracking_uri,
    with_pretrained,
)
from monai_cae.training.stages.run import write_json
from monai_cae.training.stages.workflow import check_settings, find_mistake, running_workflow

NAN = float("nan")


def engine(outputs: list | None = None) -> Engine:
    """An engine whose iterations give the outputs in turn."""
    return Engine(lambda _, batch: batch if outputs is None else outputs[batch])


def run_epochs(trainer: Engine, validator: Engine, losses: list[float], handler) -> int:
    """Train with a validator whose metric takes the given values; return the epochs that ran."""
    trainer.add_event_handler(
        Events.EPOCH_COMPLETED, lambda e: validator.state.metrics.update(val_loss=losses[e.state.epoch - 1])
    )
    handler.attach(trainer)
    trainer.run([0], max_epochs=len(losses))
    return trainer.state.epoch


@pytest.mark.parametrize(
    ("losses", "epochs"),
    [
        ([3, 2, 1, 0.5, 0.4, 0.3], 6),
        ([3, 2, 2.5, 2.4, 9, 9], 4),
        ([1, 2, 0.5, 3, 3, 3, 3], 5),
        ([1, NAN, NAN, 0.5, 0.5], 3),
        ([NAN, NAN, NAN, NAN], 3),
        ([NAN, 2, NAN, 1, NAN, np.inf, 1], 6),
    ],
    ids=["improves", "two-worse", "recovers-once", "becomes-nan", "all-nan", "nan-in-between"],
)
def test_stop_when_worse_counts_epochs_without_improvement(losses, epochs):
    trainer, validator = engine(), engine()
    assert run_epochs(trainer, validator, losses, StopWhenWorse(validator, "val_loss", patience=2)) == epochs


def test_stop_when_worse_starts_anew_in_a_second_trainer():
    validator = engine()
    assert run_epochs(engine(), validator, [1, 5, 5, 5], StopWhenWorse(validator, "val_loss", patience=2)) == 3
    assert run_epochs(engine(), validator, [9, 8, 7, 6], StopWhenWorse(validator, "val_loss", patience=2)) == 4


def test_best_checkpoint_keeps_the_lowest_and_leaves_no_temporary_file(tmp_path):
    network = torch.nn.Linear(1, 1, bias=False)
    keep = BestCheckpoint(network, tmp_path / "models" / "best.pt", "val_loss", every=0)
    validator = engine()
    for value, loss in ((1.0, 3.0), (2.0, 1.0), (3.0, 2.0)):
        torch.nn.init.constant_(network.weight, value)
        validator.state.metrics = {"val_loss": loss, "val_auc": value}
        keep(validator)
    assert torch.load(tmp_path / "models" / "best.pt", weights_only=True)["weight"].item() == 2.0
    assert keep.best == {"val_loss": 1.0, "val_auc": 2.0}
    assert [path.name for path in (tmp_path / "models").iterdir()] == ["best.pt"]
    assert (tmp_path / "models" / "best.pt").stat().st_mode & stat.S_IRGRP


@pytest.mark.parametrize(
    ("losses", "kept", "lowest"),
    [
        ([NAN, 2.0, 3.0], 1, 2.0),
        ([3.0, NAN, 2.0, np.inf], 2, 2.0),
        ([2.0, NAN], 0, 2.0),
        ([NAN, NAN], 0, np.inf),
        ([np.inf, NAN, 5.0], 2, 5.0),
    ],
)
def test_a_metric_that_is_no_number_is_the_worst(tmp_path, losses, kept, lowest):
    network = torch.nn.Linear(1, 1, bias=False)
    keep = BestCheckpoint(network, tmp_path / "best.pt", "val_loss", every=0)
    validator = engine()
    for epoch, loss in enumerate(losses):
        torch.nn.init.constant_(network.weight, float(epoch))
        validator.state.metrics = {"val_loss": loss}
        keep(validator)
    assert torch.load(tmp_path / "best.pt", weights_only=True)["weight"].item() == kept
    assert keep.lowest == lowest


@pytest.mark.parametrize(
    ("losses", "left"),
    [([0.5, 0.4, NAN, 0.1], "best.pt has the best weights before it"), ([np.inf], "there is no good checkpoint yet")],
)
def test_a_validation_that_is_not_finite_ends_the_training_in_one_line(tmp_path, losses, left):
    network = torch.nn.Linear(1, 1, bias=False)
    keep = BestCheckpoint(network, tmp_path / "best.pt", "val_loss")
    trainer, validator = Engine(lambda *_: {"loss": torch.tensor(0.1)}), Engine(lambda *_: None)

    @validator.on(Events.EPOCH_COMPLETED)
    def measure(evaluator: Engine) -> None:
        evaluator.state.metrics["val_loss"] = losses[trainer.state.epoch - 1]
        torch.nn.init.constant_(network.weight, float(trainer.state.epoch))

    keep.attach(validator)
    LossWatch(keep, ["OAS1_0001"], validator).attach(trainer)
    trainer.add_event_handler(Events.EPOCH_COMPLETED, lambda _: validator.run([0]))
    with pytest.raises(MonaiCaeError) as error:
        trainer.run([0], max_epochs=len(losses))
    said = str(error.value)
    assert f"val_loss became {losses[len(losses) // 2]} in the validation of epoch" in said and left in said
    assert "\n" not in said and trainer.state.epoch == len(losses) // 2 + 1
    if len(losses) > 1:
        assert torch.load(tmp_path / "best.pt", weights_only=True)["weight"].item() == 2.0


def test_brain_psnr_counts_only_pixels_above_the_threshold():
    image = torch.zeros(2, 1, 4, 4)
    image[:, :, :2] = 0.5
    reconstruction = image.clone()
    reconstruction[0, :, :2] += 0.1  # 20 dB in the brain
    reconstruction[1, :, :2] += 0.01  # 40 dB
    reconstruction[:, :, 2:] = 0.9  # the background does not count
    metric = BrainPSNR()
    metric(reconstruction, image)
    assert metric.aggregate().item() == pytest.approx(30, abs=1e-3)


@pytest.mark.parametrize("spoilt", [[], [1], [0, 1, 2]], ids=["none", "one", "all"])
def test_an_image_without_a_number_spoils_the_mean(spoilt):
    images = torch.zeros(3, 1, 4, 4)
    outputs = images + 0.1
    outputs[spoilt] = NAN
    evaluator = engine([(outputs[:2], images[:2]), (outputs[2:], images[2:])])
    ImageMetric(MSEMetric()).attach(evaluator, "mse")
    evaluator.state.metric_details = {}
    evaluator.run([0, 1])
    assert evaluator.state.metrics["mse"] == pytest.approx(NAN if spoilt else 0.01, nan_ok=True)


def test_classification_score_of_no_number_is_none():
    evaluator = engine([(torch.tensor([[NAN], [1.0]]), torch.tensor([[0.0], [1.0]]))])
    ClassificationScore("auc", lambda output: output).attach(evaluator, "auc")
    evaluator.run([0])
    assert np.isnan(evaluator.state.metrics["auc"])


@pytest.mark.parametrize(("name", "value"), [("accuracy", 0.75), ("f1", 2 / 3), ("auc", 1.0)])
def test_classification_scores_over_all_batches(name, value):
    # labels 0 0 1 1, logits -2 -1 -0.5 3: one patient missed, ranking perfect
    batches = [
        {"pred": torch.tensor([[-2.0], [-1.0]]), "label": torch.tensor([[0.0], [0.0]])},
        {"pred": torch.tensor([[-0.5], [3.0]]), "label": torch.tensor([[1.0], [1.0]])},
    ]
    evaluator = engine(batches)
    ClassificationScore(name, lambda output: (output["pred"], output["label"])).attach(evaluator, name)
    evaluator.run([0, 1])
    assert evaluator.state.metrics[name] == pytest.approx(value)


def test_prediction_table_has_a_row_per_case(tmp_path):
    outputs = {"pred": torch.tensor([[0.5], [0.25]])}
    evaluator = Engine(lambda *_: outputs)
    table = PredictionTable(tmp_path / "new" / "predictions.csv", ["subject", "label", "absent"], Diagnosis())
    table.attach(evaluator)
    evaluator.run([{"subject": ["A, B", "Ünal"], "label": torch.tensor([[1.0], [0.0]])}])
    with (tmp_path / "new" / "predictions.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert rows == [
        {"subject": "A, B", "label": "1", "probability": "0.5", "prediction": "1"},
        {"subject": "Ünal", "label": "0", "probability": "0.25", "prediction": "0"},
    ]


@pytest.mark.parametrize("precision", ["bfloat16", "float32"])
def test_inferer_computes_in_the_asked_precision_and_returns_float32(precision):
    seen = []
    network = torch.nn.Conv2d(1, 2, 3)
    network.register_forward_hook(lambda *call: seen.append(call[-1].dtype))
    assert PrecisionInferer(precision)(torch.rand(2, 1, 8, 8), network).dtype == torch.float32
    assert seen == [getattr(torch, precision)]


def test_inferer_refuses_an_unknown_precision():
    with pytest.raises(MonaiCaeError, match="auto, bfloat16, float32, not 'fp8'"):
        PrecisionInferer("fp8")


def open_run(tracking_uri: str, experiment: str, **options) -> TrackedRun:
    return TrackedRun(tracking_uri=tracking_uri, experiment_name=experiment, stage="pretrain", **options)


def status(tracking_uri: str, run: TrackedRun) -> str:
    return MlflowClient(tracking_uri).get_run(run.run_id).info.status


@pytest.mark.parametrize(
    ("error", "expected"), [(None, "FINISHED"), (ValueError, "FAILED"), (KeyboardInterrupt, "KILLED")]
)
def test_run_ends_as_it_went(tracking_uri, error, expected):
    run = open_run(tracking_uri, "endings", params={"lr": 0.1})
    if error is None:
        with run:
            pass
    else:
        with pytest.raises(error), run:
            raise error
    assert status(tracking_uri, run) == expected
    assert MlflowClient(tracking_uri).get_run(run.run_id).data.params["lr"] == "0.1"


def test_epochs_count_on_over_trainers_that_share_a_run(tracking_uri):
    run, validator = open_run(tracking_uri, "epochs"), engine()
    validator.state.metrics = {"val_loss": 0.5}
    with run:
        for title in ("", "fine-tuning"):
            trainer = engine()
            EpochTracking(run, validator, title).attach(trainer)
            trainer.run([0], max_epochs=2)
    assert [step for step, _ in run.history["val_loss"]] == [1, 2, 3, 4]
    assert run.marks == {"fine-tuning": 3}
    logged = MlflowClient(tracking_uri).get_metric_history(run.run_id, "val_loss")
    assert [(point.step, point.value) for point in logged] == [(step, 0.5) for step in (1, 2, 3, 4)]


def test_metrics_without_an_open_run_go_to_the_history_alone(tracking_uri):
    run = open_run(tracking_uri, "never opened")
    run.log_metrics({"val_loss": 1.0}, step=3)
    assert run.history == {"val_loss": [(3, 1.0)]}
    assert MlflowClient(tracking_uri).get_experiment_by_name("never opened") is None


def test_tracking_uri_from_the_environment(monkeypatch, tmp_path):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert default_tracking_uri(str(tmp_path)) == f"sqlite:///{tmp_path}/mlruns.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:5999")
    assert default_tracking_uri(str(tmp_path)) == "http://127.0.0.1:5999"


def test_settings_that_nothing_reads_are_refused():
    config = {"max_epochs": 3, "_desc_": "free text", "trainer": {"epochs": "@max_epochs"}, "run": "$@trainer.run()"}
    check_settings(config)
    with pytest.raises(MonaiCaeError, match="unknown setting --max_epoch: did you mean --max_epochs"):
        check_settings({**config, "max_epoch": 5})
    with pytest.raises(MonaiCaeError, match="unknown setting --zzz: `monai-cae settings` lists them"):
        check_settings({**config, "zzz": 5})


def test_outside_of_a_bundle_there_is_no_workflow(tmp_path):
    assert running_workflow() is None
    assert bundle_root() == str(Path.cwd())


def test_mistake_is_found_behind_other_exceptions():
    wrapped = RuntimeError("wrapped")
    wrapped.__cause__ = MonaiCaeError("the cause")
    assert str(find_mistake(wrapped)) == "the cause"
    assert find_mistake(RuntimeError("something else")) is None


def test_no_pretrained_autoencoder_means_nothing_is_read():
    network = torch.nn.Linear(1, 1)
    assert with_pretrained(network, torch.nn.Linear(2, 2), "none") is network


def test_json_has_null_for_what_is_not_finite(tmp_path):
    write_json(tmp_path / "x.json", {"a": [1.5, float("nan")], "b": np.inf})
    assert (tmp_path / "x.json").read_text() == '{\n  "a": [\n    1.5,\n    null\n  ],\n  "b": null\n}\n'
