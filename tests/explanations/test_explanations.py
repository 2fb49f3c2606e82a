"""Maps, the tests of maps, and their figures, on networks whose answer is known."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from brain_volume import BrainVolume
from torch import nn

from monai_cae.data import PatchesExtraction, PlanesExtraction, SliceExtraction, VolumeExtraction
from monai_cae.errors import MonaiCaeError
from monai_cae.evaluation.explanation_figures import Mapped, explanation_grid
from monai_cae.evaluation.style import save_figure
from monai_cae.explanations import METHODS, Decoded, Explained, Occlusion, Score, Subject, check
from monai_cae.explanations.checks import randomised
from monai_cae.explanations.groups import difference
from monai_cae.networks import ConvAutoencoder, ConvDecoder, ConvEncoder, EncoderClassifier, each_sample
from monai_cae.targets import Diagnosis

SIDE = 24
LESION = (slice(6, 12), slice(8, 14))

pytestmark = pytest.mark.usefixtures("drawn")


def infer(images: torch.Tensor, network: nn.Module) -> Any:
    return network(images)


class Linear(nn.Module):
    """A weighted sum of the image's values; with `bends`, of their squares on one side."""

    def __init__(self, weights: torch.Tensor) -> None:
        super().__init__()
        self.layer = nn.Linear(weights.numel(), 1)
        self.layer.weight.data = weights.reshape(1, -1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.layer(images.flatten(1))


def subject_of(network: nn.Module, image: torch.Tensor, reference: torch.Tensor, samples: int = 1) -> Subject:
    box = tuple(slice(0, size) for size in image.shape[2:])
    return Subject(Score(network.eval(), infer), image, reference, box, samples)


def cohort(count: int, shape: tuple[int, ...] = (1, SIDE, SIDE), lesion: tuple[slice, ...] = LESION) -> torch.Tensor:
    """Noise in a black frame; every second image is darker in the lesion."""
    images = torch.zeros(count, *shape)
    inside = (slice(None), slice(None), *(slice(2, -2) for _ in shape[1:]))
    images[inside] = torch.rand(images[inside].shape, generator=torch.Generator().manual_seed(0)) / 2 + 0.5
    images[(slice(1, None, 2), slice(None), *lesion)] *= 0.3
    return images


def outcome_of(network: nn.Module, images: torch.Tensor, extraction: Any, **changed: Any) -> Any:
    labels = np.arange(len(images)) % 2
    with torch.no_grad():
        predicted = torch.sigmoid(network.eval()(images)).flatten().numpy()
    rows = pd.DataFrame({"subject": [f"s{n}" for n in range(len(images))], "label": labels, "probability": predicted})
    given = {"network": network, "infer": infer, "extraction": extraction, "predictions": rows, "target": Diagnosis()}
    given |= {"dataset": [{"image": image} for image in images], "threshold": 0.5, "note": ""}
    return SimpleNamespace(**{**given, **changed})


@pytest.fixture(scope="module")
def trained() -> nn.Module:
    """It tells images with the lesion from those without."""
    torch.manual_seed(0)
    network = EncoderClassifier(encoder=ConvEncoder(channels=(4, 8)), spatial_size=(SIDE, SIDE), hidden=(8,))
    images, labels = cohort(24), (torch.arange(24) % 2)[:, None].float()
    optimizer = torch.optim.Adam(network.parameters(), 3e-3)
    for _ in range(40):
        optimizer.zero_grad()
        nn.functional.binary_cross_entropy_with_logits(network(images), labels).backward()
        optimizer.step()
    return network.eval()


def test_occlusion_is_what_a_square_adds_and_of_a_linear_network_no_more():
    weights, image, reference = torch.zeros(12, 12), torch.rand(1, 1, 12, 12), torch.rand(1, 1, 12, 12)
    weights[5, 6] = 2.0
    found = Occlusion(patch=3)(subject_of(Linear(weights), image, reference), 0)
    assert found.shape == (1, 12, 12)
    assert found[0, 5, 6] == pytest.approx(2 * float(image[0, 0, 5, 6] - reference[0, 0, 5, 6]), rel=1e-4)
    assert found[0, 5:7, 6].ne(0).all() and not found[0, 9:].any() and not found[0, :, :3].any()


@pytest.mark.parametrize(("box", "samples", "places"), [((140, 176), 1, 60), ((70, 88, 70), 1, 40), ((40, 40), 3, 7)])
def test_squares_grow_until_they_are_few_enough(box, samples, places):
    calls = []

    class Counted(nn.Module):
        def forward(self, images):
            calls.append(len(images))
            return images.flatten(1)[:, :1]

    image = torch.rand(1, samples, *box)
    Occlusion(8, places)(subject_of(Counted(), image, torch.zeros_like(image), samples), 0)
    assert places / 3 <= sum(calls) - 1 <= places  # and once the image itself


def test_gradients_of_a_linear_network_are_its_weights():
    weights, image, reference = torch.randn(12, 12), torch.rand(1, 1, 12, 12), torch.zeros(1, 1, 12, 12)
    subject = subject_of(Linear(weights), image, reference)
    smooth, plain = METHODS["smooth_gradient"](subject, 3), METHODS["gradient"](subject, 3)
    assert torch.allclose(smooth, plain, atol=1e-5)  # the slope is the same everywhere
    middle = torch.zeros(12, 12)
    middle[6, 6] = 1.0
    kept = METHODS["gradient"](subject_of(Linear(middle), image, reference), 0)  # smoothed, but nothing is lost
    assert float(kept.sum()) == pytest.approx(float(image[0, 0, 6, 6]), rel=0.02)


@pytest.mark.parametrize(("pooling", "votes"), [(1, "none"), (0, "none"), (1, "mean")])
def test_the_exact_map_adds_up_to_the_output(pooling, votes):
    torch.manual_seed(1)
    encoder = each_sample(ConvEncoder(channels=(4, 8)), 3) if votes == "mean" else ConvEncoder(channels=(4, 8))
    network = EncoderClassifier(encoder=encoder, spatial_size=(16, 16), hidden=(), pooling=pooling, votes=votes).eval()
    channels = 3 if votes == "mean" else 1
    image, reference = torch.rand(2, 1, channels, 16, 16)
    found = METHODS["exact"](subject_of(network, image, reference, channels), 0)
    assert found.shape == (channels, 16, 16)

    def output(images):
        if votes == "none":
            return network(images)
        return network.head.votes(network.summarise(network.encoder(images), images))[0].mean()

    assert float(found.sum()) == pytest.approx(float((output(image) - output(reference)).detach()), rel=1e-3)


def test_grad_cam_is_signed_and_leaves_no_hooks(trained):
    images = cohort(4)
    before = [len(one._forward_hooks) + len(one._backward_hooks) for one in trained.modules()]
    weights = {name: one.requires_grad for name, one in trained.named_parameters()}
    found = METHODS["grad_cam"](subject_of(trained, images[1:2], images.mean(0, keepdim=True)), 0)
    code = trained.encoder(images[1:2]).detach().requires_grad_()
    (slope,) = torch.autograd.grad(trained.head(trained.pool(code).flatten(1)), code)
    expected = (slope.mean(dim=(2, 3), keepdim=True) * code).sum(dim=1, keepdim=True)
    expected = nn.functional.interpolate(expected, size=(SIDE, SIDE), mode="bilinear", align_corners=False)
    assert torch.allclose(found, expected[0].detach(), atol=1e-5) and found.min() < 0 < found.max()
    assert before == [len(one._forward_hooks) + len(one._backward_hooks) for one in trained.modules()]
    assert weights == {name: one.requires_grad for name, one in trained.named_parameters()}
    torch.jit.script(trained)


def test_a_map_that_does_not_depend_on_the_network_or_on_the_image_fails(trained):
    images, labels = cohort(12), (np.arange(12) % 2).astype(float)
    subjects = [subject_of(trained, one[None], images.mean(0, keepdim=True)) for one in images[1:4]]

    def edges(subject: Subject, seed: int) -> torch.Tensor:
        return subject.image[0] - subject.reference[0]

    def dice(subject: Subject, seed: int) -> torch.Tensor:
        return torch.rand(subject.image[0].shape, generator=torch.Generator().manual_seed(seed))

    def turned(subject: Subject, seed: int) -> torch.Tensor:  # by chance, as the sign of a random network's output
        return edges(subject, seed) * (1 if subject.score.network is trained else -1)

    failed = {}
    for method in (edges, turned, dice, Occlusion(4)):
        checks = check(method, subjects, [method(one, 0) for one in subjects], images, labels, 0)
        failed[getattr(method, "__name__", "occlusion")] = {one.test for one in checks if one.passed is False}
    assert failed["edges"] >= {"weights 4/4", "labels"} and "weights 4/4" in failed["turned"]
    assert failed["dice"] >= {"deletion", "insertion", "repeat"}
    assert not failed["occlusion"]


def test_weights_become_random_from_the_last_module_on(trained):
    before = {name: one.clone() for name, one in trained.named_parameters()}
    same = []
    for network in randomised(trained, 0):
        same.append([name for name, one in network.named_parameters() if torch.equal(one, before[name])])
    assert {name.split(".")[0] for name in before.keys() - set(same[0])} == {"head", "encoder"}
    assert "encoder.blocks.0.0.weight" in same[2] and not [name for name in same[3] if name.endswith("0.weight")]
    assert all(torch.equal(one, before[name]) for name, one in trained.named_parameters())


def test_a_difference_between_groups_is_found_where_it_is():
    rng = np.random.default_rng(0)
    maps = rng.normal(size=(24, 300)).astype(np.float32)
    groups = np.arange(24) % 2 == 1
    maps[groups, 100:110] += 3
    found, sure = difference(maps, groups, rng)
    assert np.allclose(found, maps[1::2].mean(0) - maps[::2].mean(0), atol=1e-5)
    assert sure[100:110].all() and sure.sum() == 10
    hits = [difference(rng.normal(size=(12, 50)).astype(np.float32), groups[:12], rng)[1].any() for _ in range(60)]
    assert sum(hits) <= 8  # 3 are expected, 9 or more in 1 of 270 times
    assert difference(maps[:3], groups[:3], rng)[1] is None


def test_test_scans_are_explained(trained, tmp_path):
    made = Explained("occlusion", patch=4, passes=4000, seed=1)(outcome_of(trained, cohort(12), SliceExtraction()))
    assert list(made) == ["", "groups", "tests", "maps"]
    assert list(made["tests"]["result"][3:]) == ["passed"] * 5
    heads = [text for figure in (made[""], made["groups"]) for text in figure.get_suptitle().splitlines()]
    assert "12 of 12 test scans, occlusion of 4 x 4 pixels" in heads and "tests on 3 scans: all passed" in heads
    titles = [axis.get_title() for axis in made[""].axes]
    assert sum("AD, probability" in title for title in titles) == 4 == sum("HC, probability" in one for one in titles)
    found = Explained("occlusion", patch=4, passes=4000).maps(outcome_of(trained, cohort(12), SliceExtraction()))
    for one in found.maps[1::2]:  # patients
        place = np.unravel_index(int(one[0].argmax()), (SIDE, SIDE))
        assert all(part.start - 2 <= n < part.stop + 2 for n, part in zip(place, LESION, strict=True))
    assert save_figure(made["groups"], tmp_path / "groups.png").stat().st_size > 10_000


@pytest.mark.parametrize("number", [False, True])
def test_who_is_misclassified_is_explained_beside_those_chosen_by_label_alone(number):
    """Of 24 subjects 8 are explained, at least half of them chosen without regard to what was predicted."""
    labels = np.arange(24) % 2
    far_off = ["s3", "s10", "s17"]
    predicted = np.where(np.isin(np.arange(24), [3, 10, 17]), 1 - labels, labels) * 0.8 + 0.1
    rows = pd.DataFrame({"subject": [f"s{n}" for n in range(24)], "label": labels, "probability": predicted})
    changed: dict[str, Any] = {"predictions": rows}
    if number:
        changed = {"target": BrainVolume(0.7, 0.1), "predictions": rows.rename(columns={"probability": "nwbv"})}
    made = Explained("gradient", scans=8)
    shown = made(outcome_of(Linear(torch.ones(SIDE, SIDE)), cohort(24), SliceExtraction(), **changed))
    cases = made.maps(outcome_of(Linear(torch.ones(SIDE, SIDE)), cohort(24), SliceExtraction(), **changed)).cases.rows
    drawn = cases[cases["drawn"]]
    assert len(cases) == 8 and 4 <= len(drawn) < 8
    assert set(cases["subject"]) >= set(far_off[: 2 if number else 3]) - (set() if not number else {*far_off})
    assert (~cases["drawn"]).sum() == len(set(cases["subject"]) & set(far_off) - set(drawn["subject"]))
    if not number:
        assert abs(int(drawn["label"].sum()) - len(drawn) / 2) <= 0.5
    pictures = shown["maps"]
    assert list(pictures["subjects"]) == list(cases["subject"]) and pictures["pictures"].shape == (8, 24, 24, 3)
    told = "farthest off" if number else "misclassified"
    assert f"({len(cases) - len(drawn)} of them as they were {told})" in shown[""].get_suptitle().replace("\n", " ")


def test_a_map_compares_with_the_mean_of_all_test_scans_however_few_are_explained():
    """Of a network that adds up its pixels the gradient's map adds up to how much more the scan has than the mean."""
    images = cohort(6)
    made = Explained("gradient", scans=1).maps(outcome_of(Linear(torch.ones(SIDE, SIDE)), images, SliceExtraction()))
    (index,) = made.cases.rows.index
    assert float(made.maps[0].sum()) == pytest.approx(float((images[index] - images.mean(0)).sum()), rel=0.02)
    assert abs(float(made.maps[0].sum())) > 0.1


@pytest.mark.parametrize(("side", "words"), [(SIDE, 18), (SIDE // 4, 18)])
def test_failed_fits_into_its_map(side, words, tmp_path):
    tile = Mapped(np.ones((4 * side, side)), np.ones((4 * side, side)), "a\nb")  # wide and low
    figure = explanation_grid({"": [tile]}, ("less", "more"), failed="weights, labels, deletion, insertion, repeat")
    save_figure(figure, tmp_path / "one.png")
    axis = figure.axes[0]
    text, room = axis.texts[0].get_window_extent(), axis.get_window_extent()
    assert room.x0 <= text.x0 and text.x1 <= room.x1 and room.y0 <= text.y0 and text.y1 <= room.y1


def test_what_fails_is_marked(trained):
    made = Explained(lambda subject, seed: subject.image[0])(outcome_of(trained, cohort(8), SliceExtraction()))
    marks = [text.get_text() for axis in made[""].axes for text in axis.texts]
    assert len(marks) == 8 and all(mark.startswith("FAILED\nweights, labels") for mark in marks)
    assert "FAILED" in set(made["tests"]["result"]) and "FAILED weights" in made["groups"].get_suptitle()


@pytest.mark.parametrize("kind", ["volume", "patches", "planes", "number", "one class", "script"])
def test_other_extractions_networks_and_cohorts(trained, kind):
    torch.manual_seed(0)
    flat = {"spatial_size": (SIDE, SIDE), "hidden": (4,)}
    network, images, extraction, changed = trained, cohort(6), SliceExtraction(), {}
    if kind == "volume":
        images, extraction = cohort(4, (1, 12, 12, 12), (slice(3, 6),) * 3), VolumeExtraction(4.0, 12)
        network = EncoderClassifier(encoder=ConvEncoder(3, channels=(2, 4)), spatial_size=(12, 12, 12), hidden=(4,))
    elif kind == "patches":
        extraction = PatchesExtraction(size=24, patch=11, step=13)
        images = cohort(3, (extraction.samples, 11, 11, 11), (slice(3, 6),) * 3)
        encoder = each_sample(ConvEncoder(3, channels=(2, 4)), extraction.samples)
        network = EncoderClassifier(encoder=encoder, spatial_size=(11, 11, 11), hidden=(4,), votes="mean")
    elif kind == "planes":
        images, extraction = cohort(4, (3, SIDE, SIDE)), PlanesExtraction()
        network = EncoderClassifier(encoder=each_sample(ConvEncoder(channels=(2, 4)), 3), votes="attention", **flat)
    elif kind == "number":
        rows = pd.DataFrame({"subject": list("aabcde"), "label": [0.7, 0.71, 0.8, 0.6, 0.9, 0.75], "nwbv": 0.7})
        changed = {"target": BrainVolume(0.7, 0.1), "predictions": rows}
    elif kind == "one class":
        images = images[::2]
    else:
        network = torch.jit.script(trained)
    outcome = outcome_of(network, images, extraction, **changed)
    if kind == "one class":
        outcome.predictions["label"] = 0
    for method in ("occlusion", "gradient", *(("grad_cam",) if kind != "script" else ())):
        made = Explained(method, passes=400)(outcome)
        titles = [axis.get_title() for axis in made["groups"].axes]
        assert any(" less " in title for title in titles) == (kind != "one class")
        results = dict(zip(made["tests"]["test"], made["tests"]["result"], strict=True))
        assert (results["labels"] == "not tested") == (
            kind in ("one class", "script", "patches")  # no labels to permute, no layer to fit, three scans
        )


def test_one_scan_and_a_wrong_map_are_refused(trained):
    with pytest.raises(MonaiCaeError, match="with the mean of the test scans, and there are 1"):
        Explained()(outcome_of(trained, cohort(1), SliceExtraction()))
    with pytest.raises(MonaiCaeError, match=r"must give a tensor of shape \(1, 24, 24\), not \(24, 24\)"):
        Explained(lambda subject, seed: subject.image[0, 0])(outcome_of(trained, cohort(2), SliceExtraction()))


class Detached(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(1, 1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.layer(images.detach().mean(dim=(1, 2, 3))[:, None]).detach()


@pytest.mark.parametrize(
    ("method", "network", "message"),
    [
        ("gradient", Detached(), "Detached has no gradient at the image: take method occlusion"),
        ("guided", Detached(), "with nn.ReLU, and the network has none: take method occlusion"),
        ("grad_cam", Linear(torch.ones(SIDE, SIDE)), "an encoder's code, and the network has none"),
        ("exact", None, "a linear probe's, and this network is none: take method occlusion, or set network_def#hidden"),
        ("occlusion", nn.Sequential(nn.Flatten(), nn.Linear(SIDE * SIDE, 2)), "and the network gives \\(1, 2\\)"),
    ],
)
def test_what_can_not_be_explained_is_said_in_one_line(trained, method, network, message):
    outcome = outcome_of(trained, cohort(4), SliceExtraction())
    outcome.network = outcome.network if network is None else network
    with pytest.raises(MonaiCaeError, match=message) as raised:
        Explained(method)(outcome)
    assert len(str(raised.value).splitlines()) == 1


@pytest.mark.parametrize("given", [{"method": "ocluson"}, {"passes": 0}, {"patch": float("nan")}, {"scans": True},
                                   {"scans": 1.5}, {"seed": -1}])  # fmt: skip
def test_wrong_settings_are_refused(given):
    with pytest.raises(MonaiCaeError, match=f"{next(iter(given))}.* must be"):
        Explained(**given)


def test_the_decoder_draws_what_goes_with_the_output():
    torch.manual_seed(0)
    model = ConvAutoencoder(encoder=ConvEncoder(channels=(4, 8)), decoder=ConvDecoder(channels=(4, 8)))
    images = cohort(8)
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    for _ in range(60):
        optimizer.zero_grad()
        nn.functional.mse_loss(model(images), images).backward()
        optimizer.step()
    weights = torch.zeros(SIDE, SIDE)
    weights[LESION] = -1.0  # darker there, higher the output
    figure = Decoded(model)(outcome_of(Linear(weights), images, SliceExtraction()))
    change = np.asarray(figure.axes[3].images[0].get_array()).T
    assert change[LESION].mean() < 5 * change.mean() < 0
    assert Decoded(model)(outcome_of(Linear(weights * 0), images, SliceExtraction())) is None
    with pytest.raises(MonaiCaeError, match="has no encoder and decoder"):
        Decoded(nn.Identity())(outcome_of(Linear(weights), images, SliceExtraction()))
