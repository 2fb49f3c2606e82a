"""The linear probe, against its own definition and through train.json."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from tiny import mistake

from monai_cae.errors import MonaiCaeError
from monai_cae.networks import ConvEncoder, EncoderClassifier, each_sample, load_weights
from monai_cae.training import EncodedDataset, LinearProbe, PrecisionInferer

PENALTY = {"code": 30, "histogram": 3, "covariates": 1}


class Run:
    """What a linear probe tells MLflow."""

    def __init__(self) -> None:
        self.epoch, self.logged, self.parent_run_id = 0, {}, ""

    def log_metrics(self, metrics, step):
        self.logged = {**metrics, "step": step}


def probe(items, network, **options) -> LinearProbe:
    evaluator = SimpleNamespace(run=lambda: None, state=SimpleNamespace(metrics={"val_loss": 0.5, "val_auc": 0.75}))
    best = SimpleNamespace(best={}, metric="val_loss")
    given = {"best": best, "run": Run(), "evaluator": evaluator, "penalty": PENALTY, **options}
    sets = [
        EncodedDataset(part, network.encoder, PrecisionInferer("float32"), 4, network.summarise)
        for part in (items[:13], items[13:])
    ]
    return LinearProbe(network=network, datasets=sets, **given)


@pytest.fixture
def network():
    torch.manual_seed(1)
    return EncoderClassifier(
        encoder=ConvEncoder(channels=(2, 3)),
        spatial_size=(8, 8),
        hidden=[],
        pooling=1,
        histogram=4,
        covariates=["age", "sex"],
    )


@pytest.fixture
def items():
    rng = np.random.default_rng(2)
    return [
        {
            "image": torch.from_numpy(rng.random((1, 8, 8), dtype=np.float32) * (0.6 + 0.2 * (number % 2))),
            "label": torch.tensor([float(number % 3 == 0)]),
            "covariates": torch.from_numpy(rng.normal(number % 3 == 0, 1, 2).astype(np.float32)),
        }
        for number in range(20)
    ]


def test_weights_minimise_the_penalised_loss_of_standardised_features(items, network):
    made = probe(items, network)
    made.run()
    images = torch.stack([item["image"] for item in items])
    with torch.no_grad():
        seen = network.summarise(network.encoder(images), images)
    features = np.c_[seen.double().numpy(), np.stack([item["covariates"] for item in items])]
    labels = np.array([int(item["label"]) for item in items])
    standardised = (features - features.mean(axis=0)) / features.std(axis=0)
    penalty = np.array([30] * 3 + [3] * 4 + [1] * 2)

    def objective(parameters):
        logits = standardised @ parameters[:-1] + parameters[-1]
        losses = np.logaddexp(0, logits) - labels * logits
        return losses.sum() + 0.5 * (penalty * parameters[:-1] ** 2).sum()

    optimum = minimize(objective, np.zeros(10), method="BFGS", options={"gtol": 1e-9}).x
    expected = standardised @ optimum[:-1] + optimum[-1]
    covariates = torch.stack([item["covariates"] for item in items])
    with torch.no_grad():
        logits = network.eval()(images, covariates)[:, 0].numpy()
    np.testing.assert_allclose(logits, expected, atol=2e-4)
    fitted = {"fitted_loss": 0.5, "fitted_auc": 0.75}
    assert made.best.best == fitted
    assert made.tracked.logged == {**fitted, "step": 1}


def test_of_a_number_it_is_ridge_regression_in_units_of_the_training_sets_sd(items):
    torch.manual_seed(1)
    made = {"encoder": ConvEncoder(channels=(2, 3)), "spatial_size": (8, 8), "hidden": [], "pooling": 1}
    network = EncoderClassifier(**made, covariates=["age", "sex"], number=True)
    network.head.set_units(74.0, 8.0)
    ages = np.random.default_rng(3).normal(70, 6, len(items))
    items = [{**item, "label": torch.tensor([age])} for item, age in zip(items, ages, strict=True)]
    probe(items, network, penalty={"code": 30, "histogram": 3, "covariates": 2}).run()
    images, covariates = (torch.stack([item[key] for item in items]) for key in ("image", "covariates"))
    with torch.no_grad():
        seen = network.summarise(network.encoder(images), images)
    features = np.c_[seen.double().numpy(), covariates.numpy()]
    x = np.c_[(features - features.mean(axis=0)) / features.std(axis=0), np.ones(len(items))]
    z = (ages - 74) / 8
    # the normal equations of half the squared errors and half the penalties; the intercept has none
    weights = np.linalg.solve(x.T @ x + np.diag([30, 30, 30, 2, 2, 0]), x.T @ z)
    with torch.no_grad():
        predicted = network.eval()(images, covariates)[:, 0].numpy()
    np.testing.assert_allclose(predicted, 74 + 8 * (x @ weights), rtol=1e-4)


def test_encoder_stays(items, network):
    before = {name: tensor.clone() for name, tensor in network.encoder.state_dict().items()}
    probe(items, network).run()
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.encoder.state_dict().items())


@pytest.mark.parametrize(
    ("penalty", "message"),
    [
        ({**PENALTY, "code": 0}, "penalty#code must be a number above 0, not 0"),
        ({"code": 1, "histogram": 1}, "penalty#covariates must be a number above 0, not None"),
        ({**PENALTY, "histogram": "3"}, "penalty#histogram must be a number above 0, not '3'"),
    ],
)
def test_impossible_penalties(items, network, penalty, message):
    with pytest.raises(MonaiCaeError, match=message):
        probe(items, network, penalty=penalty).run()


def test_one_class_and_hidden_layers_are_refused(items, network):
    controls = [item for item in items if not item["label"]]
    with pytest.raises(MonaiCaeError, match="needs patients and controls"):
        probe(controls, network).run()
    deep = EncoderClassifier(encoder=ConvEncoder(channels=(2, 3)), spatial_size=(8, 8), hidden=[4])
    with pytest.raises(MonaiCaeError, match="without hidden layers"):
        probe(items, deep).run()


def test_samples_that_vote_share_the_weight_of_their_subject():
    torch.manual_seed(1)
    encoder = ConvEncoder(channels=(2, 3))
    given = {"spatial_size": (8, 8), "hidden": [], "pooling": 1, "histogram": 4, "covariates": ["age"]}
    network = EncoderClassifier(encoder=each_sample(encoder, 3), votes="mean", **given)
    rng = np.random.default_rng(2)
    items = [
        {
            "image": torch.from_numpy(rng.random((3, 8, 8), dtype=np.float32) * (0.6 + 0.2 * (number % 2))),
            "label": torch.tensor([float(number % 3 == 0)]),
            "covariates": torch.from_numpy(rng.normal(number % 3 == 0, 1, 1).astype(np.float32)),
        }
        for number in range(20)
    ]
    probe(items, network).run()
    alone = EncoderClassifier(encoder=encoder, **given).eval()
    rows, labels = [], []
    for item in items:
        for image in item["image"]:
            with torch.no_grad():
                seen = alone.summarise(encoder(image[None, None]), image[None, None])[0].double().numpy()
            rows.append(np.r_[seen, item["covariates"]])
            labels.append(int(item["label"]))
    features, labels = np.array(rows), np.array(labels)
    standardised = (features - features.mean(axis=0)) / features.std(axis=0)
    penalty = np.array([30] * 3 + [3] * 4 + [1])

    def loss(weights):
        logits = standardised @ weights[:-1] + weights[-1]
        each = np.log1p(np.exp(np.where(labels == 1, -logits, logits)))
        return each.sum() / 3 + penalty @ weights[:-1] ** 2 / 2  # 20 subjects, not 60

    best = minimize(loss, np.zeros(9), tol=1e-12).x
    weights = best[:-1] / features.std(axis=0)
    np.testing.assert_allclose(network.head[1].weight.detach().numpy()[0], weights[:7], rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(network.head.covariate_weight.detach().numpy(), weights[7:], atol=1e-3)


def test_train_json_fits_training_and_validation_subjects(run_bundle, discs, tmp_path, capsys):
    options = {"network_def#hidden": [], "network_def#pooling": 1, "network_def#histogram": 4}
    options |= {"learn": "linear_probe", "pretrained": "none", "penalty": PENALTY}
    run_bundle("train.json", discs, tmp_path, **options)
    assert "linear probe fitted to 16 subjects' scans" in capsys.readouterr().out  # of 12 + 4
    results = json.loads((tmp_path / "results_train.json").read_text())
    assert {"fitted_loss", "fitted_auc"} <= results.keys()
    assert not any(name.startswith("val_") for name in results)  # nothing is called validation that was fitted
    encoder = ConvEncoder()
    network = EncoderClassifier(encoder=encoder, spatial_size=(16, 16), hidden=[], pooling=1, histogram=4)
    load_weights(network, tmp_path / "models" / "model.pt")
    assert network.head[-1].weight.abs().max() > 0


def test_calibration_on_fitted_subjects_is_refused(run_bundle, discs, tmp_path):
    options = {"network_def#hidden": [], "learn": "linear_probe", "pretrained": "none", "calibrate": True}
    said = mistake(run_bundle, "train.json", discs, tmp_path, **options)
    assert "calibrate needs validation subjects that were not fitted" in said
