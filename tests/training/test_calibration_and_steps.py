"""What a classifier's training consists of, and the temperature at its end."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from monai.engines import PrepareBatchExtraInput, SupervisedEvaluator

from monai_cae.errors import MonaiCaeError
from monai_cae.evaluation.calibration import fitted_temperature
from monai_cae.networks import ConvEncoder, EncoderClassifier, load_weights
from monai_cae.targets import Diagnosis
from monai_cae.training import BestCheckpoint, Calibration, learning_steps
from monai_cae.training.engines.inferers import PrecisionInferer


def log_loss(labels, logits):
    return float(np.mean(np.log1p(np.exp(-np.where(labels == 1, logits, -logits)))))


def test_temperature_is_the_best_of_a_fine_grid():
    rng = np.random.default_rng(0)
    logits = rng.normal(size=200) * 4
    labels = (rng.random(200) < 1 / (1 + np.exp(-logits / 3))).astype(int)
    found = fitted_temperature(labels, logits)
    grid = np.geomspace(0.1, 15, 2000)
    assert found == pytest.approx(grid[np.argmin([log_loss(labels, logits / t) for t in grid])], rel=0.01)
    assert 2 < found < 4.5


def test_logits_that_are_wrong_are_cooled_down_to_nothing():
    assert fitted_temperature([0, 1], [3.0, -3.0]) == pytest.approx(20, rel=1e-3)


def test_steps_by_word():
    frozen, everything, best = (SimpleNamespace(run=name, restore=f"{name} restored") for name in ("f", "e", "b"))
    regression, calibration = SimpleNamespace(run="r"), SimpleNamespace(run="c", enabled=False)

    def steps(learn: str) -> list[str]:
        return learning_steps(learn, frozen, everything, best, regression, calibration, Diagnosis())

    assert steps("two_stage") == ["f", "b restored", "e", "c"]
    assert steps("frozen") == ["f", "c"]
    assert steps("finetune") == ["e", "c"]
    assert steps("linear_probe") == ["r", "c"]
    for former, now in {"both": "two_stage", "head": "frozen", "all": "finetune", "regression": "linear_probe"}.items():
        with pytest.raises(MonaiCaeError, match=f"learn {former} is called {now} now: give --learn {now}"):
            steps(former)
    with pytest.raises(MonaiCaeError, match="one of two_stage, frozen, last_layer, finetune, linear_probe, not 'none'"):
        steps("none")


@pytest.fixture
def trained(tmp_path):
    """A network that is far too sure, kept as the best, and its evaluator."""
    torch.manual_seed(0)
    encoder = ConvEncoder(channels=(2, 3))
    network = EncoderClassifier(encoder=encoder, spatial_size=(8, 8), pooling=1, hidden=[], covariates=["age"])
    with torch.no_grad():
        network.head[-1].weight.mul_(60)
        network.head.covariate_weight.fill_(30)
    items = [
        {"image": torch.rand(4, 1, 8, 8), "label": torch.tensor([[0.0], [1], [1], [0]]), "covariates": torch.rand(4, 1)}
        for _ in range(3)
    ]
    best = BestCheckpoint(network, tmp_path / "model.pt", "val_loss")
    best(SimpleNamespace(state=SimpleNamespace(metrics={"val_loss": 1.0})))
    evaluator = SupervisedEvaluator(
        device=torch.device("cpu"), val_data_loader=items, network=network, decollate=False,
        inferer=PrecisionInferer("float32"), prepare_batch=PrepareBatchExtraInput(["covariates"]),
    )  # fmt: skip
    return SimpleNamespace(network=network, best=best, evaluator=evaluator, items=items, path=tmp_path / "model.pt")


def logits_of(network, items):
    network.eval()
    with torch.no_grad():
        return torch.cat([network(item["image"], item["covariates"]) for item in items]).flatten()


def test_calibrated_weights_are_written_and_stay_the_best(trained):
    before = logits_of(trained.network, trained.items)
    labels = torch.cat([item["label"] for item in trained.items]).flatten().numpy()
    calibration = Calibration(trained.best, trained.evaluator)
    calibration.run()
    assert calibration.temperature == pytest.approx(fitted_temperature(labels, before.numpy()), rel=1e-4)
    assert calibration.temperature > 1.5
    torch.testing.assert_close(logits_of(trained.network, trained.items), before / calibration.temperature)
    with torch.no_grad():
        trained.network.head[-1].weight.zero_()
    trained.best.restore()
    torch.testing.assert_close(logits_of(trained.network, trained.items), before / calibration.temperature)
    encoder = ConvEncoder(channels=(2, 3))
    fresh = EncoderClassifier(encoder=encoder, spatial_size=(8, 8), pooling=1, hidden=[], covariates=["age"])
    torch.testing.assert_close(
        logits_of(load_weights(fresh, trained.path), trained.items), before / calibration.temperature
    )


def test_without_calibration_nothing_changes(trained):
    before = logits_of(trained.network, trained.items)
    Calibration(trained.best, trained.evaluator, enabled=False).run()
    torch.testing.assert_close(logits_of(trained.network, trained.items), before)


def test_another_network_is_refused(trained):
    trained.best.network = torch.nn.Linear(2, 1)
    with pytest.raises(MonaiCaeError, match="calibrate works in one process and with an EncoderClassifier"):
        Calibration(trained.best, trained.evaluator).run()
