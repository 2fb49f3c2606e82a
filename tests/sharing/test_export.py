"""`monai-cae export`: the file, the report, the mistakes."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import tempfile
import zipfile
from pathlib import Path
from types import SimpleNamespace

import monai.bundle
import nibabel as nib
import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from tiny import CONFIGS, random_network, write_bundle

from monai_cae.cli import main
from monai_cae.networks import save_weights
from monai_cae.sharing import Parity, export_network
from monai_cae.sharing.parity import largest_differences

SHAPE = (20, 24, 20)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    """With random weights; not to be changed by a test."""
    return write_bundle(tmp_path_factory.mktemp("bundle"))


@pytest.fixture(scope="module")
def volumes(tmp_path_factory):
    """Six scans: a whole batch of the comparison, and a part of one."""
    folder = tmp_path_factory.mktemp("volumes")
    generator = np.random.default_rng(1)
    for index in range(6):
        blocks = np.kron(generator.integers(0, 900, (10, 12, 10)), np.ones((2, 2, 2)))
        nib.save(nib.Nifti1Image(blocks.astype(np.int16), np.eye(4)), folder / f"scan {index}.nii.gz")
    return folder


def by_hand(volumes: Path) -> torch.Tensor:
    """Axial slice 11, centre 16 x 16 of 20 x 24, scaled to [0, 1]: in NumPy."""
    planes = [np.asarray(nib.load(path).dataobj)[2:18, 4:20, 10].astype(float) for path in sorted(volumes.iterdir())]
    scaled = [(plane - plane.min()) / (plane.max() - plane.min()) for plane in planes]
    return torch.tensor(np.stack(scaled)[:, None], dtype=torch.float32)


def run_exported(path: Path, images: torch.Tensor) -> torch.Tensor:
    if path.suffix == ".ts":
        return torch.jit.load(str(path))(images)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return torch.tensor(session.run(None, {session.get_inputs()[0].name: images.numpy()})[0])


def carried(path: Path) -> dict[str, dict]:
    files = {"metadata.json": "", "inference.json": ""}
    if path.suffix == ".ts":
        torch.jit.load(str(path), _extra_files=files)
    else:
        files = {item.key: item.value for item in onnx.load(path).metadata_props}
    return {name: json.loads(files[name]) for name in ("metadata.json", "inference.json")}


@pytest.fixture(scope="module", params=["classifier.ts", "classifier.onnx", "autoencoder.ts", "autoencoder.onnx"])
def export(request, bundle, volumes, tmp_path_factory):
    """One network in one format, written by the command, with what it printed and left."""
    folder, temporary = tmp_path_factory.mktemp("export"), tmp_path_factory.mktemp("temporary")
    out = folder / "models" / request.param
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tempfile, "tempdir", str(temporary))
        status = main(["export", str(bundle), str(out), "--network", out.stem, "--volumes", str(volumes)])
    report = json.loads(out.with_name(f"{out.name}.parity.json").read_text())
    return SimpleNamespace(out=out, network=out.stem, status=status, report=report, temporary=temporary)


def test_exported_network_gives_what_pytorch_gives(export, volumes):
    images = by_hand(volumes)
    with torch.no_grad():
        expected = random_network(export.network)(images)
    assert export.status == 0 and expected.std() > 0.05
    for number in (1, 5):
        found = run_exported(export.out, images[:number])
        torch.testing.assert_close(found, expected[:number], rtol=0, atol=1e-5)


def test_report_says_what_was_compared(export, bundle):
    report = export.report
    assert report["sha256"] == hashlib.sha256(export.out.read_bytes()).hexdigest()
    assert report["file"] == export.out.name and report["network"] == export.network
    assert (report["volumes"], report["synthetic"], report["image_shape"]) == (6, False, [1, 16, 16])
    compared = {"classifier": {"logit", "probability"}, "autoencoder": {"pixel"}}[export.network]
    assert report["largest_difference"].keys() == report["tolerance"].keys() == compared
    assert all(0 <= value <= 1e-5 for value in report["largest_difference"].values()) and report["passed"] is True
    names = {"monai-cae", "torch", "monai"} | (
        {"onnx", "onnxscript", "onnxruntime"} if ".onnx" in report["file"] else set()
    )
    assert report["versions"].keys() == names | {"python"}
    assert report["versions"]["torch"] == importlib.metadata.version("torch")
    weights = bundle / report["checkpoint"]
    assert report["checkpoint"].startswith("models/") and "/tmp/" not in json.dumps(report)
    assert report["checkpoint_sha256"] == hashlib.sha256(weights.read_bytes()).hexdigest()


def test_no_folder_of_this_machine_is_inside(export):
    content = export.out.read_bytes()
    if export.out.suffix == ".ts":
        with zipfile.ZipFile(export.out) as archive:
            assert {name.partition("/")[0] for name in archive.namelist()} == {export.out.stem}
            content = b"".join(archive.read(name) for name in archive.namelist())
    places = (Path(torch.__file__).parents[1], CONFIGS.parents[1], export.temporary, export.out.parent)
    assert not [place for place in places if str(place).encode() in content]


def test_exported_file_carries_the_configs(export, bundle):
    for name, content in carried(export.out).items():
        assert content == json.loads((bundle / "configs" / name).read_text())


def test_nothing_else_is_left(export):
    assert {path.name for path in export.out.parent.iterdir()} == {export.out.name, f"{export.out.name}.parity.json"}
    assert [path for path in export.temporary.rglob("*") if path.is_file()] == []


def test_summary_without_volumes_says_that_they_are_random(bundle, tmp_path, capsys):
    assert main(["export", str(bundle), str(tmp_path / "out.ts")]) == 0
    printed = capsys.readouterr().out
    assert "largest difference to PyTorch on 4 random volumes: logit 0.0e+00 (at most 0.001), probability" in printed
    assert "next: " in printed and "not a medical device" in printed and "INFO" not in printed
    report = json.loads((tmp_path / "out.ts.parity.json").read_text())
    assert (report["synthetic"], report["volumes"]) == (True, 4)


def test_random_volumes_are_the_same_every_time_and_have_a_slice_in_every_plane(bundle, tmp_path, monkeypatch):
    seen = []

    def watched(eager, exported, images, network):
        seen.append(torch.stack(list(images)))
        return {"probability": 0.0}

    monkeypatch.setattr("monai_cae.sharing.export.largest_differences", watched)
    for plane in ("axial", "coronal", "sagittal"):
        other = write_bundle(tmp_path / plane, plane=plane)
        for name in ("first.ts", "second.ts"):
            export_network(other, tmp_path / name)
        assert torch.equal(seen[-1], seen[-2])
    assert len(seen) == 6 and all(image.amin() == 0 and image.amax() == 1 for images in seen for image in images)
    assert not torch.equal(seen[0][0], seen[0][1])


def test_export_that_disagrees_is_not_written(bundle, tmp_path, monkeypatch, capsys):
    out = tmp_path / "out.ts"
    out.write_bytes(b"what was there before")
    other = random_network("classifier", seed=1)
    save_weights(other, tmp_path / "other.pt")
    original = monai.bundle.ckpt_export

    def wrong(**arguments):
        original(**{**arguments, "ckpt_file": str(tmp_path / "other.pt")})

    monkeypatch.setattr(monai.bundle, "ckpt_export", wrong)
    assert main(["export", str(bundle), str(out)]) == 1
    printed = capsys.readouterr()
    assert printed.err.count("\n") == 1
    assert f"error: {out} is not written: it differs too much from PyTorch: logit " in printed.err
    assert out.read_bytes() == b"what was there before"
    report = json.loads((tmp_path / "out.ts.parity.json").read_text())
    assert report["passed"] is False and report["largest_difference"]["probability"] > 1e-3


def test_largest_differences_are_those_of_all_batches():
    def nan_in_the_last(image: torch.Tensor) -> torch.Tensor:
        return torch.where(image == 6, torch.nan, image)

    images = [torch.full((1, 2, 2), float(number)) for number in range(7)]
    found = largest_differences(lambda x: x, lambda x: x + (x == 1) * 0.25, images, "autoencoder")
    assert found == {"pixel": 0.25}
    found = largest_differences(lambda x: x, lambda x: x - (x == 5) * 0.5, images, "classifier")
    assert found == {
        "logit": 0.5,
        "probability": pytest.approx(1 / (1 + np.exp(-5)) - 1 / (1 + np.exp(-4.5)), rel=1e-4),
    }
    report = Parity(
        file="",
        sha256="",
        network="",
        checkpoint="",
        checkpoint_sha256="",
        volumes=7,
        synthetic=False,
        image_shape=(1, 2, 2),
        versions={},
        largest_difference=largest_differences(lambda x: x, nan_in_the_last, images, "autoencoder"),
        tolerance={"pixel": 1e-5},
    )
    assert not report.passed


def given(folder: Path, name: str = "inference.json", **values: object) -> Path:
    """A bundle in which a config has other values; None takes an item out."""
    bundle = write_bundle(folder / "given")
    path = bundle / "configs" / name
    config = json.loads(path.read_text()) | values
    path.write_text(json.dumps({name: value for name, value in config.items() if value is not None}))
    return bundle


def emptied(folder: Path, name: str) -> Path:
    bundle = write_bundle(folder / "given")
    (bundle / "configs" / name).write_text("{")
    return bundle


def without(folder: Path, name: str) -> Path:
    bundle = write_bundle(folder / "given")
    (bundle / name).unlink()
    return bundle


def code(folder: Path) -> Path:
    """A checkpoint that would make a file when it is unpickled."""

    class Executed:
        def __reduce__(self):
            return (Path.touch, (folder / "executed",))

    torch.save({"weight": Executed()}, folder / "code.pt")
    return folder / "code.pt"


def other_architecture(folder: Path) -> Path:
    save_weights(random_network("autoencoder", channels=(8, 8)), folder / "other.pt")
    return folder / "other.pt"


def broken_volume(folder: Path) -> Path:
    (folder / "broken.nii.gz").write_bytes(b"nothing")
    return folder / "broken.nii.gz"


def a_file(folder: Path) -> Path:
    (folder / "file").touch()
    return folder / "file"


# what stands where in `monai-cae export BUNDLE OUT --...`, and what is said
MISTAKES = {
    "suffix": ({"out": "out.pt"}, "out.pt must end in .ts (TorchScript) or .onnx (ONNX)"),
    "network": ({"--network": "cae"}, "network must be classifier or autoencoder, not 'cae'"),
    "no folder": ({"bundle": lambda t: t / "none"}, "{t}/none is not a folder: give a bundle's folder"),
    "no bundle": ({"bundle": lambda t: t}, "no {t}/configs/inference.json: give a bundle's folder"),
    "no weights": ({"bundle": lambda t: without(t, "models/model.pt")}, "no checkpoint at {t}/given/models/model.pt"),
    "no metadata": ({"bundle": lambda t: without(t, "configs/metadata.json")}, "no {t}/given/configs/metadata.json"),
    "no JSON": ({"bundle": lambda t: emptied(t, "inference.json")}, "inference.json is not readable JSON"),
    "newer": ({"bundle": lambda t: given(t, "metadata.json", version="7.0.0")}, "has version 7.0.0, newer than"),
    "no network": (
        {"bundle": lambda t: given(t, autoencoder_def=None), "--network": "autoencoder"}, "has no autoencoder_def"),
    "size": ({"bundle": lambda t: given(t, image_size=18)}, "spatial_size must be divisible by 4"),
    "other config": (
        {"bundle": lambda t: given(t, preprocessing="$print('executed')")}, "preprocessing: $print('executed')"),
    "filled disk": ({"bundle": lambda t: given(t, slice_index=10**9)}, "slice_index must be from 1 to 4096"),
    "plane": ({"bundle": lambda t: given(t, plane="axail")}, "plane must be axial, coronal or sagittal, not 'axail'"),
    "no checkpoint": ({"--checkpoint": lambda t: t / "none.pt"}, "no checkpoint at {t}/none.pt"),
    "code": ({"--checkpoint": code}, "code.pt is not a PyTorch checkpoint of plain weights"),
    "other": ({"--checkpoint": other_architecture}, "other.pt holds the weights of a different architecture"),
    "no volumes": ({"--volumes": lambda t: t}, "no .nii, .nii.gz or .hdr/.img image in {t}"),
    "broken volume": ({"--volumes": broken_volume}, "{t}/broken.nii.gz is "),
    "out": ({"out": lambda t: a_file(t) / "out.ts"}, "can't write {t}/file/out.ts"),
    "closed folder": ({"out": "/proc/out.ts"}, "can't write /proc/out.ts"),
}  # fmt: skip


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_are_one_line_and_leave_nothing(bundle, tmp_path, capsys, name):
    places, message = MISTAKES[name]
    places = {"bundle": bundle, "out": tmp_path / "out.ts", **places}
    words = {place: str(value(tmp_path) if callable(value) else value) for place, value in places.items()}
    options = [word for place in words if place.startswith("--") for word in (place, words[place])]
    assert main(["export", words["bundle"], words["out"], *options]) == 1
    printed = capsys.readouterr()
    assert printed.err.startswith("error: ") and printed.err.count("\n") == (2 if name == "other config" else 1)
    assert message.format(t=tmp_path) in printed.err
    assert not [path for path in tmp_path.rglob("*") if "out." in path.name or path.name == "executed"]


def test_missing_packages_are_named_with_the_command_that_installs_them(bundle, tmp_path, capsys, monkeypatch):
    original = importlib.util.find_spec
    absent = ("onnx", "onnxruntime")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name in absent else original(name))
    assert main(["export", str(bundle), str(tmp_path / "out.onnx")]) == 1
    expected = f"error: {tmp_path}/out.onnx needs onnx, onnxruntime: pip install 'monai-cae[onnx]'\n"
    assert capsys.readouterr().err == expected
    assert main(["export", str(bundle), str(tmp_path / "out.ts")]) == 0
