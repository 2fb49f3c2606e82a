"""Steps as CUDA graphs: same numbers as ordinary steps, the same every time, and nothing waits inside an epoch."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from cuda_runs import NO_DROPOUT, SAME_NUMBERS, SMALL, SMOOTH, history_of, largest_difference, weights
from ignite.engine import Engine, Events
from monai.bundle import ConfigWorkflow
from tiny import CONFIGS, TINY

from monai_cae.networks import ConvEncoder, EncoderClassifier
from monai_cae.training import use_machine

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.filterwarnings("ignore:Synchronization debug mode is a prototype:UserWarning"),  # said once a process
]
EPOCHS = 6  # ordinary steps come first: three of each size of batch, and the smaller size comes once an epoch
STAGES = ("pretrain", "train")


@pytest.fixture
def train(run_bundle, discs, device):
    """Both stages into one folder; what is only for one of them comes under its name."""

    def run(output, **options) -> None:
        for stage in STAGES:
            given = {key: value for key, value in options.items() if key not in STAGES} | options.get(stage, {})
            run_bundle(f"{stage}.json", discs, output, experiment_name=f"{output} {stage}", device=device, **given)

    return run


@pytest.mark.parametrize(("precision", "pooling"), [("float32", 0), ("bfloat16", 0), ("float32", 3)])
def test_deterministic_twice_gives_the_same_bits(train, tmp_path, precision, pooling):
    options = {**SMALL, "max_epochs": EPOCHS, "deterministic": True, "precision": precision, "learning_rate": 0.01}
    options |= {"pretrain": {"augment": True}, "train": {"network_def#pooling": pooling}}
    train(tmp_path / "one", **options)
    train(tmp_path / "two", **options)
    assert largest_difference(tmp_path / "one", tmp_path / "two") == 0
    train(tmp_path / "other", **{**options, "seed": 6})
    assert largest_difference(tmp_path / "one", tmp_path / "other") > 0


def test_networks_of_volumes_learn_with_deterministic_kernels(device):
    """PyTorch has none for the gradients of the poolings that they are made of."""
    image, found = torch.rand(2, 1, 8, 12, 8, generator=torch.Generator().manual_seed(1)).to(device), []
    use_machine(deterministic=True)
    for _ in range(2):
        torch.manual_seed(0)
        encoder = ConvEncoder(spatial_dims=3, channels=(2, 3))
        network = EncoderClassifier(encoder=encoder, spatial_size=image.shape[2:], pooling=3, dropout=0).to(device)
        network(image).sum().backward()
        found.append([parameter.grad.cpu() for parameter in network.parameters()])
    assert all(torch.equal(one, other) and one.isfinite().all() for one, other in zip(*found, strict=True))


@pytest.mark.parametrize("recompute", [False, True])
def test_deterministic_graphs_give_the_bits_of_ordinary_steps(train, gpu, tmp_path, recompute):
    """Dropout and augmentation too: a replay draws what a step would have drawn. The learning rate is the same number
    in float32, as a recorded step has it, and in float64, as PyTorch hands it to Adam's kernel otherwise."""
    options = {**SMALL, "max_epochs": EPOCHS, "deterministic": True, "learning_rate": 2.0**-7}
    options["pretrain"] = {"augment": True}
    train(tmp_path / "off", compile="off", **options)
    train(tmp_path / "graph", compile="graph", activation_checkpointing=recompute, **options)
    assert largest_difference(tmp_path / "graph", tmp_path / "off") == 0


@pytest.mark.parametrize(("precision", "tolerance"), [("float32", 2e-3), ("bfloat16", 0.15)])
def test_metrics_are_those_of_ordinary_steps(train, gpu, tmp_path, tracking_uri, precision, tolerance):
    """Without deterministic kernels those that are the fastest at the moment may be others in each run."""
    options = {**SAME_NUMBERS, "max_epochs": EPOCHS, "precision": precision}
    options |= {"pretrain": SMOOTH["pretrain"], "train": {**SMOOTH["train"], **NO_DROPOUT}}
    for compile in ("graph", "off"):
        train(tmp_path / compile, compile=compile, **options)
    for stage in STAGES:
        found, expected = (history_of(tracking_uri, f"{tmp_path / way} {stage}") for way in ("graph", "off"))
        assert found.keys() == expected.keys()
        for name in ("train_loss", *(name for name in expected if name in ("val_loss", "val_mse", "val_psnr"))):
            assert found[name] == pytest.approx(expected[name], rel=tolerance), (stage, name)


class NoWaiting:
    """From the first iteration of an epoch to its last, have whatever waits for the GPU raise an error.

    What comes before is the loader's start, what comes after are the epoch's loss, validation, checkpoint and MLflow.

    Args:
        switch: `torch.cuda.set_sync_debug_mode`.
        first: epoch to begin with; before, steps are recorded.

    Attributes:
        watched: iterations so far that were watched.
    """

    def __init__(self, switch: Callable[[str], None], first: int) -> None:
        self.switch = switch
        self.first = first
        self.watched = 0

    def attach(self, engine: Engine) -> None:
        """Args: engine: the trainer."""
        engine.add_event_handler(Events.ITERATION_COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        """Switch after the first and after the last iteration; the last handler of either."""
        epochs, number = divmod(engine.state.iteration, engine.state.epoch_length)
        if number == 0:
            self.switch("default")
        elif epochs + 1 >= self.first:
            self.watched += 1
            self.switch("error")


@pytest.fixture
def switch(device):
    """On a CPU nothing waits, and there is nothing to switch."""
    yield torch.cuda.set_sync_debug_mode if device != "cpu" else (lambda mode: None)
    if device != "cpu":
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("compile", ["graph", "off"])
@pytest.mark.parametrize("augment", [False, True])
@pytest.mark.parametrize(
    ("config", "trainers"),
    [("pretrain.json", ["train#trainer"]), ("train.json", ["frozen#trainer", "train#trainer"])],
)
def test_nothing_waits_for_the_gpu_inside_an_epoch(
    discs, device, switch, tracking_uri, tmp_path, config, trainers, compile, augment
):
    options = {
        **TINY,
        **SMALL,
        "max_epochs": EPOCHS,
        "device": device,
        "compile": compile if device != "cpu" else "off",
    }
    options |= {"dataset_dir": str(discs), "output_dir": str(tmp_path / "out"), "tracking_uri": tracking_uri}
    options |= {"pretrained": "none"} if config == "train.json" else {}
    workflow = ConfigWorkflow(str(CONFIGS / config), workflow_type="train", augment=augment, **options)
    workflow.initialize()
    watching = [NoWaiting(switch, first=5) for _ in trainers]
    for handler, name in zip(watching, trainers, strict=True):
        handler.attach(workflow.parser.get_parsed_content(name))
    workflow.run()
    workflow.finalize()
    # 12 subjects in batches of 5, 5 and 2: two of the three iterations of the last two epochs
    assert [handler.watched for handler in watching] == [4] * len(trainers)
    assert weights(tmp_path / "out")


def test_watching_ends_in_the_error_that_it_should(gpu, switch):
    """Otherwise the test before would pass whatever waits."""
    engine = Engine(lambda engine, batch: batch.sum().item() if engine.state.epoch > 1 else None)
    NoWaiting(switch, first=2).attach(engine)
    with pytest.raises(RuntimeError, match="synchronizing CUDA operation"):
        engine.run([torch.ones(3, device=gpu)] * 3, max_epochs=2)
