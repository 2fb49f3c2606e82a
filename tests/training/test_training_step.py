"""Recorded training steps do what MONAI's own steps do, bit for bit; with graphs that are simulated on the CPU."""

from __future__ import annotations

import copy
import re
from pathlib import Path

import pytest
import torch
from ignite.engine import Events
from monai.engines import SupervisedTrainer
from monai.engines.utils import IterationEvents
from monai.handlers import LrScheduleHandler
from simulated_graphs import simulate
from tiny import mistake
from torch import nn

from monai_cae.errors import MonaiCaeError
from monai_cae.training import ParallelInferer, TrainingStep

RATE = 2.0**-6  # as a float32 and as a float64 the same number


class Net(nn.Module):
    """Dropout, batch norm, and a covariate that is an argument of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.3), nn.Linear(8, 1))

    def forward(self, image: torch.Tensor, more: torch.Tensor | None = None) -> torch.Tensor:
        return self.layers(image) + (0 if more is None else more)


def batches(*sizes: int) -> list[dict[str, torch.Tensor]]:
    generator = torch.Generator().manual_seed(1)
    return [
        {name: torch.randn(size, width, generator=generator) for name, width in (("image", 4), ("label", 1))}
        for size in sizes
    ]


def trainer(compile: str, data: list, epochs: int = 4, optimizer: str = "Adam", **options) -> SupervisedTrainer:
    torch.manual_seed(3)
    network = options.pop("network", None) or Net()
    fused = {"fused": True} if optimizer.startswith("Adam") else {}
    return SupervisedTrainer(
        device="cpu",
        max_epochs=epochs,
        train_data_loader=data,
        network=network,
        optimizer=getattr(torch.optim, optimizer)(network.parameters(), lr=RATE, **fused),
        loss_function=options.pop("loss_function", nn.MSELoss()),
        iteration_update=TrainingStep(compile),
        decollate=False,
        optim_set_to_none=True,
        **options,
    )


def trained(*arguments, **options) -> dict[str, torch.Tensor]:
    engine = trainer(*arguments, **options)
    engine.run()
    return engine.network.state_dict()


def assert_same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    assert one.keys() == other.keys()
    assert all(torch.equal(tensor, other[name]) for name, tensor in one.items())


def test_each_shape_takes_three_steps_and_is_recorded_once(monkeypatch):
    expected = trained("off", batches(6, 6, 2))
    log = simulate(monkeypatch).log
    assert_same(trained("graph", batches(6, 6, 2)), expected)
    six, two = ["step"] * 3 + ["record"] + ["replay"] * 5, ["step"] * 3 + ["record", "replay"]
    assert sorted(log) == sorted(six + two)
    assert log[:4] == ["step"] * 4 and log[4:6] == ["record", "replay"]  # 6, 6, 2; 6, and the next 6 is recorded


def test_off_records_nothing_and_auto_does_where_there_are_graphs(monkeypatch):
    assert TrainingStep("auto", "cpu") and TrainingStep("inductor", "cpu")
    with pytest.raises(MonaiCaeError, match="compile graph is for CUDA, not for device cpu: leave --compile out"):
        TrainingStep("graph", "cpu")
    log = simulate(monkeypatch).log
    trained("off", batches(6))
    assert log == []
    trained("auto", batches(6))
    assert log == ["step"] * 3 + ["record", "replay"]


def test_one_of_several_processes_records_nothing(monkeypatch):
    for word in ("graph", "inductor"):
        with pytest.raises(MonaiCaeError, match=f"compile {word} is for one process; multi_gpu_train.json has off"):
            ParallelInferer(compile=word)
    log = simulate(monkeypatch).log
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    with pytest.raises(MonaiCaeError, match="compile graph is for one process, not for several: leave --compile out"):
        TrainingStep("graph")
    step = TrainingStep("auto")
    monkeypatch.undo()
    engine = trainer("off", batches(6))
    assert {*step(engine, batches(6)[0])} == {"image", "label", "pred", "loss"} and log == []


def test_outputs_are_each_step_s_own(monkeypatch):
    def seen(compile: str) -> list:
        found: list[tuple] = []
        engine = trainer(compile, batches(6, 6, 2), 5)

        def look(one) -> None:
            grads = [parameter.grad.clone() for parameter in one.network.parameters()]
            found.append((one.state.batch, one.state.output, grads, one.network.training))

        engine.add_event_handler(Events.ITERATION_COMPLETED, look)
        completed = engine.add_event_handler(IterationEvents.MODEL_COMPLETED, lambda one: found.append(()))
        assert completed
        engine.run()
        return found

    expected = seen("off")
    simulate(monkeypatch)
    ours = seen("graph")
    assert len(ours) == len(expected) == 30
    for one, other in zip(ours, expected, strict=True):
        assert len(one) == len(other)
        if one:
            assert list(one[1]) == list(other[1]) == ["image", "label", "pred", "loss"]
            assert all(torch.equal(value, other[1][name]) for name, value in one[1].items())
            assert all(torch.equal(a, b) for a, b in zip(one[2], other[2], strict=True))
            assert torch.equal(one[1]["image"], one[0]["image"]) and one[3] and other[3]
            assert not one[1]["loss"].requires_grad and not one[1]["pred"].requires_grad


def test_an_image_that_is_its_own_target_stays_one_tensor_and_arguments_are_handed_on(monkeypatch):
    def covariates(batch, device, non_blocking):
        return batch["image"], batch["label"], (batch["label"] * 2,), {}

    def own(batch, device, non_blocking):
        return batch["image"], batch["image"]

    pairs = []

    def loss(pred, target):
        pairs.append((pred, target))
        return nn.functional.mse_loss(pred, target)

    class Same(nn.Linear):
        def forward(self, image):
            images.append(image)
            return super().forward(image)

    images: list[torch.Tensor] = []
    expected = trained("off", batches(6, 6), prepare_batch=covariates)
    simulate(monkeypatch)
    assert_same(trained("graph", batches(6, 6), prepare_batch=covariates), expected)
    trained("graph", batches(6, 6), prepare_batch=own, network=Same(4, 4), loss_function=loss)
    assert len(pairs) == 8 and all(image is target for image, (_, target) in zip(images, pairs, strict=True))


@pytest.mark.parametrize("epoch_level", [True, False])
def test_learning_rate_schedules_count(monkeypatch, epoch_level):
    def run(compile: str):
        engine = trainer(compile, batches(6, 6), 6)
        schedule = torch.optim.lr_scheduler.StepLR(engine.optimizer, 2, gamma=0.5)
        LrScheduleHandler(schedule, print_lr=False, epoch_level=epoch_level).attach(engine)
        engine.run()
        return engine

    expected = run("off")
    log = simulate(monkeypatch).log
    ours = run("graph")
    assert_same(ours.network.state_dict(), expected.network.state_dict())
    assert float(ours.optimizer.param_groups[0]["lr"]) == expected.optimizer.param_groups[0]["lr"] < RATE
    assert log.count("record") == 1


def test_a_rate_that_is_set_counts_and_other_options_are_recorded_anew(monkeypatch):
    def run(compile: str, **options):
        engine = trainer(compile, batches(6, 6), 6)
        engine.add_event_handler(
            Events.ITERATION_COMPLETED(once=7), lambda one: one.optimizer.param_groups[0].update(options)
        )
        engine.run()
        return engine.network.state_dict()

    for options, recorded in (({"lr": RATE / 4}, 1), ({"betas": (0.5, 0.9)}, 2), ({"weight_decay": 0.1}, 2)):
        monkeypatch.undo()
        expected = run("off", **options)
        log = simulate(monkeypatch).log
        assert_same(run("graph", **options), expected)
        assert log.count("record") == recorded


def test_another_run_records_nothing_and_what_lies_elsewhere_is_recorded_anew(monkeypatch):
    def elsewhere(engine):
        weight = engine.network.layers[0].weight
        weight.data = weight.data.clone()

    def frozen(engine):
        engine.network.layers[4].requires_grad_(False)

    def resumed(engine):
        engine.optimizer.load_state_dict(copy.deepcopy(engine.optimizer.state_dict()))

    def loaded(engine):  # into the same tensors
        engine.network.load_state_dict({name: one / 2 for name, one in engine.network.state_dict().items()})

    def nothing(engine):
        pass

    for change, recorded in ((nothing, 0), (loaded, 0), (elsewhere, 1), (frozen, 1), (resumed, 1)):
        monkeypatch.undo()
        kept = []
        for compile in ("off", "graph"):
            log = simulate(monkeypatch).log
            engine = trainer(compile, batches(6, 6))
            engine.run()
            first = log.count("record")
            change(engine)
            engine.run()
            kept.append((engine.network.state_dict(), first, log.count("record") - first))
        assert_same(kept[0][0], kept[1][0])
        assert kept[0][1:] == (0, 0) and kept[1][1:] == (1, recorded), change


def handler_between(engine):
    engine.add_event_handler(IterationEvents.BACKWARD_COMPLETED, lambda one: None)


@pytest.mark.parametrize(
    ("options", "prepare", "simulated", "reason"),
    [
        ({"optimizer": "SGD"}, None, {}, "SGD has no capturable"),
        ({}, handler_between, {}, "a handler runs between the parts of a step"),
        ({"accumulation_steps": 2}, None, {}, "the trainer accumulates gradients"),
        ({}, None, {"waits": True}, "network, loss or optimizer wait for the GPU, as .item\\(\\) does"),
        ({}, None, {"failure": RuntimeError("not permitted when capturing\nstack")}, "not permitted when capturing"),
        ({"data": batches(*range(2, 12))}, None, {}, "batches have more than 8 shapes"),
    ],
    ids=["optimizer", "handler", "accumulation", "waiting", "failure", "shapes"],
)
def test_what_cannot_be_recorded_is_said_once_and_trained_all_the_same(
    monkeypatch, capsys, options, prepare, simulated, reason
):
    def engine(compile: str) -> SupervisedTrainer:
        made = trainer(compile, **{"data": batches(6, 6, 2), **options})
        if prepare:
            prepare(made)
        return made

    expected = engine("off")
    expected.run()
    capsys.readouterr()
    kind = simulate(monkeypatch, **simulated)
    ours = engine("auto")
    ours.run()
    assert_same(ours.network.state_dict(), expected.network.state_dict())
    (line,) = capsys.readouterr().out.splitlines()
    pattern = f"^training without CUDA graphs: {reason}$"
    assert re.match(pattern, line), line
    assert "replay" not in kind.log
    with pytest.raises(MonaiCaeError, match=f"compile graph: {reason}; leave --compile out"):
        engine("graph").run()


def plain() -> nn.Module:
    """Without batch norm and dropout, whose numbers depend on how a batch is divided."""
    return nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1)).double()


def in_groups(accumulate: int, *sizes: int, epochs: int = 3) -> tuple[dict[str, torch.Tensor], list[float]]:
    """Weights and losses; SGD, as Adam would hide gradients that are too small."""
    drawn = {name: tensor.double() for name, tensor in batches(sum(sizes))[0].items()}
    parts = zip(*(tensor.split(sizes) for tensor in drawn.values()), strict=True)
    data = [dict(zip(drawn, part, strict=True)) for part in parts]
    torch.manual_seed(5)
    options = {"optimizer": "SGD", "network": plain(), "accumulation_steps": accumulate}
    engine, losses = trainer("off", data, epochs, **options), []
    engine.optimizer.param_groups[0]["lr"] = 0.1
    engine.add_event_handler(Events.ITERATION_COMPLETED, lambda one: losses.append(one.state.output["loss"].item()))
    engine.run()
    return engine.network.state_dict(), losses


@pytest.mark.parametrize(
    ("accumulate", "parts", "whole"),
    [
        (2, (3, 3, 3, 3), (6, 6)),
        (3, (2, 2, 2, 2), (6, 2)),  # the last group is of one batch
        (2, (4, 4, 4, 1), (8, 5)),  # the last batch is smaller
        (4, (4, 4, 1), (9,)),
        (9, (1,) * 9, (9,)),
    ],
)
def test_gradients_that_are_added_up_are_those_of_one_batch(accumulate, parts, whole):
    found, losses = in_groups(accumulate, *parts)
    expected, _ = in_groups(1, *whole)
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, rtol=1e-12, atol=1e-12)
    assert len(losses) == 3 * len(parts)


def test_losses_of_batches_whose_gradients_are_added_up_are_their_own():
    _, expected = in_groups(1, 3, 3, 1, epochs=1)
    _, found = in_groups(3, 3, 3, 1, epochs=1)
    assert found[0] == pytest.approx(expected[0]) and found[1] < 10 * expected[1]
    (before,) = in_groups(1, 7, epochs=1)[1]
    assert sum(3 * loss for loss in found[:2]) + found[2] == pytest.approx(7 * before)  # all of the first weights


def test_handlers_between_the_parts_of_a_step_run_in_every_batch_and_amp_is_refused():
    fired = []
    engine = trainer("off", batches(4, 4, 2), 1, accumulation_steps=2)
    for part in ("FORWARD", "LOSS", "BACKWARD", "MODEL"):
        event = IterationEvents[f"{part}_COMPLETED"]
        engine.add_event_handler(event, lambda one, event=event: fired.append(event))
    engine.run()
    assert len(fired) == 12 and len({*fired[:4]}) == 4 and fired[:4] == fired[4:8]
    engine.compile = True
    with pytest.raises(MonaiCaeError, match="accumulate is not for a trainer with an amp or compile of its own"):
        engine.run()


@pytest.fixture(scope="module")
def settings() -> dict:
    """Batches of 5, 5 and 2; enough epochs for both shapes to be recorded."""
    return {"batch_size": 5, "max_epochs": 5, "channels": [4, 8], "learning_rate": 2.0**-10}


AUGMENTED = {"augment": True, "precision": "bfloat16"}


@pytest.mark.parametrize(
    "more", [pytest.param({}, id="plain", marks=pytest.mark.slow), pytest.param(AUGMENTED, id="augment")]
)
def test_both_stages_of_the_bundle_end_with_the_same_weights(run_bundle, discs, tmp_path, monkeypatch, settings, more):
    for stage, trainers in (("pretrain.json", 1), ("train.json", 2)):
        run_bundle(stage, discs, tmp_path / "off", compile="off", **settings, **more)
        with monkeypatch.context() as patch:
            log = simulate(patch).log
            run_bundle(stage, discs, tmp_path / "graph", compile="graph", **settings, **more)
        counts = [log.count(what) / trainers for what in ("step", "record", "replay")]
        assert counts == [3 + 3, 2, 7 + 2]  # of ten batches of 5 and five of 2
        name = "autoencoder.pt" if stage == "pretrain.json" else "model.pt"
        assert_same(*(torch.load(tmp_path / kind / "models" / name) for kind in ("off", "graph")))


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("graph", "compile graph is for CUDA, not for device cpu: leave --compile out"),
        ("true", "compile true is called inductor now: give --compile inductor"),
        (False, "compile false is called off now: give --compile off, in a YAML file with quotes"),
        ("fast", "compile must be one of auto, graph, inductor, off, not 'fast'"),
    ],
)
def test_the_bundle_refuses_what_it_cannot_do_before_it_writes(run_bundle, discs, tmp_path: Path, value, message):
    assert message in mistake(run_bundle, "pretrain.json", discs, tmp_path / "out", compile=value)
    assert not (tmp_path / "out").exists()
