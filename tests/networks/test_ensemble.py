"""Several classifiers as one network."""

from __future__ import annotations

import pytest
import torch

from monai_cae.errors import MonaiCaeError
from monai_cae.networks import ConvEncoder, EncoderClassifier, Ensemble, load_weights, on_device, save_weights


def made(**changed: object) -> dict:
    return {"encoder": ConvEncoder(channels=(2, 4)), "spatial_size": (8, 8), "hidden": (3,), **changed}


@pytest.mark.parametrize("number", [False, True])
def test_the_mean_of_the_members_is_predicted(number, tmp_path):
    torch.manual_seed(0)
    singles = [EncoderClassifier(**made(number=number, covariates=("age",))).eval() for _ in range(3)]
    state = {
        f"members.{n}.{name}": one for n, single in enumerate(singles) for name, one in single.state_dict().items()
    }
    save_weights(state, tmp_path / "model.pt")
    network = Ensemble(members=3, **made(number=number, covariates=("age",)))
    network = on_device(load_weights(network, tmp_path / "model.pt"), "cpu").eval()
    images, ages = torch.rand(5, 1, 8, 8), torch.randn(5, 1)
    with torch.no_grad():
        each = torch.cat([single(images, ages) for single in singles], dim=1)
        found, scripted = network(images, ages), torch.jit.script(network)(images, ages)
    expected = each.mean(dim=1) if number else torch.logit(torch.sigmoid(each).mean(dim=1))
    assert torch.allclose(found[:, 0], expected, atol=1e-5) and torch.allclose(found, scripted, atol=1e-6)


def test_members_have_weights_of_their_own():
    network = Ensemble(members=2, **made())
    first, second = (member.encoder for member in network.members)
    assert first is not second and first.state_dict().keys() == second.state_dict().keys()


@pytest.mark.parametrize("members", [1, 101, True, 2.0])
def test_another_number_of_members_is_refused(members):
    with pytest.raises(MonaiCaeError, match="members must be a whole number from 2 to 100"):
        Ensemble(members=members, **made())
