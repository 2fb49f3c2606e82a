"""A run goes on on another device, with graphs or without, and its curve has no gap."""

from __future__ import annotations

import re
import signal
from pathlib import Path
from typing import Any

import killing
import pytest
import torch
from mlflow import MlflowClient
from simulated_graphs import simulate

from monai_cae.tracking import run as tracking
from monai_cae.training.stages import checkpointing
from monai_cae.training.stages.signals import Ended
from monai_cae.training.stages.workflow import find_mistake

SETTINGS = {**killing.SMALL, "max_epochs": 6, "augment": True, "learning_rate": 2.0**-6}


@pytest.fixture
def pretrain(discs, tracking_uri, tmp_path, monkeypatch):
    """Pretrain in this process, ended by SIGTERM after so many epochs; gives the weights or the point that is left."""

    def run(name: str, epochs: int = 0, **options: Any) -> dict[str, Any]:
        import monai.bundle

        after_epoch = checkpointing.Resuming.after_epoch

        def terminated(self, trainer_name, trainer):
            if trainer.state.epoch == epochs:
                signal.raise_signal(signal.SIGTERM)
            after_epoch(self, trainer_name, trainer)

        given = {**SETTINGS, "dataset_dir": str(discs), "tracking_uri": tracking_uri, **options}
        config = str(killing.CONFIGS / "pretrain.json")
        with monkeypatch.context() as patch:
            patch.setattr(checkpointing.Resuming, "after_epoch", terminated)
            try:
                monai.bundle.run(
                    run_id="training", config_file=config, output_dir=str(tmp_path / name), resume=True, **given
                )
            except Ended:
                return torch.load(point(tmp_path / name))
        return torch.load(tmp_path / name / "models" / "autoencoder.pt")

    return run


def point(folder: Path) -> Path:
    return folder / "models" / "resume_pretrain.pt"


def options_of(state: dict[str, Any]) -> dict[str, Any]:
    return state["parts"]["optimizer"]["param_groups"][0]


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(value, other[name]) for name, value in one.items())


def test_graphs_may_begin_what_ordinary_steps_end_and_the_other_way_round(pretrain, monkeypatch):
    expected = pretrain("whole", compile="off")
    ordinary = options_of(pretrain("first", 4, compile="off"))
    log = simulate(monkeypatch).log
    recorded = options_of(pretrain("second", 4, compile="graph"))
    assert (ordinary["capturable"], type(ordinary["lr"])) == (False, float)
    assert (recorded["capturable"], type(recorded["lr"])) == (True, torch.Tensor)
    log.clear()
    assert same(pretrain("first", compile="graph"), expected) and log.count("step") == 3
    log.clear()
    again = options_of(pretrain("second", 5, compile="off"))
    assert (again["capturable"], again["lr"]) == (False, SETTINGS["learning_rate"]) and log == []
    assert same(pretrain("second", compile="off"), expected)


def test_state_of_a_gpu_goes_on_on_a_cpu(pretrain, tmp_path, capsys):
    plain = {"train#optimizer#fused": False}  # steps of such an Adam lie on the CPU, unless it is capturable
    expected = pretrain("whole", **plain)
    state = pretrain("out", 3, **plain)
    options_of(state).update(capturable=True, lr=torch.tensor(SETTINGS["learning_rate"]))
    torch.save(state, point(tmp_path / "out"))
    assert same(pretrain("out", **plain), expected)
    state = pretrain("other", 3, **plain)
    state["parts"]["drawn"]["augmentation"] = torch.zeros(16, dtype=torch.uint8)  # as a CUDA generator's
    torch.save(state, point(tmp_path / "other"))
    capsys.readouterr()
    pretrain("other", **plain)
    assert "augmentation: random numbers begin anew, as this device draws otherwise" in capsys.readouterr().out


def test_state_in_another_order_in_memory_is_the_same_state(pretrain, tmp_path):
    """As a GPU has volumes' weights, and Adam's moments with them, in channels-last order and a CPU has not."""
    expected = pretrain("whole")
    state = pretrain("out", 3)
    for moments in state["parts"]["optimizer"]["state"].values():
        for name in ("exp_avg", "exp_avg_sq"):
            moments[name] = moments[name].contiguous()
    torch.save(state, point(tmp_path / "out"))
    assert same(pretrain("out"), expected)


def test_the_part_of_a_config_that_differs_is_named(pretrain):
    pretrain("out", 3)
    with pytest.raises(RuntimeError) as raised:
        pretrain("out", **{"train#optimizer#betas": [0.5, 0.9]})
    assert re.search(
        r"resume_pretrain.pt was started with train#optimizer#betas \[0.9, 0.999\], not \[0.5, 0.9\]: give the",
        str(find_mistake(raised.value)),
    )


def test_a_point_has_no_epoch_that_mlflow_lacks(pretrain, tracking_uri, monkeypatch):
    """What a SIGKILL right behind it would leave; a thousand epochs a second write their metrics together."""
    write, found = checkpointing.write_checkpoint, []

    def written(state, path):
        write(state, path)
        curve = MlflowClient(tracking_uri).get_metric_history(state["run_id"], "val_mse")
        found.append((state["tracked"]["epoch"], [metric.step for metric in curve]))

    monkeypatch.setattr(checkpointing, "write_checkpoint", written)
    monkeypatch.setattr(checkpointing, "_SLOWEST", 0)
    monkeypatch.setattr(tracking, "_SEND_EVERY", 1e9)
    pretrain("out")
    assert found == [(epoch, list(range(1, epoch + 1))) for epoch in range(1, 7)]
