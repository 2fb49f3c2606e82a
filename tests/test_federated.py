"""Federated learning through MONAI's MonaiAlgo: two sites, each with half of the cohort, and their mean."""

from __future__ import annotations

import runpy
from pathlib import Path
from types import SimpleNamespace

import nibabel as nib
import numpy as np
import pytest
import torch
from ignite.engine import Events
from monai.fl.client import MonaiAlgo
from monai.fl.utils.constants import ExtraItems, ModelType
from monai.fl.utils.exchange_object import ExchangeObject
from tiny import CONFIGS, TINY, write_discs

from monai_cae.networks import ConvAutoencoder, ConvDecoder, ConvEncoder, EncoderClassifier, save_weights

# MonaiAlgo says so whenever it executes a bundle
pytestmark = pytest.mark.filterwarnings("ignore:executing the bundle config:UserWarning")

EXAMPLE = SimpleNamespace(**runpy.run_path(str(CONFIGS.parents[1] / "examples" / "federated.py")))
ROUNDS = 2


def arrays(network: torch.nn.Module) -> dict[str, np.ndarray]:
    return {name: tensor.numpy().copy() for name, tensor in network.state_dict().items()}


def federate(stage: str, discs: list[Path], output: Path, **settings) -> SimpleNamespace:
    """Two rounds; what every site's network held when a round's training started and when it ended."""
    options = {**TINY, "threads": 1, **settings}
    sites = [EXAMPLE.client(stage, root, output / root.name, **options) for root in discs]
    starts: list[list] = [[] for _ in sites]
    ends: list[list] = [[] for _ in sites]
    for site, start, end in zip(sites, starts, ends, strict=True):
        site.trainer.add_event_handler(Events.STARTED, lambda engine, start=start: start.append(arrays(engine.network)))
        site.trainer.add_event_handler(Events.COMPLETED, lambda engine, end=end: end.append(arrays(engine.network)))
    weights, metrics = EXAMPLE.initial_weights(sites[0]), []
    initial = {name: tensor.numpy().copy() for name, tensor in weights.items()}
    for _ in range(ROUNDS):
        weights, measured = EXAMPLE.federated_round(sites, weights)
        metrics.append(measured)
    return SimpleNamespace(
        stage=stage, sites=sites, starts=starts, ends=ends, initial=initial, weights=weights, metrics=metrics
    )


@pytest.fixture(scope="module")
def halves(tmp_path_factory):
    root = tmp_path_factory.mktemp("sites")
    return [write_discs(root / "one", 12), write_discs(root / "two", 12, first=12)]


@pytest.fixture(scope="module")
def pretraining(halves, tmp_path_factory):
    return federate("pretrain", halves, tmp_path_factory.mktemp("federated"))


@pytest.fixture(scope="module")
def training(pretraining, halves, tmp_path_factory):
    """The classifier on the encoder of the averaged autoencoder."""
    output = tmp_path_factory.mktemp("federated")
    save_weights(pretraining.weights, output / "autoencoder.pt")
    return federate("train", halves, output, pretrained=str(output / "autoencoder.pt"))


@pytest.fixture(params=["pretraining", "training"])
def outcome(request):
    return request.getfixturevalue(request.param)


def network(stage: str) -> torch.nn.Module:
    if stage == "pretrain":
        return ConvAutoencoder(encoder=ConvEncoder(), decoder=ConvDecoder())
    return EncoderClassifier(encoder=ConvEncoder(), spatial_size=(16, 16))


def test_both_sites_go_on_from_the_mean_of_what_they_have_learnt(outcome):
    one, two = outcome.ends
    for name, initial in outcome.initial.items():
        for start in outcome.starts:
            np.testing.assert_array_equal(start[0][name], initial)
            np.testing.assert_allclose(start[1][name], np.mean([one[0][name], two[0][name]], axis=0), atol=1e-6)
        np.testing.assert_allclose(outcome.weights[name], np.mean([one[1][name], two[1][name]], axis=0), atol=1e-6)


def test_every_weight_and_batch_norm_statistic_learns_and_is_exchanged(outcome):
    assert outcome.weights.keys() == network(outcome.stage).state_dict().keys()
    assert any(name.endswith("running_var") for name in outcome.weights)
    for rounds in outcome.ends:
        for name, before in outcome.initial.items():
            assert not np.array_equal(rounds[0][name], before), name
    for name in (name for name in outcome.weights if not name.endswith("num_batches_tracked")):
        assert not np.array_equal(outcome.ends[0][0][name], outcome.ends[1][0][name]), name


def test_a_round_is_one_epoch_of_the_sites_own_training_subjects(outcome, halves):
    for site, root in zip(outcome.sites, halves, strict=True):
        assert site.trainer.state.epoch == ROUNDS and site.trainer.state.iteration == ROUNDS * 2  # 6 subjects by 4
        sets = site.train_workflow.parser.get_parsed_content("sets")
        assert all(Path(item["image"]).is_relative_to(root) for item in sets.training + sets.validation)
        assert len(sets.training) == 6 and len(sets.validation) == 2


def by_hand(path: str) -> np.ndarray:
    plane = np.asarray(nib.load(path).dataobj)[2:18, 4:20, 10, 0].astype(float)
    return (plane - plane.min()) / (plane.max() - plane.min())


def test_evaluation_gives_what_the_averaged_network_does_on_the_sites_validation_subjects(outcome):
    averaged = network(outcome.stage).eval()
    averaged.load_state_dict(outcome.weights)
    for site, metrics in zip(outcome.sites, outcome.metrics[-1], strict=True):
        items = site.train_workflow.parser.get_parsed_content("sets").validation
        images = torch.tensor(np.stack([by_hand(item["image"]) for item in items])[:, None], dtype=torch.float32)
        with torch.no_grad():
            output = averaged(images).numpy().astype(float)
        if outcome.stage == "pretrain":
            assert metrics.keys() == {"val_mse", "val_psnr", "val_psnr_brain"}
            assert metrics["val_mse"] == pytest.approx(np.mean((output - images.numpy()) ** 2), rel=1e-4)
        else:
            assert metrics.keys() == {"val_loss", "val_accuracy", "val_f1", "val_auc"}
            signs = np.array([2 * item["label"] - 1 for item in items])
            assert metrics["val_loss"] == pytest.approx(np.mean(np.log1p(np.exp(-signs * output[:, 0]))), rel=1e-4)


def test_best_model_is_that_of_the_sites_better_round(outcome):
    for site, ends in zip(outcome.sites, outcome.ends, strict=True):
        metric = {"pretrain": "val_mse", "train": "val_loss"}[outcome.stage]
        history = site.train_workflow.parser.get_parsed_content("tracked_run").history
        assert [epoch for epoch, _ in history[metric]] == [1, 2] and "train_loss" in history
        values = [value for _, value in history[metric]]
        sent = site.get_weights({ExtraItems.MODEL_TYPE: ModelType.BEST_MODEL}).weights
        for name, value in ends[int(np.argmin(values))].items():
            np.testing.assert_array_equal(sent[name], value)


def test_run_is_named_after_the_site(outcome):
    names = [site.train_workflow.parser.get_parsed_content("tracked_run").name for site in outcome.sites]
    assert names[0].startswith("one_") and names[1].startswith("two_")


def test_the_default_evaluation_merges_train_and_evaluate(training, halves, tmp_path):
    """MonaiAlgo's own: train.json and evaluate.json in one, whose network is a checkpoint that is there."""
    models = {"pretrained": tmp_path / "autoencoder.pt", "checkpoint": tmp_path / "model.pt"}
    save_weights(ConvAutoencoder(encoder=ConvEncoder(), decoder=ConvDecoder()), models["pretrained"])
    save_weights(training.weights, models["checkpoint"])
    settings = {"dataset_dir": str(halves[0]), "output_dir": str(tmp_path / "out"), **TINY, "threads": 1}
    algo = MonaiAlgo(
        bundle_root=str(CONFIGS.parent),
        local_epochs=1,
        train_kwargs={**settings, "pretrained": str(models["pretrained"])},
        eval_kwargs={**settings, **{name: str(path) for name, path in models.items()}},
        best_model_filepath=str(tmp_path / "best.pt"),
        eval_workflow_name="train",
    )
    algo.initialize({ExtraItems.CLIENT_NAME: "one"})
    algo.train(ExchangeObject(weights=training.weights))
    measured = algo.evaluate(ExchangeObject(weights=training.weights)).metrics
    assert measured == pytest.approx(training.metrics[-1][0], rel=1e-4)
