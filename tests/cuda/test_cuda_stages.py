"""Every stage on the GPU gives what it gives on a CPU; checkpoints and exports of either are good on the other.

Float32 means float32: `use_machine` turns TF32 off, which cuDNN's convolutions would use. What is left are the orders
in which sums are rounded. On a CPU, a change of the first weights by 1e-6 of themselves, ten roundings, changes these
metrics and probabilities by up to 7e-5, as a ReLU or a maximum falls on the other side now and then; bfloat16 changes
the metrics by up to 0.045 of themselves and the probabilities by up to 0.02. The tolerances are wider, because a GPU
rounds otherwise.
"""

from __future__ import annotations

import json

import pytest
import torch
from cuda_runs import SAME_NUMBERS, STAGES, predict, run_stages, weights
from tiny import CONFIGS, random_network

from monai_cae.cli import main
from monai_cae.networks import save_weights

pytestmark = pytest.mark.cuda
FLOAT32, BFLOAT16 = 2e-3, 0.15  # relative for metrics, absolute for probabilities


@pytest.fixture(scope="module")
def runs(run_bundle, discs, tracking_uri, tmp_path_factory, device):
    """All stages by a CPU, by the GPU in float32 and in bfloat16."""
    folder = tmp_path_factory.mktemp("stages")
    ways = {
        "cpu": {"device": "cpu", "precision": "float32"},
        "float32": {"device": device, "precision": "float32"},
        "bfloat16": {"device": device, "precision": "bfloat16"},
    }
    return {
        name: run_stages(run_bundle, discs, folder / name, tracking_uri, **SAME_NUMBERS, **way)
        for name, way in ways.items()
    }


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize(("way", "tolerance"), [("float32", FLOAT32), ("bfloat16", BFLOAT16)])
def test_metrics_of_every_epoch_are_those_of_a_cpu(runs, stage, way, tolerance):
    expected, found = runs["cpu"].history[stage], runs[way].history[stage]
    assert expected.keys() == found.keys() and len(expected) >= 4
    for name, values in expected.items():
        assert len(found[name]) == len(values) == {"pretrain": 3, "train": 6, "evaluate": 1}[stage]
        if any(word in name for word in ("loss", "mse", "psnr")):  # the others count subjects; see their probabilities
            assert found[name] == pytest.approx(values, rel=tolerance), name


@pytest.mark.parametrize(
    ("table", "way", "tolerance"),
    [
        ("evaluate", "float32", FLOAT32),
        ("inference", "float32", FLOAT32),
        ("baselines", "float32", FLOAT32),  # in bfloat16 the scaling of its features blows up what is nearly constant
        ("evaluate", "bfloat16", BFLOAT16),
        ("inference", "bfloat16", BFLOAT16),
    ],
)
def test_probabilities_are_those_of_a_cpu(runs, table, way, tolerance):
    expected, found = runs["cpu"].predicted[table], runs[way].predicted[table]
    assert len(expected) == (24 if table == "inference" else 8) and len({*expected.values()}) > 4
    assert found == pytest.approx(expected, abs=tolerance)


def test_nothing_in_a_checkpoint_is_bound_to_the_gpu(runs):
    """Who loads it without a device to put it on may have no GPU."""
    for way in runs.values():
        for state in weights(way.output).values():
            assert {tensor.device.type for tensor in state.values()} == {"cpu"}


@pytest.mark.parametrize("trained", ["cpu", "float32", "bfloat16"])
def test_a_checkpoint_predicts_the_same_on_gpu_and_cpu(runs, trained, run_bundle, discs, device, tmp_path):
    model = runs[trained].output / "models" / "model.pt"
    found = {
        where: predict(run_bundle, discs, tmp_path / where, model, **{**SAME_NUMBERS, "device": where})
        for where in ("cpu", device)
    }
    assert found[device] == pytest.approx(found["cpu"], abs=1e-5) and len({*found["cpu"].values()}) > 4


@pytest.mark.parametrize("ending", [".ts", ".onnx"])
@pytest.mark.parametrize("network", ["classifier", "autoencoder"])
def test_an_export_of_what_the_gpu_has_trained_agrees_on_gpu_and_cpu(runs, network, ending, device, tmp_path):
    """Random weights beside the trained ones: these give nearly the same for every image."""
    folder = tmp_path / "bundle"
    (folder / "configs").mkdir(parents=True)
    for name in ("inference.json", "metadata.json"):
        config = json.loads((CONFIGS / name).read_text())
        if name == "inference.json":
            config |= {"image_size": 16, "slice_index": 11, "channels": SAME_NUMBERS["channels"], "device": device}
        (folder / "configs" / name).write_text(json.dumps(config))
    random = random_network(network, tuple(SAME_NUMBERS["channels"])).to(device)
    save_weights(random, tmp_path / "random.pt")
    trained = runs["float32"].output / "models" / {"classifier": "model.pt", "autoencoder": "autoencoder.pt"}[network]
    images = torch.rand(6, 1, 16, 16, generator=torch.Generator().manual_seed(1))
    for checkpoint in (tmp_path / "random.pt", trained):
        out = tmp_path / f"{checkpoint.stem}{ending}"
        status = main(["export", str(folder), str(out), "--network", network, "--checkpoint", str(checkpoint)])
        assert status == 0 and json.loads(out.with_name(f"{out.name}.parity.json").read_text())["passed"]
        network_there = random_network(network, tuple(SAME_NUMBERS["channels"]))
        network_there.load_state_dict(torch.load(checkpoint, weights_only=True, map_location="cpu"))
        with torch.no_grad():
            expected = network_there(images)
            if ending == ".ts":
                found = torch.jit.load(str(out), map_location=device)(images.to(device)).cpu()
            else:
                onnxruntime = pytest.importorskip("onnxruntime")
                session = onnxruntime.InferenceSession(str(out), providers=["CPUExecutionProvider"])
                found = torch.tensor(session.run(None, {session.get_inputs()[0].name: images.numpy()})[0])
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    assert expected.shape[0] == 6
