"""Votes of an image's samples, against SciPy's arithmetic on the logit of each sample."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.special import expit, logit, softmax

from monai_cae.errors import MonaiCaeError
from monai_cae.networks import ConvEncoder, EncoderClassifier, IntensityHistogram, each_sample
from monai_cae.networks.head import VoteLoss, VotingHead

SAMPLES = 3


def classifier(votes: str = "mean", **options) -> EncoderClassifier:
    """Of three samples, in evaluation mode; its covariate counts."""
    torch.manual_seed(0)
    given = {"spatial_size": (8, 8), "hidden": [6, 4], "histogram": 4, "covariates": ["age"], **options}
    network = EncoderClassifier(encoder=each_sample(ConvEncoder(channels=(3, 5)), SAMPLES), votes=votes, **given)
    with torch.no_grad():
        network.head.covariate_weight.fill_(0.7)
        network.head[1].weight.mul_(5)  # votes that differ
        network.head[-1].weight.mul_(40)
    return network.eval()


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(1)
    return torch.rand(4, SAMPLES, 8, 8, generator=generator), torch.rand(4, 1, generator=generator)


def one_by_one(network: EncoderClassifier, image: torch.Tensor) -> np.ndarray:
    """What the first dense layer makes of each sample, computed without the head's code: shape (N, samples, 6)."""
    encoder, first = network.encoder.network, network.head[1]
    rows = []
    with torch.no_grad():
        for k in range(SAMPLES):
            code = encoder(image[:, [k]]).flatten(1)
            seen = torch.cat([code, IntensityHistogram(4)(image[:, [k]])], dim=1)
            rows.append(np.maximum(seen.numpy() @ first.weight.detach().numpy().T + first.bias.detach().numpy(), 0))
    return np.stack(rows, axis=1)


def behind(features: np.ndarray, *layers: torch.nn.Linear) -> np.ndarray:
    """Two linear layers with ReLU between them."""
    (a, b), (c, d) = ((one.weight.detach().numpy(), one.bias.detach().numpy()) for one in layers)
    return np.maximum(features @ a.T + b, 0) @ c.T + d


def test_the_mean_of_the_probabilities_is_what_is_predicted(batch):
    network, (image, age) = classifier(), batch
    votes = behind(one_by_one(network, image), network.head[4], network.head[6])[..., 0] + 0.7 * age.numpy()
    expected = logit(expit(votes.astype(float)).mean(axis=1))
    assert np.ptp(votes, axis=1).min() > 0.1  # so that no other mean is the same
    with torch.no_grad():
        found = network(image, age)
        told, weights = network.head.votes(network.summarise(network.encoder(image), image), age)
    np.testing.assert_allclose(found.numpy()[:, 0], expected, atol=1e-4)
    np.testing.assert_allclose(told.numpy(), votes, atol=1e-4)
    np.testing.assert_allclose(weights.numpy(), 1 / SAMPLES, atol=1e-7)


def test_of_a_number_the_votes_themselves_are_averaged(batch):
    network, (image, age) = classifier(probabilities=False), batch
    votes = behind(one_by_one(network, image), network.head[4], network.head[6])[..., 0] + 0.7 * age.numpy()
    with torch.no_grad():
        np.testing.assert_allclose(network(image, age).numpy()[:, 0], votes.mean(axis=1), atol=1e-4)
    assert "head.factor" not in network.state_dict()


def test_votes_that_are_sure_have_a_finite_mean():
    head = classifier().head
    with torch.no_grad():
        for number in (1, 4):
            head[number].weight.zero_()
            head[number].bias.zero_()
        head[6].weight.zero_()
        for sure in (1000.0, -1000.0):
            head[6].bias.fill_(sure)
            assert head(torch.zeros(1, head[1].in_features * SAMPLES)).item() == pytest.approx(sure, rel=1e-6)


def test_the_majority_is_the_share_of_votes_of_a_half_or_more(batch):
    network, (image, age) = classifier("majority"), batch
    votes = behind(one_by_one(network, image), network.head[4], network.head[6])[..., 0] + 0.7 * age.numpy()
    ones = (votes >= 0).sum(axis=1)
    with torch.no_grad():
        np.testing.assert_allclose(network(image, age).numpy()[:, 0], logit((ones + 0.5) / (SAMPLES + 1)), atol=1e-5)
        head = VotingHead(1, SAMPLES, "majority", []).eval()
        head[1].weight.fill_(1.0)
        head[1].bias.zero_()
        found = head(torch.tensor([[1.0, -1, -1], [9, 9, -99], [0, 0, 0]]))  # a mean would say otherwise of the second
    np.testing.assert_allclose(found.numpy()[:, 0], logit(np.array([1.5, 2.5, 3.5]) / 4), atol=1e-6)


def test_attention_is_the_softmax_of_a_small_network_on_the_first_dense_layer(batch):
    network, (image, age) = classifier("attention"), batch
    features = one_by_one(network, image)
    score = network.head[4].score
    (a, b), (c, d) = ((one.weight.detach().numpy(), one.bias.detach().numpy()) for one in (score[0], score[2]))
    weights = softmax(np.tanh(features @ a.T + b) @ c.T + d, axis=1)  # as monai.networks.nets.MILModel, mode "att"
    pooled = (weights * features).sum(axis=1)
    expected = behind(pooled, network.head[5], network.head[7])[:, 0] + 0.7 * age.numpy()[:, 0]
    alone = behind(features, network.head[5], network.head[7])[..., 0] + 0.7 * age.numpy()
    with torch.no_grad():
        np.testing.assert_allclose(network(image, age).numpy()[:, 0], expected, atol=1e-4)
        votes, told = network.head.votes(network.summarise(network.encoder(image), image), age)
    np.testing.assert_allclose(told.numpy(), weights[..., 0], atol=1e-5)
    np.testing.assert_allclose(told.numpy().sum(axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(votes.numpy(), alone, atol=1e-4)


@pytest.mark.parametrize("votes", ["mean", "attention"])
def test_other_subjects_and_another_order_of_samples_change_nothing(batch, votes):
    network, (image, age) = classifier(votes), batch
    with torch.no_grad():
        all_at_once = network(image, age)
        order = torch.tensor([2, 0, 3, 1])
        torch.testing.assert_close(network(image[order], age[order]), all_at_once[order], rtol=0, atol=1e-5)
        torch.testing.assert_close(network(image[:, [1, 2, 0]], age), all_at_once, rtol=0, atol=1e-5)
        torch.testing.assert_close(network(image[:1], age[:1]), all_at_once[:1], rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("votes", "probabilities"), [("mean", True), ("mean", False), ("majority", True), ("attention", True)]
)
def test_scaling_multiplies_the_pooled_logit_exactly(batch, votes, probabilities):
    network, (image, age) = classifier(votes, probabilities=probabilities), batch
    with torch.no_grad():
        before = network(image, age)
        network.head.scale(0.4)
        torch.testing.assert_close(network(image, age), 0.4 * before, rtol=1e-5, atol=1e-6)
        again = classifier(votes, probabilities=probabilities)
        again.load_state_dict(network.state_dict())  # the temperature is among the weights
        torch.testing.assert_close(again(image, age), 0.4 * before, rtol=1e-5, atol=1e-6)


def test_in_training_every_vote_learns_with_its_subjects_label(batch):
    network, (image, age) = classifier(dropout=0.0), batch
    label = torch.tensor([[0.0], [1], [1], [0]])
    with torch.no_grad():
        votes, _ = network.head.votes(network.summarise(network.encoder(image), image), age)
    expected = np.mean(
        [np.log1p(np.exp(-v if y else v)) for row, y in zip(votes, label.numpy(), strict=True) for v in row.numpy()]
    )
    network.freeze_encoder()  # so that batch norm stays as it is
    network.train()
    output = network(image, age)
    assert output.shape == (4, SAMPLES)
    assert VoteLoss(torch.nn.BCEWithLogitsLoss())(output, label).item() == pytest.approx(expected, rel=1e-4)
    network.eval()
    pooled = network(image, age)
    loss = torch.nn.BCEWithLogitsLoss()
    assert torch.equal(VoteLoss(loss)(pooled, label), loss(pooled, label))


@pytest.mark.parametrize("votes", ["mean", "majority", "attention"])
def test_it_can_be_scripted(batch, votes):
    network, (image, age) = classifier(votes), batch
    scripted = torch.jit.script(network)
    with torch.no_grad():
        for number in (1, 4):
            given = (image[:number], age[:number])
            torch.testing.assert_close(scripted(*given), network(*given), rtol=0, atol=1e-6)
        torch.testing.assert_close(scripted(image), network(image), rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"votes": "max"}, "votes must be one of none, mean, majority, attention, not 'max'"),
        ({"votes": None}, "votes must be one of none, mean, majority, attention, not None"),
        ({"votes": "mean", "encoder": ConvEncoder(channels=(3, 5))}, "these have one: set votes to none, or take"),
        ({"votes": "majority", "probabilities": False}, "majority is for two classes, and numbers are predicted"),
        ({"votes": "attention", "hidden": []}, "give network_def#hidden a layer, or set votes to mean"),
    ],
)
def test_what_makes_no_sense_is_one_line(options, message):
    encoder = each_sample(ConvEncoder(channels=(3, 5)), SAMPLES)
    with pytest.raises(MonaiCaeError, match=message):
        EncoderClassifier(**{"encoder": encoder, "spatial_size": (8, 8), **options})
