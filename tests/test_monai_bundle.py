"""What other MONAI projects do with a bundle: every entry point of monai.bundle that takes one."""

from __future__ import annotations

import csv
import hashlib
import json
from pathlib import Path

import monai.bundle
import nibabel as nib
import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from monai.bundle import ConfigParser, create_workflow
from monai.data import load_net_with_metadata
from tiny import CONFIGS, TINY, UNTRAINED, random_network, write_bundle

METADATA = json.loads((CONFIGS / "metadata.json").read_text())


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    """With random weights; not to be changed by a test."""
    return write_bundle(tmp_path_factory.mktemp("zoo") / "cae")


def images(number: int) -> torch.Tensor:
    return torch.rand(number, 1, 16, 16, generator=torch.Generator().manual_seed(3))


def expected(network: str, image: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return random_network(network)(image)


SCHEMA = {
    # what MONAI's meta_schema_20240725.json requires, so that the check needs no network
    "type": "object",
    "required": ["schema", "version", "monai_version", "pytorch_version", "numpy_version", "required_packages_version",
                 "task", "description", "authors", "copyright", "network_data_format"],
    "patternProperties": {"_data_format$": {"type": "object", "required": ["inputs", "outputs"]}},
}  # fmt: skip


def test_metadata_passes_monais_check(tmp_path):
    schema = tmp_path / "meta_schema_20240725.json"  # the download is skipped for a file that is there
    schema.write_text(json.dumps(SCHEMA))
    md5 = hashlib.md5(schema.read_bytes()).hexdigest()
    monai.bundle.verify_metadata(meta_file=str(CONFIGS / "metadata.json"), filepath=str(schema), hash_val=md5)


NETWORKS = [
    ("train", "network_def", "network_data_format"),
    ("evaluate", "network_def", "network_data_format"),
    ("inference", "network_def", "network_data_format"),
    ("pretrain", "network_def", "autoencoder_data_format"),
    ("train", "autoencoder_def", "autoencoder_data_format"),
    ("evaluate", "autoencoder_def", "autoencoder_data_format"),
    ("inference", "autoencoder_def", "autoencoder_data_format"),
]


def verify_net_in_out(config: str, net_id: str, data_format: dict) -> None:
    monai.bundle.verify_net_in_out(
        net_id=net_id,
        config_file=str(CONFIGS / f"{config}.json"),
        meta_file=str(CONFIGS / "metadata.json"),
        device="cpu",
        **{"_meta_#network_data_format": data_format},
    )


@pytest.mark.parametrize(("config", "net_id", "data_format"), NETWORKS)
def test_network_takes_and_gives_what_the_metadata_say(config, net_id, data_format):
    verify_net_in_out(config, net_id, METADATA[data_format])


def test_metadata_that_say_something_else_are_refused():
    wrong = json.loads(json.dumps(METADATA["autoencoder_data_format"]))
    wrong["outputs"]["pred"]["num_channels"] = 2
    with pytest.raises(ValueError, match="output channel number `1` doesn't match: `2`"):
        verify_net_in_out("inference", "autoencoder_def", wrong)


def test_metadata_name_the_shapes_that_monai_does_not_check():
    parser = ConfigParser()
    parser.read_config(str(CONFIGS / "inference.json"))
    image = METADATA["autoencoder_data_format"]["inputs"]["image"]
    pred = METADATA["autoencoder_data_format"]["outputs"]["pred"]
    with torch.no_grad():
        given = torch.rand(1, image["num_channels"], *image["spatial_shape"])
        found = parser.get_parsed_content("autoencoder_def").eval()(given)
    assert list(found.shape) == [1, pred["num_channels"], *pred["spatial_shape"]]
    low, high = pred["value_range"]
    assert low <= found.min() and found.max() <= high
    assert image == METADATA["network_data_format"]["inputs"]["image"]
    assert image["spatial_shape"] == [parser.get("image_size")] * 2


EXPORTS = [("classifier", "network_def", "model.pt"), ("autoencoder", "autoencoder_def", "autoencoder.pt")]


def export_arguments(bundle: Path, net_id: str, checkpoint: str, out: Path) -> dict:
    return {
        "net_id": net_id,
        "filepath": str(out),
        "ckpt_file": str(bundle / "models" / checkpoint),
        "meta_file": str(bundle / "configs" / "metadata.json"),
        "config_file": str(bundle / "configs" / "inference.json"),
    }


@pytest.mark.parametrize(("network", "net_id", "checkpoint"), EXPORTS)
def test_ckpt_export_gives_the_network_with_its_configs(bundle, tmp_path, network, net_id, checkpoint):
    monai.bundle.ckpt_export(**export_arguments(bundle, net_id, checkpoint, tmp_path / "out.ts"))
    module, metadata, extra = load_net_with_metadata(str(tmp_path / "out.ts"), more_extra_files=("inference.json",))
    for number in (1, 3):
        torch.testing.assert_close(module(images(number)), expected(network, images(number)), rtol=0, atol=1e-5)
    assert metadata == METADATA
    assert json.loads(extra["inference.json"]) == json.loads((bundle / "configs" / "inference.json").read_text())


def test_ckpt_export_finds_everything_in_the_bundle_root(tmp_path):
    bundle = write_bundle(tmp_path / "cae")
    monai.bundle.ckpt_export(config_file=str(bundle / "configs" / "inference.json"), bundle_root=str(bundle))
    module, metadata, _ = monai.bundle.load("cae", bundle_dir=str(tmp_path), load_ts_module=True, device="cpu")
    torch.testing.assert_close(module(images(2)), expected("classifier", images(2)), rtol=0, atol=1e-5)
    assert metadata["version"] == METADATA["version"]


@pytest.mark.parametrize(("network", "net_id", "checkpoint"), EXPORTS)
def test_onnx_export_takes_any_number_of_images(bundle, tmp_path, network, net_id, checkpoint):
    monai.bundle.onnx_export(
        **export_arguments(bundle, net_id, checkpoint, tmp_path / "out.onnx"),
        use_trace=True,
        input_shape=[2, 1, 16, 16],
        converter_kwargs={
            "input_names": ["image"],
            "output_names": ["pred"],
            "dynamic_shapes": {"image": {0: "batch"}},
            "external_data": False,
            "dynamo": True,
        },
    )
    onnx.checker.check_model(str(tmp_path / "out.onnx"))
    session = onnxruntime.InferenceSession(str(tmp_path / "out.onnx"), providers=["CPUExecutionProvider"])
    for number in (1, 3):
        (found,) = session.run(["pred"], {"image": images(number).numpy()})
        torch.testing.assert_close(torch.tensor(found), expected(network, images(number)), rtol=0, atol=1e-5)


@pytest.mark.parametrize("workflow_type", ["train", "inference"])
def test_load_gives_the_network_with_its_weights(bundle, workflow_type):
    override = {"spatial_size": [16, 16]} if workflow_type == "train" else {}
    network = monai.bundle.load(
        bundle.name, bundle_dir=str(bundle.parent), workflow_type=workflow_type, net_override=override, device="cpu"
    )
    torch.testing.assert_close(network.eval()(images(2)), expected("classifier", images(2)), rtol=0, atol=1e-6)


def test_load_with_another_dropout(bundle):
    network = monai.bundle.load(
        bundle.name, bundle_dir=str(bundle.parent), workflow_type="inference", net_override={"dropout": 0.75}
    )
    assert [module.p for module in network.modules() if isinstance(module, torch.nn.Dropout)] == [0.75]
    weights = torch.load(bundle / "models" / "model.pt", weights_only=True)
    assert all(torch.equal(value.cpu(), weights[name]) for name, value in network.state_dict().items())


def test_load_of_the_autoencoder(bundle):
    network = monai.bundle.load(
        bundle.name,
        model=random_network("autoencoder", seed=9),
        model_file="models/autoencoder.pt",
        bundle_dir=str(bundle.parent),
        device="cpu",
    )
    torch.testing.assert_close(network(images(2)), expected("autoencoder", images(2)), rtol=0, atol=1e-6)


def test_run_workflow_predicts(bundle, discs, tmp_path):
    path = next(discs.rglob("OAS1_0003*.hdr"))
    monai.bundle.run_workflow(
        config_file=str(bundle / "configs" / "inference.json"),
        workflow_type="inference",
        dataset_dir=str(path),
        output_dir=str(tmp_path / "out"),
    )
    with (tmp_path / "out" / "predictions.csv").open(encoding="utf-8") as file:
        (row,) = csv.DictReader(file)
    plane = np.asarray(nib.load(path).dataobj)[2:18, 4:20, 10, 0].astype(float)
    plane = (plane - plane.min()) / (plane.max() - plane.min())
    logit = expected("classifier", torch.tensor(plane[None, None], dtype=torch.float32))
    assert float(row["probability"]) == pytest.approx(1 / (1 + np.exp(-float(logit))), abs=1e-5)


@pytest.fixture(scope="module")
def workflow(bundle, discs, tracking_uri, tmp_path_factory):
    """`create_workflow` of a stage; all stages have one output folder."""
    output = tmp_path_factory.mktemp("stages")

    def create(config: str) -> monai.bundle.ConfigWorkflow:
        settings = {**TINY, "dataset_dir": str(discs), "output_dir": str(output), "max_epochs": 1}
        if config in UNTRAINED:
            del settings["max_epochs"]
        if config == "inference.json":
            settings |= {"checkpoint": str(bundle / "models" / "model.pt"), "overwrite": True}
        else:
            settings["tracking_uri"] = tracking_uri
        workflow_type = "inference" if config in UNTRAINED else "train"
        return create_workflow(config_file=str(CONFIGS / config), workflow_type=workflow_type, **settings)

    return create


def items(parser: ConfigParser) -> dict:
    """Every top-level key, evaluated in the order of the config: `run` runs."""
    return {name: parser.get_parsed_content(name) for name in parser.get() if name != "_meta_"}


def test_no_property_is_missing_and_every_item_can_be_had(workflow):
    for config in ("pretrain.json", "train.json", "evaluate.json", "inference.json"):
        made = workflow(config)
        assert made.check_properties() == []
        found = items(made.parser)
        assert isinstance(found["network_def"], torch.nn.Module) and found["bundle_root"] == str(CONFIGS.parent)
        assert found["training"] == found["run"] and len(found["run"]) > 0


@pytest.mark.parametrize("overlays", [[], ["with_phantom.yaml"]])
def test_every_setting_of_the_experiment_can_be_had(overlays):
    parser = ConfigParser()
    parser.read_config([str(CONFIGS / name) for name in ("experiment.yaml", *overlays)])
    for name in ("initialize", "run", "training"):  # run by tests/test_bundle.py
        parser.get().pop(name)
    found = items(parser)
    assert found["image_size"] == 176 and found["cohort"]["task"] == "paper"
    assert found["repeats"] == (1 if overlays else 5)
