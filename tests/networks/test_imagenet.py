"""ResNet50 and VGG16 against their published sizes, and against forward passes written here from a state dict."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch.nn import functional as F

from monai_cae.errors import MonaiCaeError
from monai_cae.networks import EncoderClassifier, ResNet50Encoder, VGG16Encoder

State = dict[str, torch.Tensor]
ENCODERS = (ResNet50Encoder, VGG16Encoder)
# Where torchvision's `vgg16().features` has its convolutions, and their channels.
VGG16 = {0: (3, 64), 2: (64, 64), 5: (64, 128), 7: (128, 128), 10: (128, 256), 12: (256, 256), 14: (256, 256),
         17: (256, 512), 19: (512, 512), 21: (512, 512), 24: (512, 512), 26: (512, 512), 28: (512, 512)}  # fmt: skip
RESNET50 = {1: (3, 64), 2: (4, 128), 3: (6, 256), 4: (3, 512)}  # stage: blocks, width


def vgg16_state() -> State:
    """As torchvision's file has it: a convolution's weights keep the size of what goes through."""
    draw = torch.Generator().manual_seed(0)
    state = {}
    for index, (inputs, outputs) in VGG16.items():
        scale = (2 / (9 * inputs)) ** 0.5
        state[f"features.{index}.weight"] = torch.randn(outputs, inputs, 3, 3, generator=draw) * scale
        state[f"features.{index}.bias"] = torch.randn(outputs, generator=draw) / 10
    return state | {"classifier.6.weight": torch.zeros(1000, 8), "classifier.6.bias": torch.zeros(1000)}


def vgg16_forward(state: State, x: torch.Tensor) -> torch.Tensor:
    for index in range(31):
        if f"features.{index}.weight" in state:
            x = F.conv2d(x, state[f"features.{index}.weight"], state[f"features.{index}.bias"], padding=1).relu()
        elif index in (4, 9, 16, 23, 30):
            x = F.max_pool2d(x, 2, 2)
    return x


def resnet50_state() -> State:
    """As torchvision's older file has it, without num_batches_tracked; the statistics of batch norm are random too."""
    draw = torch.Generator().manual_seed(0)
    state: State = {}

    def add(conv: str, norm: str, outputs: int, inputs: int, size: int) -> None:
        scale = (2 / (size * size * inputs)) ** 0.5
        state[f"{conv}.weight"] = torch.randn(outputs, inputs, size, size, generator=draw) * scale
        for name in ("weight", "bias", "running_mean", "running_var"):
            middle = 1.0 if name in ("weight", "running_var") else 0.0
            state[f"{norm}.{name}"] = middle + torch.rand(outputs, generator=draw) / 2 - 0.25

    add("conv1", "bn1", 64, 3, 7)
    inputs = 64
    for stage, (blocks, width) in RESNET50.items():
        for block in range(blocks):
            name = f"layer{stage}.{block}"
            add(f"{name}.conv1", f"{name}.bn1", width, inputs, 1)
            add(f"{name}.conv2", f"{name}.bn2", width, width, 3)
            add(f"{name}.conv3", f"{name}.bn3", 4 * width, width, 1)
            if block == 0:
                add(f"{name}.downsample.0", f"{name}.downsample.1", 4 * width, inputs, 1)
            inputs = 4 * width
    return state | {"fc.weight": torch.zeros(1000, 2048), "fc.bias": torch.zeros(1000)}


def resnet50_forward(state: State, x: torch.Tensor) -> torch.Tensor:
    def norm(x: torch.Tensor, name: str) -> torch.Tensor:
        part = {key: state[f"{name}.{key}"] for key in ("running_mean", "running_var", "weight", "bias")}
        return F.batch_norm(x, **part, eps=1e-5)

    x = norm(F.conv2d(x, state["conv1.weight"], stride=2, padding=3), "bn1").relu()
    x = F.max_pool2d(x, 3, 2, padding=1)
    for stage, (blocks, _) in RESNET50.items():
        for block in range(blocks):
            name, stride = f"layer{stage}.{block}", 2 if stage > 1 and block == 0 else 1
            y = norm(F.conv2d(x, state[f"{name}.conv1.weight"]), f"{name}.bn1").relu()
            y = norm(F.conv2d(y, state[f"{name}.conv2.weight"], stride=stride, padding=1), f"{name}.bn2").relu()
            y = norm(F.conv2d(y, state[f"{name}.conv3.weight"]), f"{name}.bn3")
            if block == 0:
                x = norm(F.conv2d(x, state[f"{name}.downsample.0.weight"], stride=stride), f"{name}.downsample.1")
            x = (x + y).relu()
    return x


STATES: dict[type, tuple[Callable[[], State], Callable[[State, torch.Tensor], torch.Tensor]]] = {
    ResNet50Encoder: (resnet50_state, resnet50_forward),
    VGG16Encoder: (vgg16_state, vgg16_forward),
}


@pytest.fixture(scope="module", params=ENCODERS, ids=lambda e: e.__name__)
def pretrained(request, tmp_path_factory):
    """An encoder, a state dict as torchvision's, its file, and what it makes of a normalised image."""
    make, forward = STATES[request.param]
    state, path = make(), tmp_path_factory.mktemp("weights") / "imagenet.pth"
    torch.save(state, path)
    return request.param, state, path, forward


@pytest.mark.parametrize(("encoder", "parameters"), [(ResNet50Encoder, 23_508_032), (VGG16Encoder, 14_714_688)])
def test_parameters_are_the_published_ones(encoder, parameters):
    # 25,557,032 less 2048 * 1000 + 1000 of the dense layer; 138,357,544 less 123,642,856 of the dense layers
    assert sum(p.numel() for p in encoder(in_channels=3).parameters()) == parameters


@pytest.mark.parametrize(
    ("encoder", "size", "code"),
    [
        (ResNet50Encoder, (176, 176), (2048, 6, 6)),  # rounded up
        (VGG16Encoder, (176, 176), (512, 5, 5)),  # rounded down
        (ResNet50Encoder, (64, 32), (2048, 2, 1)),
        (VGG16Encoder, (64, 32), (512, 2, 1)),
    ],
)
def test_code_of_an_image(encoder, size, code):
    network = encoder().eval()
    assert network(torch.rand(1, 1, *size)).shape == (1, *code)
    assert network.out_channels == code[0] and network.downsampling == 32


@pytest.mark.parametrize("encoder", ENCODERS)
def test_classifier_pools_a_size_that_32_does_not_divide_and_learns(encoder):
    torch.manual_seed(0)
    network = EncoderClassifier(encoder=encoder(), spatial_size=(48, 48), hidden=[], pooling=1)
    logits = network.train()(torch.rand(2, 1, 48, 48))
    assert logits.shape == (2, 1)
    logits.sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in network.encoder.parameters())


@pytest.mark.parametrize("encoder", ENCODERS)
def test_random_start_keeps_the_signal(encoder):
    torch.manual_seed(0)
    codes = encoder().eval()(torch.rand(2, 1, 64, 64))
    assert 0.01 < codes.std() < 100


def test_features_are_those_of_the_file_on_normalised_rgb(pretrained):
    encoder, state, path, forward = pretrained
    image = torch.rand(2, 3, 80, 48, generator=torch.Generator().manual_seed(1))
    normalised = torch.stack(
        [(image[:, 0] - 0.485) / 0.229, (image[:, 1] - 0.456) / 0.224, (image[:, 2] - 0.406) / 0.225], dim=1
    )
    with torch.no_grad():
        ours = encoder(in_channels=3, weights=str(path)).eval()(image)
        theirs = forward(state, normalised)
    assert theirs.std() > 0.01
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4 * float(theirs.abs().max()))


def test_grey_image_is_an_rgb_image_of_three_equal_channels(pretrained):
    encoder, _, path, _ = pretrained
    image = torch.rand(2, 1, 48, 64)
    with torch.no_grad():
        grey = encoder(in_channels=1, weights=str(path)).eval()(image)
        rgb = encoder(in_channels=3, weights=str(path)).eval()(image.expand(-1, 3, -1, -1))
    assert torch.equal(grey, rgb)


def test_file_with_the_counters_of_batch_norm_is_read_too(tmp_path):
    network = ResNet50Encoder(in_channels=3)
    network.bn1.num_batches_tracked += 7
    torch.save(network.state_dict() | {"fc.weight": torch.zeros(2, 2048)}, tmp_path / "resnet50.pth")
    read = ResNet50Encoder(weights=str(tmp_path / "resnet50.pth"))
    assert int(read.bn1.num_batches_tracked) == 7 and torch.equal(read.conv1.weight, network.conv1.weight)


def test_state_dict_with_weights_has_the_names_of_the_file_alone(pretrained):
    encoder, state, path, _ = pretrained
    names = {name for name in encoder(weights=str(path)).state_dict() if not name.endswith("num_batches_tracked")}
    assert names == {name for name in state if not name.startswith(("fc.", "classifier."))}


def test_torchscript_agrees(pretrained):
    encoder, _, path, _ = pretrained
    image = torch.rand(1, 1, 48, 48)
    for network in (encoder().eval(), encoder(weights=str(path)).eval()):
        assert torch.equal(torch.jit.script(network)(image), network(image))


def without(state: State, name: str) -> State:
    return {key: value for key, value in state.items() if key != name}


BAD = {
    "missing-file": (ResNet50Encoder, None, "no ImageNet weights at"),
    "garbage": (VGG16Encoder, b"not a checkpoint", "not a PyTorch checkpoint"),
    "no-weights": (ResNet50Encoder, {"epoch": 3}, "something other than one network's weights"),
    "a-list": (ResNet50Encoder, [1, 2], "something other than one network's weights"),
    "missing-resnet": (
        ResNet50Encoder,
        lambda: without(resnet50_state(), "layer1.0.downsample.0.weight"),
        r"layer1\.0\.downsample\.0\.weight is missing",
    ),
    "missing-vgg": (VGG16Encoder, lambda: without(vgg16_state(), "features.28.bias"), r"features\.28\.bias is missing"),
    "unknown": (
        VGG16Encoder,
        lambda: vgg16_state() | {"features.31.weight": torch.zeros(1)},
        r"features\.31\.weight is unknown",
    ),
    "shape": (
        ResNet50Encoder,
        lambda: resnet50_state() | {"conv1.weight": torch.zeros(64, 1, 7, 7)},
        r"conv1\.weight is \(64, 1, 7, 7\) in the file, \(64, 3, 7, 7\) here",
    ),
    "other-network": (VGG16Encoder, resnet50_state, r"VGG16Encoder \(features\.0\.weight is missing\)"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_weights_are_refused_in_one_line_that_names_the_file(tmp_path, name):
    encoder, content, message = BAD[name]
    path = tmp_path / "weights.pth"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        torch.save(content() if callable(content) else content, path)
    with pytest.raises(MonaiCaeError, match=message) as error:
        encoder(weights=str(path))
    assert "\n" not in str(error.value) and str(path) in str(error.value)


def test_weights_for_two_channels_are_refused(pretrained):
    encoder, _, path, _ = pretrained
    with pytest.raises(MonaiCaeError, match=r"in_channels must be 1 or 3 .*imagenet\.pth, not 2"):
        encoder(in_channels=2, weights=str(path))
