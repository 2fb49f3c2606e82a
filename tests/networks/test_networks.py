"""Shapes, parameter counts, freezing by effect, TorchScript."""

from __future__ import annotations

import re

import pytest
import torch

from monai_cae.errors import MonaiCaeError
from monai_cae.networks import ConvAutoencoder, ConvDecoder, ConvEncoder, EncoderClassifier, load_weights

SMALL = (4, 6, 8)


def keras_count(module: torch.nn.Module) -> int:
    """Parameters as Keras counts them: trainable ones plus batch norm's running mean and variance."""
    statistics = sum(b.numel() for name, b in module.named_buffers() if not name.endswith("num_batches_tracked"))
    return sum(p.numel() for p in module.parameters()) + statistics


def autoencoder(spatial_dims: int = 2, channels: tuple[int, ...] = SMALL) -> ConvAutoencoder:
    return ConvAutoencoder(
        encoder=ConvEncoder(spatial_dims=spatial_dims, channels=channels),
        decoder=ConvDecoder(spatial_dims=spatial_dims, channels=channels),
    )


def classifier(size: tuple[int, ...] = (8, 12)) -> EncoderClassifier:
    return EncoderClassifier(encoder=ConvEncoder(spatial_dims=len(size), channels=SMALL), spatial_size=size)


def test_autoencoder_has_the_parameters_of_table_2():
    network = autoencoder(channels=(32, 64, 128))
    assert keras_count(network) == 723_905
    assert sum(p.numel() for p in network.parameters()) == 722_113


def test_classifier_has_63_76_million_parameters():
    # encoder; 44 * 44 * 128 * 256 + 256; 256 * 128 + 128; 128 + 1
    network = EncoderClassifier(encoder=ConvEncoder())
    assert sum(p.numel() for p in network.parameters()) == 287_328 + 63_439_104 + 32_896 + 129


def test_encoder_code_of_the_papers_slice():
    assert ConvEncoder()(torch.zeros(1, 1, 176, 176)).shape == (1, 128, 44, 44)


def test_encoder_pools_after_the_first_two_blocks_only_and_normalises_after_relu():
    kinds = [type(m).__name__ for m in ConvEncoder().blocks[0]]
    assert kinds == ["Conv2d", "ReLU", "BatchNorm2d"] * 2


@pytest.mark.parametrize(
    ("spatial_dims", "size"), [(2, (8, 12)), (2, (16, 4)), (3, (8, 4, 12))], ids=["2d", "2d-oblong", "3d"]
)
def test_reconstruction_has_the_images_shape_and_range(spatial_dims, size):
    torch.manual_seed(0)
    image = torch.rand(2, 1, *size)
    reconstruction = autoencoder(spatial_dims)(image)
    assert reconstruction.shape == image.shape
    assert reconstruction.min() > 0 and reconstruction.max() < 1


@pytest.mark.parametrize("size", [(8, 12), (8, 4, 12)], ids=["2d", "3d"])
def test_classifier_gives_one_logit_per_image(size):
    assert classifier(size).eval()(torch.rand(3, 1, *size)).shape == (3, 1)


@pytest.mark.parametrize("size", [(8, 12), (8, 12, 8)])
def test_slice_that_kept_the_axis_it_was_cut_from_gives_the_same(size):
    network = classifier(size).eval()
    image = torch.rand(3, 1, *size)
    for called in (network, torch.jit.script(network)):
        assert torch.equal(called(image[..., None]), called(image))


def test_image_size_that_cannot_be_halved_is_refused():
    with pytest.raises(MonaiCaeError, match=r"divisible by 4.*\(10, 8\)"):
        EncoderClassifier(encoder=ConvEncoder(channels=SMALL), spatial_size=(10, 8))


def train_one_step(network: EncoderClassifier) -> None:
    network.train()  # as SupervisedTrainer does in every iteration
    optimizer = torch.optim.SGD((p for p in network.parameters() if p.requires_grad), lr=1.0)
    network(torch.rand(4, 1, 8, 12)).square().sum().backward()
    optimizer.step()


@pytest.mark.parametrize("widths", ["abc", [0], [2.0, 3], [True, 2], [-1], 5, None])
def test_widths_that_are_none_are_refused_in_one_line(widths):
    text = re.escape(repr(widths))
    for coder in (ConvEncoder, ConvDecoder):
        with pytest.raises(MonaiCaeError, match=rf"^channels must be a list of whole .* \[32, 64, 128\], not {text}$"):
            coder(channels=widths)
    with pytest.raises(MonaiCaeError, match=rf"^hidden must be a list of whole .* for none, not {text}$"):
        EncoderClassifier(encoder=ConvEncoder(channels=SMALL), spatial_size=(8, 8), hidden=widths)


def test_no_block_at_all_is_refused():
    with pytest.raises(MonaiCaeError, match=r"channels must be .* not \[\]"):
        ConvEncoder(channels=[])


def test_frozen_encoder_keeps_weights_and_batch_norm_statistics():
    torch.manual_seed(0)
    network = classifier()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    network.freeze_encoder()
    train_one_step(network)
    changed = {name for name, value in network.state_dict().items() if not torch.equal(value, before[name])}
    assert changed and all(name.startswith("head.") for name in changed)
    network.freeze_encoder(False)
    train_one_step(network)
    for name, value in network.encoder.state_dict().items():
        assert not torch.equal(value, before[f"encoder.{name}"]), name


def test_freezing_keeps_the_dropout_of_the_head_active():
    network = classifier().train()
    network.freeze_encoder()
    assert network.head.training and not network.encoder.training
    network.eval()
    network.freeze_encoder(False)
    assert not network.encoder.training


@pytest.mark.parametrize(
    "network", [autoencoder(), classifier(), ConvEncoder(channels=SMALL)], ids=lambda n: type(n).__name__
)
def test_torchscript_agrees(network):
    network.eval()
    image = torch.rand(2, 1, 8, 12)
    assert torch.equal(torch.jit.script(network)(image), network(image))


def test_composition_shares_the_encoder():
    encoder = ConvEncoder(channels=SMALL)
    first = ConvAutoencoder(encoder=encoder, decoder=ConvDecoder(channels=SMALL))
    second = EncoderClassifier(encoder=encoder, spatial_size=(8, 8))
    assert first.encoder is second.encoder


def test_weights_round_trip(tmp_path):
    source, target = autoencoder(), autoencoder()
    torch.save(source.state_dict(), tmp_path / "weights.pt")
    load_weights(target, tmp_path / "weights.pt")
    for name, value in source.state_dict().items():
        assert torch.equal(value, target.state_dict()[name])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no checkpoint at"),
        (b"not a checkpoint", "not a PyTorch checkpoint"),
        ({"epoch": 3}, "something other than one network's weights"),
        (ConvEncoder(channels=SMALL).state_dict(), "a different architecture.*is missing"),
        (
            autoencoder(channels=(4, 6, 10)).state_dict(),
            r"a different architecture.*\(10, 6, 3, 3\) in the file, \(8, 6, 3, 3\) here",
        ),
    ],
    ids=["missing", "garbage", "no-weights", "other-network", "other-width"],
)
def test_misfit_weights_are_refused_in_one_line(tmp_path, content, message):
    path = tmp_path / "weights.pt"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        torch.save(content, path)
    network = autoencoder()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    with pytest.raises(MonaiCaeError, match=message) as error:
        load_weights(network, path)
    assert "\n" not in str(error.value)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
