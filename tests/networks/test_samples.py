"""One network for every sample of an image, against a loop over the samples."""

from __future__ import annotations

import onnxruntime
import pytest
import torch

from monai_cae.errors import MonaiCaeError
from monai_cae.networks import (
    ConvAutoencoder,
    ConvDecoder,
    ConvEncoder,
    EachSample,
    EncoderClassifier,
    IntensityHistogram,
    each_sample,
    for_images,
)


def encoder(spatial_dims: int = 2, in_channels: int = 1) -> ConvEncoder:
    """In evaluation mode, with statistics of batch norm that are not those of a new one."""
    torch.manual_seed(0)
    made = ConvEncoder(spatial_dims, in_channels, channels=(3, 5))
    for name, tensor in made.state_dict().items():
        if name.endswith(("running_mean", "running_var")):
            tensor.uniform_(0.5, 1.5)
    return made.eval()


def images(channels: int, *sizes: int, number: int = 2) -> torch.Tensor:
    return torch.rand(number, channels, *sizes, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(
    ("spatial_dims", "channels", "samples", "sizes"), [(2, 1, 3, (8, 12)), (2, 2, 3, (8, 8)), (3, 1, 4, (4, 8, 4))]
)
def test_each_sample_is_what_a_loop_over_the_samples_gives(spatial_dims, channels, samples, sizes):
    network, image = encoder(spatial_dims, channels), images(samples * channels, *sizes)
    both = each_sample(network, samples)
    with torch.no_grad():
        one_by_one = [network(image[:, k * channels : (k + 1) * channels]) for k in range(samples)]
        found = both(image)
    torch.testing.assert_close(found, torch.cat(one_by_one, dim=1), rtol=0, atol=1e-6)
    assert found.shape == (2, 5 * samples, *(size // 2 for size in sizes))
    assert (both.out_channels, both.downsampling) == (5 * samples, 2)


def test_one_sample_leaves_the_network_as_it_is():
    network = encoder()
    assert each_sample(network, 1) is network
    for samples in (0, -2, 2.0, True, "3"):
        with pytest.raises(MonaiCaeError, match="samples must be a whole number above 0, not"):
            each_sample(network, samples)


def test_a_network_without_sizes_has_none():
    made = EachSample(torch.nn.Flatten(), 2)
    assert not hasattr(made, "out_channels") and not hasattr(made, "downsampling")


def test_an_autoencoder_of_samples_reconstructs_each():
    shared = ConvDecoder(channels=(3, 5)).eval()
    network = ConvAutoencoder(encoder=each_sample(encoder(), 3), decoder=each_sample(shared, 3))
    image = images(3, 8, 8)
    with torch.no_grad():
        expected = torch.cat([shared(encoder()(image[:, [k]])) for k in range(3)], dim=1)
        torch.testing.assert_close(network(image), expected, rtol=0, atol=1e-6)
    assert for_images(network, [8, 8]) is network
    with pytest.raises(MonaiCaeError, match="must be divisible by 2"):
        for_images(network, [9, 9])


def test_the_dense_layers_see_the_codes_and_histograms_of_all_samples():
    network = EncoderClassifier(
        encoder=each_sample(encoder(), 3), spatial_size=(8, 8), hidden=[], pooling=1, histogram=4
    ).eval()
    image = images(3, 8, 8)
    with torch.no_grad():
        seen = network.summarise(network.encoder(image), image)
        codes = [encoder()(image[:, [k]]).mean(dim=(2, 3)) for k in range(3)]
        histograms = [IntensityHistogram(4)(image[:, [k]]) for k in range(3)]
    torch.testing.assert_close(seen, torch.cat([*codes, *histograms], dim=1), rtol=0, atol=1e-6)
    assert network.head[-1].in_features == 3 * (5 + 4)


def test_exported_it_takes_any_number_of_images(tmp_path):
    network, image = each_sample(encoder(), 3).eval(), images(3, 8, 8, number=5)
    scripted = torch.jit.script(network)
    torch.onnx.export(
        network, (image[:2],), tmp_path / "a.onnx", input_names=["image"], output_names=["pred"], dynamo=True,
        dynamic_shapes={"image": {0: "batch"}}, verbose=False,
    )  # fmt: skip
    session = onnxruntime.InferenceSession(tmp_path / "a.onnx", providers=["CPUExecutionProvider"])
    with torch.no_grad():
        for number in (1, 2, 5):
            expected = network(image[:number])
            torch.testing.assert_close(scripted(image[:number]), expected, rtol=0, atol=1e-6)
            (found,) = session.run(["pred"], {"image": image[:number].numpy()})
            torch.testing.assert_close(torch.from_numpy(found), expected, rtol=0, atol=1e-5)
