"""The learning rate over a training, against PyTorch's schedulers."""

from __future__ import annotations

import json

import monai.bundle
import pytest
import torch
from ignite.engine import Engine
from mlflow import MlflowClient
from tiny import CONFIGS, TINY

from monai_cae.errors import MonaiCaeError
from monai_cae.training import LearningRateSchedule

EPOCHS, BATCHES = 5, 4


def optimizer() -> torch.optim.Optimizer:
    return torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.02)


def rates(schedule: str, epochs: int = EPOCHS, batches: int = BATCHES) -> list[float]:
    """Of every step of a training."""
    own, found = optimizer(), []
    trainer = Engine(lambda *_: found.append(own.param_groups[0]["lr"]))
    LearningRateSchedule(schedule, own).attach(trainer)
    trainer.run(range(batches), max_epochs=epochs)
    return found


def of_pytorch(make) -> list[float]:
    own, found = optimizer(), []
    scheduler = make(own)
    for _ in range(EPOCHS * BATCHES):
        found.append(own.param_groups[0]["lr"])
        own.step()
        if len(found) < EPOCHS * BATCHES:
            scheduler.step()
    return found


def test_one_cycle_is_pytorchs():
    theirs = of_pytorch(
        lambda own: torch.optim.lr_scheduler.OneCycleLR(own, 0.02, EPOCHS * BATCHES, cycle_momentum=False)
    )
    assert rates("one_cycle") == pytest.approx(theirs, abs=1e-9)


def test_cosine_is_pytorchs():
    theirs = of_pytorch(lambda own: torch.optim.lr_scheduler.CosineAnnealingLR(own, EPOCHS * BATCHES - 1))
    assert rates("cosine") == pytest.approx(theirs, abs=1e-9)


def test_constant_stays():
    assert rates("constant") == [0.02] * EPOCHS * BATCHES


def test_another_schedule_is_refused():
    with pytest.raises(MonaiCaeError, match="schedule must be one of constant, one_cycle, cosine, not 'linear'"):
        LearningRateSchedule("linear", optimizer())


@pytest.mark.parametrize("schedule", ["one_cycle", "cosine"])
@pytest.mark.parametrize("steps", [1, 2, 3, 4])
def test_few_steps_have_rates_above_0_at_first(schedule, steps):
    found = rates(schedule, epochs=1, batches=steps)
    assert 0 < found[0] <= 0.02
    assert all(0 <= rate <= 0.02 for rate in found)


def test_a_stage_trains_by_it_to_the_end_and_tells_mlflow(discs, tmp_path, tracking_uri):
    settings = {**TINY, "max_epochs": 6, "patience": 1, "learning_rate": 0.03, "schedule": "one_cycle"}
    settings |= {"dataset_dir": str(discs), "output_dir": str(tmp_path), "tracking_uri": tracking_uri}
    monai.bundle.run(run_id="training", config_file=str(CONFIGS / "pretrain.json"), **settings)
    found = json.loads((tmp_path / "results_pretrain.json").read_text())
    history = MlflowClient(tracking_uri).get_metric_history(found["run_id"], "learning_rate")
    assert len(history) == 6
    assert history[-1].value == pytest.approx(0.03 / 25e4)
    assert max(point.value for point in history) > 0.02
