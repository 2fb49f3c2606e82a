"""What makes runs fast changes no numbers: resident loader, augmentation, compiling, threads, sparing writes."""

from __future__ import annotations

import os
from collections import OrderedDict

import numpy as np
import pytest
import torch
from ignite.engine import Engine
from mlflow import MlflowClient
from monai.data import CacheDataset, DataLoader
from monai.transforms import Compose, EnsureTyped, RandFlipd, Transform
from scipy import ndimage

from monai_cae.errors import MonaiCaeError
from monai_cae.machine import allowed_cores
from monai_cae.networks import ConvEncoder, on_device
from monai_cae.training import (
    BatchAugmentation,
    BestCheckpoint,
    EncodedDataset,
    PrecisionInferer,
    ResidentLoader,
    TrackedRun,
    TrainingStep,
    use_machine,
)

ITEMS = [{"image": torch.full((1, 2, 2), float(n)), "label": torch.tensor([n % 2]), "name": f"S{n}"} for n in range(7)]


@pytest.fixture
def usual_machine():
    yield
    use_machine()


def equal(first: dict, second: dict) -> bool:
    return first.keys() == second.keys() and all(
        torch.equal(value, second[key]) if isinstance(value, torch.Tensor) else list(value) == list(second[key])
        for key, value in first.items()
    )


@pytest.mark.parametrize("drop_last", [True, False])
def test_resident_loader_gives_what_a_data_loader_gives_epoch_after_epoch(drop_last):
    def loader(kind):
        return kind(ITEMS, batch_size=3, shuffle=True, drop_last=drop_last, generator=torch.Generator().manual_seed(4))

    resident, plain = loader(ResidentLoader), loader(DataLoader)
    assert len(resident) == len(plain) == (2 if drop_last else 3)
    for _ in range(3):
        batches = list(zip(resident, plain, strict=True))
        assert len(batches) == len(plain)
        assert all(equal(ours, theirs) for ours, theirs in batches)


def test_resident_loader_reads_its_data_set_once():
    read = []

    class Counting(torch.utils.data.Dataset):
        def __len__(self):
            return 3

        def __getitem__(self, index):
            read.append(index)
            return ITEMS[index]

    loader = ResidentLoader(Counting(), batch_size=2)
    assert read == []
    for _ in range(3):
        list(loader)
    assert read == [0, 1, 2]


def test_resident_batches_may_be_changed_without_changing_the_data():
    loader = ResidentLoader(ITEMS, batch_size=7)
    next(iter(loader))["image"].zero_()
    assert next(iter(loader))["image"][6].max() == 6


class Brighter(Transform):
    def __call__(self, item: dict) -> dict:
        return {**item, "image": item["image"] + 1}


@pytest.mark.parametrize("kind", ["cached", "codes"])
def test_data_that_the_data_set_keeps_are_in_memory_once(kind):
    dataset = CacheDataset(ITEMS, Compose([Brighter()]), progress=False)
    if kind == "codes":
        dataset = EncodedDataset(dataset, torch.nn.Conv2d(1, 1, 1), lambda images, network: images, batch_size=2)
    loader = ResidentLoader(dataset, batch_size=3)
    batches = list(loader)
    assert len({item["image"].untyped_storage().data_ptr() for item in dataset}) == 1
    assert [item["image"].unique().tolist() for item in dataset] == [[n + 1.0] for n in range(7)]
    assert all(equal(ours, again) for ours, again in zip(batches, loader, strict=True))
    assert ITEMS[6]["image"].max() == 6


def test_data_set_that_makes_each_item_in_the_same_memory_is_copied():
    class Reusing(torch.utils.data.Dataset):
        image = torch.zeros(1, 2, 2)

        def __len__(self):
            return 3

        def __getitem__(self, index):
            return {"image": self.image.fill_(index)}

    assert [batch["image"].max() for batch in ResidentLoader(Reusing())] == [0, 1, 2]


def test_resident_loader_refuses_what_is_random_every_time():
    transform = Compose([Compose([EnsureTyped("image"), RandFlipd("image", prob=0.5)])])
    with pytest.raises(MonaiCaeError, match="RandFlipd is random"):
        ResidentLoader(CacheDataset(ITEMS, transform, progress=False))


def smooth_slices(count: int) -> torch.Tensor:
    """Off-centre ellipses in [0, 1]: smooth, so that two interpolations agree."""
    y, x = np.mgrid[:40, :32]
    one = np.exp(-(((y - 24) / 7) ** 2) - ((x - 12) / 5) ** 2)
    return torch.tensor(np.stack([one] * count)[:, None], dtype=torch.float32)


@pytest.mark.parametrize(
    ("settings", "least", "most"),
    [
        ({"rotation": 20}, 0.01, None),
        ({"scale": 0.3}, 0.01, None),
        ({"translation": 0.2}, 0.01, None),
        ({"flip": True}, 0.0, None),
        ({"gamma": 0.5}, 0.01, None),
        ({"noise": 0.1}, 0.01, None),
        ({}, 0.0, 1e-5),
    ],
    ids=["rotation", "scale", "translation", "flip", "gamma", "noise", "nothing"],
)
def test_augmentation_changes_each_slice_by_its_own_amount(settings, least, most):
    off = {"rotation": 0, "scale": 0, "translation": 0, "flip": False, "gamma": 0, "noise": 0}
    images = smooth_slices(8)
    batch = {"image": images, "label": torch.arange(8)}
    changed = BatchAugmentation(**{**off, **settings}, seed=1)(batch)
    assert changed["image"].shape == images.shape and torch.equal(changed["label"], batch["label"])
    assert changed["image"].min() >= 0 and changed["image"].max() <= 1
    difference = (changed["image"] - images).abs().amax(dim=(1, 2, 3))
    assert most is None or difference.max() <= most
    if settings == {"flip": True}:
        mirrored = images.flip(2)
        kinds = [torch.allclose(one, images[0]) + 2 * torch.allclose(one, mirrored[0]) for one in changed["image"]]
        assert set(kinds) == {1, 2}
    elif settings:
        assert difference.min() > 0 and difference.max() >= least and len(set(difference.tolist())) == 8


def test_samples_of_one_plane_move_together_and_those_of_several_each_by_itself():
    image = smooth_slices(2).repeat(1, 3, 1, 1)
    together = BatchAugmentation(planes=["coronal"] * 3)({"image": image})["image"]
    assert torch.equal(together[:, 0], together[:, 1]) and torch.equal(together[:, 0], together[:, 2])
    assert torch.equal(together, BatchAugmentation()({"image": image})["image"])
    apart = BatchAugmentation(planes=["axial", "coronal", "sagittal"])({"image": image})["image"]
    assert apart.shape == image.shape and not torch.allclose(apart[:, 0], apart[:, 1], atol=1e-3)


def test_sagittal_slices_are_not_mirrored_back_to_front():
    off = {"rotation": 0, "scale": 0, "translation": 0, "gamma": 0}
    image = smooth_slices(8).repeat(1, 3, 1, 1)
    moved = BatchAugmentation(planes=["axial", "coronal", "sagittal"], **off)({"image": image})["image"]
    same = [(moved[:, k] - image[:, k]).abs().amax(dim=(1, 2)) < 1e-5 for k in range(3)]
    assert same[2].all() and 0 < same[0].sum() < 8 and 0 < same[1].sum() < 8
    alone = BatchAugmentation(planes=["sagittal"], **off)({"image": image})["image"]
    torch.testing.assert_close(alone, image, rtol=0, atol=1e-5)


def test_rotation_is_a_rotation_on_an_image_that_is_not_square():
    images = smooth_slices(6)
    augmentation = BatchAugmentation(rotation=30, scale=0, translation=0, flip=False, gamma=0)
    turned = augmentation({"image": images})["image"].numpy()[:, 0]
    degrees = np.arange(-30, 30.1, 0.5)
    candidates = [ndimage.rotate(images[0, 0].numpy(), angle, reshape=False, order=1) for angle in degrees]
    for one in turned:
        errors = [np.abs(one - candidate).max() for candidate in candidates]
        assert min(errors) < 0.05
    assert len({int(np.argmin([np.abs(one - c).max() for c in candidates])) for one in turned}) > 3


def test_volumes_turn_about_three_axes_and_are_mirrored_left_to_right():
    """What is beside the middle keeps its distance from it."""
    axes = [torch.linspace(-1, 1, size) for size in (20, 16, 24)]
    x, y, z = torch.meshgrid(*axes, indexing="ij")
    volume = torch.exp(-6 * ((x - 0.3) ** 2 + (y + 0.2) ** 2 + (0.6 * z - 0.1) ** 2)).repeat(6, 2, 1, 1, 1)
    off = {"rotation": 0, "scale": 0, "translation": 0, "flip": False, "gamma": 0}
    mirrored = BatchAugmentation(**{**off, "flip": True})({"image": volume})["image"]
    kinds = [
        torch.allclose(one, volume[0], atol=1e-5) + 2 * torch.allclose(one, volume[0].flip(1), atol=1e-5)
        for one in mirrored
    ]
    assert set(kinds) == {1, 2}
    turned = BatchAugmentation(**{**off, "rotation": 20})({"image": volume})["image"]
    assert torch.equal(turned[:, 0], turned[:, 1])  # the samples of a head turn together
    places = np.indices(volume.shape[2:]).reshape(3, -1) - np.array([[9.5], [7.5], [11.5]])

    def middle(image):
        weights = image.double().numpy().ravel()
        return places @ weights / weights.sum()

    before, lengths = middle(volume[0, 0]), []
    for one in turned[:, 0]:
        after = middle(one)
        lengths.append(np.abs(after - before))
        assert np.linalg.norm(after) == pytest.approx(np.linalg.norm(before), abs=0.15)  # voxels are cubes
    assert (np.max(lengths, axis=0) > 0.2).all()  # along every axis
    moved = BatchAugmentation(seed=2)({"image": volume})["image"]
    assert moved.shape == volume.shape and moved.min() >= 0 and moved.max() <= 1


def test_same_seed_same_augmentation_and_the_global_generator_stays():
    state = torch.random.get_rng_state()
    first, second = (BatchAugmentation(noise=0.1, seed=3)({"image": smooth_slices(4)})["image"] for _ in range(2))
    other = BatchAugmentation(noise=0.1, seed=4)({"image": smooth_slices(4)})["image"]
    assert torch.equal(first, second) and not torch.equal(first, other)
    assert torch.equal(state, torch.random.get_rng_state())


@pytest.mark.parametrize(("name", "value"), [("rotation", -1), ("scale", 1.0), ("gamma", 1.5), ("noise", -0.1)])
def test_augmentation_refuses_impossible_amounts(name, value):
    with pytest.raises(MonaiCaeError, match=f"augmentation's {name} .*{value}"):
        BatchAugmentation(**{name: value})


def test_compiled_inferer_calls_the_same_network(monkeypatch):
    compiled = []

    def compiler(network, **options):
        compiled.append((network, options))
        return network

    monkeypatch.setattr(torch, "compile", compiler)
    network = torch.nn.Conv2d(1, 2, 3)
    image = torch.rand(2, 1, 8, 8)
    inferer = PrecisionInferer("float32", compile="inductor")
    assert torch.equal(inferer(image, network), inferer(image, network))
    assert torch.equal(inferer(image, network), PrecisionInferer("float32")(image, network))
    assert [network for network, _ in compiled] == [network]
    assert list(network.state_dict()) == ["weight", "bias"]


@pytest.mark.parametrize("compile", ["auto", "graph", "off"])
def test_nothing_else_compiles(monkeypatch, compile):
    monkeypatch.setattr(torch, "compile", None)
    assert PrecisionInferer(compile=compile)(torch.rand(1, 1, 4, 4), torch.nn.Conv2d(1, 1, 1)).shape == (1, 1, 4, 4)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("fast", "compile must be one of auto, graph, inductor, off, not 'fast'"),
        (True, "compile true is called inductor now: give --compile inductor$"),
        ("false", "compile false is called off now: give --compile off, in a YAML file with quotes"),
    ],
)
def test_another_compile_is_refused(value, message):
    for part in (PrecisionInferer, TrainingStep):
        with pytest.raises(MonaiCaeError, match=message):
            part(compile=value)


def test_weights_are_in_channels_last_order(monkeypatch):
    asked = []
    monkeypatch.setattr(torch.nn.Module, "to", lambda self, device, memory_format: asked.append(memory_format))
    for dims, device in ((2, "cpu"), (2, "cuda"), (3, "cpu"), (3, "cuda:1")):
        on_device(torch.nn.Sequential(OrderedDict(encoder=ConvEncoder(dims, channels=[2]))), device)
    assert asked == [torch.channels_last] * 2 + [torch.channels_last_3d] * 2


@pytest.mark.parametrize("dims", [2, 3])
def test_images_are_computed_in_channels_last_order(dims):
    """A grey image is in either order at once, so the network's first output is looked at."""
    network = on_device(torch.nn.Sequential(OrderedDict(encoder=ConvEncoder(dims, channels=[3, 4]))), "cpu")
    found = []
    network.encoder.blocks[0].register_forward_hook(lambda module, given, output: found.append(output))
    PrecisionInferer("float32")(torch.rand(2, 1, *[8] * dims), network)
    order = torch.channels_last if dims == 2 else torch.channels_last_3d
    assert found[0].is_contiguous(memory_format=order) and not found[0].is_contiguous()


@pytest.mark.parametrize(
    ("sides", "channels", "half"), [((12, 16, 12), [2, 2, 2], True), ((8, 16, 16), [2, 2, 2], False)]
)
def test_volumes_with_flat_codes_are_computed_in_float32(monkeypatch, sides, channels, half):
    """Of 2 places along an axis, PyTorch 2.13's bfloat16 gradients of 3 x 3 x 3 kernels are wrong on some CPUs."""
    network = torch.nn.Sequential(OrderedDict(encoder=ConvEncoder(3, channels=channels)))
    kinds = []
    network.register_forward_hook(lambda module, inputs, output: kinds.append(output.dtype))
    for precision in ("bfloat16", "float32"):
        PrecisionInferer(precision)(torch.rand(2, 1, *sides), network)
    assert kinds == [torch.bfloat16 if half else torch.float32, torch.float32]


@pytest.mark.usefixtures("usual_machine")
def test_threads_and_determinism_are_set_and_taken_back():
    use_machine(threads=1, deterministic=True)
    assert torch.get_num_threads() == 1
    assert torch.are_deterministic_algorithms_enabled()
    assert torch.backends.cudnn.deterministic and not torch.backends.cudnn.benchmark
    assert not torch.backends.cudnn.allow_tf32
    use_machine()
    assert torch.get_num_threads() == min(len(os.sched_getaffinity(0)), torch.get_num_threads())
    assert not torch.are_deterministic_algorithms_enabled()
    assert torch.backends.cudnn.benchmark and not torch.backends.cudnn.deterministic
    assert not torch.backends.cudnn.allow_tf32


def test_seed_decides_the_global_generators():
    drawn = []
    for seed in (5, 5, 6):
        use_machine(seed=seed)
        drawn.append((torch.rand(1).item(), np.random.rand()))  # noqa: NPY002  # what is tested
    assert drawn[0] == drawn[1] != drawn[2]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"threads": -1}, "threads must be a whole number, 1 or more, or 0 .* not -1"),
        ({"threads": True}, "threads must be a whole number"),
        ({"deterministic": "yes"}, "deterministic must be true or false, not 'yes'"),
    ],
)
def test_impossible_machine_settings(settings, message):
    with pytest.raises(MonaiCaeError, match=message):
        use_machine(**settings)


@pytest.mark.parametrize(
    ("content", "cores"),
    [("150000 100000", 2), ("50000 100000", 1), ("10000 100000", 1), ("max 100000", 64), (None, 64), ("odd", 64)],
)
def test_cores_of_a_container_are_its_quota(tmp_path, monkeypatch, content, cores):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)))
    if content is not None:
        (tmp_path / "cpu.max").write_text(content + "\n")
    assert allowed_cores(tmp_path) == cores


def test_best_weights_are_written_late_and_restored(tmp_path):
    network = torch.nn.BatchNorm1d(1)
    keep = BestCheckpoint(network, tmp_path / "best.pt", "val_loss", trained_on=["b", "a"], every=3600)
    validator = Engine(lambda *_: None)
    for value, loss in ((1.0, 3.0), (2.0, 1.0), (3.0, 2.0)):
        torch.nn.init.constant_(network.weight, value)
        validator.state.metrics = {"val_loss": loss}
        keep(validator)
        assert not (tmp_path / "best.pt").exists()  # nor in the first epoch
    keep.restore()
    state = torch.load(tmp_path / "best.pt", weights_only=True)
    assert network.weight.item() == state["weight"].item() == 2.0
    assert state._metadata["monai_cae"] == {"subjects": ["a", "b"], "monai_cae_format": 1} and state._metadata[""] == {
        "version": 2
    }
    (tmp_path / "best.pt").unlink()
    keep.write()
    assert not (tmp_path / "best.pt").exists()
    keep.every = 0
    for value, loss in ((4.0, 0.5), (5.0, 0.6)):
        torch.nn.init.constant_(network.weight, value)
        validator.state.metrics = {"val_loss": loss}
        keep(validator)
        assert torch.load(tmp_path / "best.pt", weights_only=True)["weight"].item() == 4.0


def test_metrics_reach_mlflow_in_few_requests_and_none_is_lost_in_a_crash(tracking_uri, monkeypatch):
    requests = []
    send = MlflowClient.log_batch

    def counting(self, run_id, metrics=(), **more):
        requests.append(len(metrics))
        return send(self, run_id, metrics=metrics, **more)

    run = TrackedRun(tracking_uri=tracking_uri, experiment_name="speed", stage="many")
    with pytest.raises(ValueError, match="crash"), run:  # noqa: PT012
        monkeypatch.setattr(MlflowClient, "log_batch", counting)
        for epoch in range(1, 1203):
            run.log_metrics({"loss": 1 / epoch}, step=epoch)
        raise ValueError("crash")
    history = MlflowClient(tracking_uri).get_metric_history(run.run_id, "loss")
    assert {metric.step: metric.value for metric in history} == {n: pytest.approx(1 / n) for n in range(1, 1203)}
    assert len(requests) <= 6 and max(requests) <= 1000
