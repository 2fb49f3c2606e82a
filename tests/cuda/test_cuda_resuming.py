"""Ended by SIGTERM on the GPU and resumed there: as if nothing had happened; or resumed on a CPU, and the other way."""

from __future__ import annotations

import json
import shutil
import signal

import pytest
import torch
from cuda_runs import NO_DROPOUT, SAME_NUMBERS, SMALL, SMOOTH, history_of, largest_difference, weights

from monai_cae.training.stages.checkpointing import Resuming
from monai_cae.training.stages.signals import Ended

pytestmark = pytest.mark.cuda
STAGES = ("pretrain", "train")
EPOCHS = {**SMALL, "max_epochs": 5, "save_every": 0, "deterministic": True}


@pytest.fixture
def train(run_bundle, discs):
    """A stage in this process."""

    def run(stage: str, output, **options) -> None:
        run_bundle(f"{stage}.json", discs, output, **options)

    return run


@pytest.fixture
def ended_after(monkeypatch):
    """Have SIGTERM come while the n-th epoch of a process, validation included, is running."""

    def end(epoch: int) -> None:
        after_epoch = Resuming.after_epoch
        seen = []

        def terminated(self, name, trainer):
            seen.append(name)
            if len(seen) == epoch:
                signal.raise_signal(signal.SIGTERM)
            after_epoch(self, name, trainer)

        monkeypatch.setattr(Resuming, "after_epoch", terminated)

    yield end
    monkeypatch.undo()


def results(output, stage) -> dict:
    found = json.loads((output / f"results_{stage}.json").read_text())
    return {name: value for name, value in found.items() if name not in ("seconds", "run_id", "weights")}


def test_ended_and_resumed_is_never_ended_bit_for_bit(train, ended_after, device, tmp_path, monkeypatch):
    """With augmentation, dropout and graphs: each draws random numbers or keeps something between steps. The epochs in
    which the stages are ended are before and after the steps are recorded, and in both parts of the second."""
    settings = {**EPOCHS, "device": device, "learning_rate": 0.01}
    whole, ended = tmp_path / "whole", tmp_path / "ended"
    for stage, ends in (("pretrain", (1, 3)), ("train", (2, 4, 2))):
        own = {"augment": True} if stage == "pretrain" else {}  # the frozen stage learns on codes
        train(stage, whole, **settings, **own)
        for epoch in ends:
            ended_after(epoch)
            with pytest.raises(Ended):
                train(stage, ended, resume=True, **settings, **own)
            monkeypatch.undo()
            assert (ended / "models" / f"resume_{stage}.pt").is_file()
        train(stage, ended, resume=True, **settings, **own)
        assert not (ended / "models" / f"resume_{stage}.pt").exists()
        assert results(ended, stage) == results(whole, stage)
    assert largest_difference(whole, ended) == 0


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("there", ["from the gpu to a cpu", "from a cpu to the gpu"])
def test_a_point_made_on_one_device_is_finished_on_the_other(
    train, ended_after, device, tmp_path, monkeypatch, tracking_uri, stage, there
):
    """Without augmentation and dropout, which draw other numbers on the other device."""
    first, second = (device, "cpu") if there == "from the gpu to a cpu" else ("cpu", device)
    options = {**SAME_NUMBERS, "max_epochs": 4, "save_every": 0, **SMOOTH[stage]}
    if stage == "train":
        options |= NO_DROPOUT
        train("pretrain", tmp_path / "whole", **{**SAME_NUMBERS, "device": "cpu"})
        shutil.copytree(tmp_path / "whole", tmp_path / "moved")
    train(stage, tmp_path / "whole", device="cpu", experiment_name=f"{tmp_path} whole", **options)
    ended_after(2 if stage == "pretrain" else 6)
    name = f"{tmp_path} moved"
    with pytest.raises(Ended):
        train(stage, tmp_path / "moved", device=first, experiment_name=name, **options)
    monkeypatch.undo()
    train(stage, tmp_path / "moved", device=second, experiment_name=name, resume=True, **options)
    expected, found = history_of(tracking_uri, f"{tmp_path} whole"), history_of(tracking_uri, name)
    assert expected.keys() == found.keys()
    for metric, values in expected.items():
        assert len(found[metric]) == len(values) == (4 if stage == "pretrain" else 8)
        if any(word in metric for word in ("loss", "mse", "psnr")):
            assert found[metric] == pytest.approx(values, rel=2e-3), metric
    for state in weights(tmp_path / "moved").values():
        assert all(torch.isfinite(tensor).all() for tensor in state.values())
