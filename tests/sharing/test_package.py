"""A run becomes a bundle that works elsewhere, and a package from elsewhere is believed nothing."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import pickle
import shutil
import struct
import zipfile
from pathlib import Path

import monai.bundle
import numpy as np
import pytest
import torch
import yaml
from monai.bundle import ConfigParser, ConfigWorkflow
from tiny import CONFIGS, HIDDEN, PACKAGED, TINY

from monai_cae.cli import main
from monai_cae.networks import ConvEncoder, EncoderClassifier, save_weights
from monai_cae.sharing.executed import as_defaults, carried_over
from monai_cae.training.stages.workflow import find_mistake

FILES = {
    "LICENSE", "SHA256SUMS", "docs/README.md", "docs/data_license.txt", "models/model.pt", "models/autoencoder.pt",
    "configs/logging.conf", "configs/metadata.json", "configs/pretrain.json", "configs/train.json",
    "configs/evaluate.json", "configs/baselines.json", "configs/inference.json", "configs/multi_gpu_train.json",
}  # fmt: skip


def members(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as archive:
        return {name.partition("/")[2]: archive.read(name) for name in archive.namelist()}


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def config(folder: Path, name: str) -> dict:
    return json.loads((folder / "configs" / f"{name}.json").read_text())


def probabilities(config_file: Path, **settings: object) -> list[float]:
    workflow = ConfigWorkflow(str(config_file), workflow_type="inference", **settings)
    workflow.initialize()
    workflow.evaluator.run()
    return workflow.parser.get_parsed_content("prediction_table").column("probability")


def test_probabilities_are_the_runs_to_the_last_bit(finished_run, unpacked, discs, tmp_path):
    executed = tmp_path / "executed.json"
    executed.write_text((finished_run / "config_evaluate.json").read_text())
    of_run = probabilities(executed, predictions=str(tmp_path / "run.csv"))
    places = {"dataset_dir": str(discs), "datalist": str(finished_run / "datalist.json"), "device": "cpu"}
    table = {"cohort#table": str(discs / "oasis_cross-sectional.csv"), "output_dir": str(tmp_path)}
    of_package = probabilities(unpacked / "configs" / "evaluate.json", **places, **table)
    assert len(of_run) == 8 and len(set(of_run)) > 1 and of_package == of_run


def test_inference_needs_no_setting_but_the_scans(finished_run, unpacked, discs, tmp_path):
    file = str(unpacked / "configs" / "inference.json")
    monai.bundle.run(run_id="run", config_file=file, dataset_dir=str(discs), output_dir=str(tmp_path), device="cpu")
    found = {Path(row["file"]).name[:9]: row for row in rows(tmp_path / "predictions.csv")}
    expected = {row["subject"]: row for row in rows(finished_run / "predictions.csv")}
    assert len(found) == 24 and len(expected) == 8
    for subject, row in expected.items():
        assert float(found[subject]["probability"]) == pytest.approx(float(row["probability"]), abs=2e-6)
        assert found[subject]["prediction"] == row["prediction"]


@pytest.mark.parametrize("workflow_type", ["train", "inference"])
def test_monai_loads_the_network_of_the_run(finished_run, unpacked, workflow_type):
    loaded = monai.bundle.load(
        unpacked.name, bundle_dir=unpacked.parent, source="github", workflow_type=workflow_type, device="cpu"
    )
    ours = EncoderClassifier(encoder=ConvEncoder(channels=(4, 8)), spatial_size=(16, 16), hidden=HIDDEN)
    ours.load_state_dict(torch.load(finished_run / "models" / "model.pt", weights_only=True))
    images = torch.rand(3, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.equal(loaded.eval()(images), ours.eval()(images))


def test_configs_have_the_settings_of_the_run_and_no_place_of_its_machine(unpacked):
    found = {name: config(unpacked, name) for name in ("pretrain", "train", "evaluate", "inference")}
    for name, executed in found.items():
        expected = {k: TINY[k] for k in ("image_size", "slice_index", "batch_size")} | {"channels": [4, 8], "seed": 3}
        assert {key: executed[key] for key in expected} == expected, name
        assert executed["dataset_dir"] == "/data/oasis1" and executed["output_dir"] == "$@bundle_root + '/output'"
        assert "::" not in json.dumps(executed)
    assert found["train"]["max_epochs"] == 2 and found["pretrain"]["split"]["stratify"] == "class+sex"
    assert found["inference"]["network_def"]["hidden"] == found["train"]["network_def"]["hidden"] == HIDDEN
    assert found["inference"]["threshold"] == 0.45
    assert {c["cohort"]["table"] for c in found.values() if "cohort" in c} == {""}
    assert {c["device"] for c in found.values()} == {config(CONFIGS.parent, "inference")["device"]}


@pytest.mark.parametrize(
    ("executed", "kept", "elsewhere"),
    [
        ({"a": {"b": [1, 2]}}, {"a": {"b": [1, 2]}}, {"a": {"b": [1, 2]}, "c": "x"}),
        ({"a": {"b": [0, 9]}}, {"a": {"b": [0, 9]}}, {"a": {"b": [0, 9]}, "c": "x"}),
        ({"a": {"b": "$open('/home/me/x')"}}, {"a": {"b": [0, 1]}}, {"a": {"b": [0, 1]}, "c": "x"}),
        ({"a": {"b": [0, 1], "d": "C:\\me"}}, {"a": {"b": [0, 1]}}, {"a": {"b": [0, 1]}, "c": "x"}),
        (
            {"a": {"b": [0, 1], "d": "$x / y"}},
            {"a": {"b": [0, 1], "d": "$x / y"}},
            {"a": {"b": [0, 1], "d": "$x / y"}, "c": "x"},
        ),
        ({"a": {"b": [0, 1]}, "c": "z"}, {"a": {"b": [0, 1]}, "c": "z"}, {"a": {"b": [0, 1]}, "c": "x"}),
    ],
)
def test_what_is_taken_from_an_executed_config(executed, kept, elsewhere):
    shipped = {"a": {"b": [0, 1]}, "c": "y"}
    executed = {"c": "y", **executed}
    assert as_defaults(executed, shipped) == {"c": "y", **kept}
    assert carried_over({"a": {"b": [0, 1]}, "c": "x"}, executed, shipped) == elsewhere


def test_a_table_is_the_machines_under_any_name():
    shipped = {"cohort": {"table": "", "task": "paper"}}
    assert as_defaults({"cohort": {"table": "mine.csv", "task": "ad"}}, shipped) == {
        "cohort": {"table": "", "task": "ad"}
    }


def test_nothing_of_the_subjects_or_the_machine_is_inside(finished_run, package, discs):
    inside = members(package)
    assert inside.keys() == FILES
    datalist = json.loads((finished_run / "datalist.json").read_text())
    subjects = [item["subject"] for name in ("training", "validation", "test") for item in datalist[name]]
    hidden = [*subjects, str(discs), discs.name, str(finished_run), finished_run.name, PACKAGED["experiment_name"]]
    for name, content in inside.items():
        assert not [text for text in hidden if text.encode() in content], name


def test_same_run_gives_the_same_bytes(finished_run, package, tmp_path):
    os.utime(finished_run / "models" / "model.pt", (1, 1))
    again = tmp_path / package.name
    assert main(["package", str(again), "--output_dir", str(finished_run)]) == 0
    assert again.read_bytes() == package.read_bytes()


def test_hashes_are_of_every_file(unpacked):
    sums = dict(line.split("  ")[::-1] for line in (unpacked / "SHA256SUMS").read_text().splitlines())
    assert sums.keys() == FILES - {"SHA256SUMS"}
    assert all(hashlib.sha256((unpacked / name).read_bytes()).hexdigest() == digest for name, digest in sums.items())


def test_metadata_are_the_runs(unpacked, results):
    metadata = config(unpacked, "metadata")
    assert metadata["eval_metrics"] == {
        name: value for name, value in results.items() if name.startswith("test_") and value is not None
    }
    assert metadata["network_data_format"]["inputs"]["image"]["spatial_shape"] == [16, 16, 1]
    assert metadata["autoencoder_data_format"]["outputs"]["pred"]["spatial_shape"] == [16, 16]
    assert metadata["pytorch_version"] == torch.__version__.split("+")[0]
    assert metadata["version"] in metadata["changelog"] and metadata["data_source"].startswith("OASIS-1")
    monai.bundle.verify_net_in_out(
        net_id="network_def",
        config_file=str(unpacked / "configs" / "inference.json"),
        meta_file=str(unpacked / "configs" / "metadata.json"),
        device="cpu",
    )


def test_model_card_has_the_numbers_of_the_run(finished_run, unpacked, results):
    card = (unpacked / "docs" / "README.md").read_text()
    datalist = json.loads((finished_run / "datalist.json").read_text())
    for name in ("training", "validation", "test"):
        items = datalist[name]
        patients, women = sum(item["label"] for item in items), sum(item["sex"] == "F" for item in items)
        ages = [item["age"] for item in items]
        counts = f"| {name} | {len(items)} | {len(items)} | {patients} | {len(items) - patients} | "
        years = f"{women} / {len(items) - women} | {np.mean(ages):.1f} ({min(ages):.0f} to {max(ages):.0f}) |"
        assert counts + years in card
    assert f"| accuracy | {results['test_accuracy']:.4g} |" in card and "95 % interval" in card
    weights = torch.load(finished_run / "models" / "model.pt", weights_only=True)
    numbers = sum(value.numel() for name, value in weights.items() if not name.endswith("num_batches_tracked"))
    assert f"| models/model.pt | {numbers:,} |" in card
    assert "0 leaks between the sets" in card and "Patients (label 1): `CDR > 0`" in card
    assert "not a medical device" in card and "SYNTHETIC" not in card
    sections = (CONFIGS.parent / "docs" / "README.md").read_text().split("\n## ")
    assert next(text for text in sections if text.startswith("Limits")).strip() in card


def changed_run(finished_run: Path, folder: Path, **changes: object) -> Path:
    shutil.copytree(finished_run, folder)
    path = folder / "results_evaluate.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    return folder


def test_synthetic_and_leaky_runs_say_so_everywhere(finished_run, tmp_path, capsys):
    run = changed_run(finished_run, tmp_path / "run", synthetic=True, leaks=2)
    assert main(["package", str(tmp_path / "p.zip"), "--output_dir", str(run), "--data", "our clinic"]) == 0
    assert "SYNTHETIC data, not real MRI, LEAKY: 2 found" in capsys.readouterr().out
    inside = members(tmp_path / "p.zip")
    metadata = json.loads(inside["configs/metadata.json"])
    for name in ("name", "description", "data_source", "intended_use"):
        assert "SYNTHETIC DATA, NOT REAL MRI" in metadata[name], name
    assert "the scores are worthless" in metadata["description"] and "our clinic" not in str(metadata)
    assert inside["docs/README.md"].decode().splitlines()[2].startswith("**SYNTHETIC DATA, NOT REAL MRI")


def test_other_cohorts_are_described_by_their_own_rules(finished_run, tmp_path):
    run = changed_run(finished_run, tmp_path / "run")
    text = (run / "datalist.json").read_text().replace("OAS1_", "SITE_")
    datalist = json.loads(text)
    datalist["made_from"] |= {"positive": "DX == 'AD'", "negative": ""}
    (run / "datalist.json").write_text(json.dumps(datalist))
    assert main(["package", str(tmp_path / "p.zip"), "--output_dir", str(run), "--data", "our clinic"]) == 0
    inside = members(tmp_path / "p.zip")
    metadata = json.loads(inside["configs/metadata.json"])
    assert metadata["data_source"] == "our clinic" and "docs/data_license.txt" not in inside
    assert metadata["label_classes"] == "0: control (not (DX == 'AD')), 1: patient (DX == 'AD')"
    assert "CDR > 0" not in json.dumps(metadata["network_data_format"])
    assert "OASIS" not in metadata["description"]


def test_large_files_are_named_for_the_zoo(finished_run, tmp_path, monkeypatch):
    classifier = (finished_run / "models" / "model.pt").stat().st_size
    monkeypatch.setattr("monai_cae.sharing.package.LARGE", classifier - 1)
    command = ["package", str(tmp_path / "p.zip"), "--output_dir", str(finished_run)]
    assert main([*command, "--weights-url", "https://example.org/weights/"]) == 0
    (entry,) = yaml.safe_load(members(tmp_path / "p.zip")["large_files.yml"])["large_files"]
    digest = hashlib.sha256((finished_run / "models" / "model.pt").read_bytes()).hexdigest()
    assert entry == {"path": "models/model.pt", "url": "https://example.org/weights/models/model.pt",
                     "hash_val": digest, "hash_type": "sha256"}  # fmt: skip


def mistake(capsys, *command: str) -> str:
    capsys.readouterr()
    assert main(list(command)) == 1
    printed = capsys.readouterr()
    assert printed.err.startswith("error: ") and not printed.out
    first, *places = printed.err.splitlines()
    assert ("--trust" in first and all(line.startswith("  ") for line in places)) if places else True
    return printed.err


BAD_RUNS = {
    "no folder": (lambda run: shutil.rmtree(run), "is not a folder: give a run's --output_dir"),
    "not evaluated": (lambda run: (run / "results_evaluate.json").unlink(), "run evaluate.json with --output_dir"),
    "older version": (lambda run: (run / "config_evaluate.json").unlink(), "config_evaluate.json: run evaluate.json"),
    "experiment": (lambda run: shutil.copytree(run, run / "repeat_1"), "an experiment: give one of its runs, such as"),
    "trained on": (
        lambda run: shutil.copyfile(run / "models" / "autoencoder.pt", run / "models" / "model.pt"),
        "model.pt is not the file that results_evaluate.json describes: run evaluate.json",
    ),
    "no weights": (lambda run: (run / "models" / "autoencoder.pt").unlink(), "autoencoder.pt: copy the autoencoder's"),
    "broken": (lambda run: (run / "audit.json").write_text("{"), "audit.json is not readable JSON"),
    "another file": (lambda run: (run / "datalist.json").write_text("[]"), "is not what evaluate.json writes"),
}


@pytest.mark.parametrize("name", BAD_RUNS)
def test_unfinished_runs_are_refused(finished_run, tmp_path, capsys, name):
    spoil, message = BAD_RUNS[name]
    run = changed_run(finished_run, tmp_path / "run")
    spoil(run)
    assert message in mistake(capsys, "package", str(tmp_path / "out" / "p.zip"), "--output_dir", str(run))
    assert not list(tmp_path.rglob("*.zip*"))


def test_wrong_arguments(finished_run, package, tmp_path, capsys):
    run = ["--output_dir", str(finished_run)]
    assert "must be a file NAME.zip" in mistake(capsys, "package", str(tmp_path / "p.tar"), *run)
    assert "exists: choose another name" in mistake(capsys, "package", str(package), *run)
    assert "give a run with" in mistake(capsys, "package", str(tmp_path / "p.zip"))
    assert "must start with https://" in mistake(capsys, "package", str(tmp_path / "p.zip"), *run, "--weights-url", "x")
    (tmp_path / "file").touch()
    assert "choose another place" in mistake(capsys, "package", str(tmp_path / "file" / "p.zip"), *run)
    assert "no package at" in mistake(capsys, "package", str(tmp_path / "none.zip"), "--check")
    assert "no package at" in mistake(capsys, "bundle", str(tmp_path / "out"), "--from", str(tmp_path / "none.zip"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file"]


def rewritten(package: Path, path: Path, change, sums: bool = True) -> None:
    """The package with other content; `sums` makes its hashes agree again, as somebody with bad intentions would."""
    inside = members(package)
    change(inside)
    if sums:
        listed = sorted(inside.keys() - {"SHA256SUMS"})
        inside["SHA256SUMS"] = "".join(f"{hashlib.sha256(inside[n]).hexdigest()}  {n}\n" for n in listed).encode()
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in inside.items():
            archive.writestr(f"shared_model/{name}", content)


class Malicious:
    def __reduce__(self):
        return os.mkdir, ("executed",)  # in the working directory, which a fixture looks at


def other_weights(folder: Path) -> bytes:
    save_weights(EncoderClassifier(encoder=ConvEncoder(), spatial_size=(16, 16)), folder / "other.pt")
    return (folder / "other.pt").read_bytes()


def edited(inside: dict[str, bytes], name: str, edit) -> None:
    content = json.loads(inside[name])
    edit(content)
    inside[name] = json.dumps(content).encode()


CHANGED = {
    "changed file": (lambda i, _: i.update(LICENSE=b"mine"), False, "LICENSE is not the file that SHA256SUMS names"),
    "missing file": (lambda i, _: i.pop("LICENSE"), False, "LICENSE is missing"),
    "added file": (lambda i, _: i.update(extra=b"x"), False, "extra is not named by SHA256SUMS"),
    "no hashes": (lambda i, _: i.pop("SHA256SUMS"), False, "this is no package of"),
    "no weights": (lambda i, _: i.pop("models/model.pt"), True, "no checkpoint at"),
    "no metadata": (lambda i, _: i.pop("configs/metadata.json"), True, "metadata.json: give a bundle's folder"),
    "pickled code": (
        lambda i, _: i.update({"models/model.pt": pickle.dumps(Malicious())}), True,
        "models/model.pt is not a PyTorch checkpoint of plain weights",
    ),
    "other network": (
        lambda i, folder: i.update({"models/model.pt": other_weights(folder)}), True,
        "models/model.pt holds the weights of a different architecture than EncoderClassifier",
    ),
    "newer version": (
        lambda i, _: edited(i, "configs/metadata.json", lambda m: m.update(version="7.0.0")), True,
        "has version 7.0.0, newer than this monai-cae",
    ),
    "foreign network": (
        lambda i, _: edited(i, "configs/inference.json", lambda c: c["network_def"].update(_target_="os.mkdir")), True,
        "configs/inference.json: network_def#_target_: os.mkdir",
    ),
    "expression": (
        lambda i, _: edited(i, "configs/inference.json", lambda c: c.update(channels="$__import__('os')")), True,
        "configs/inference.json: channels: $__import__('os')",
    ),
    "no definition": (
        lambda i, _: edited(i, "configs/inference.json", lambda c: c.pop("network_def")), True,
        "inference.json has no network_def",
    ),
    "hash of a file outside": (
        lambda i, _: i.update(SHA256SUMS=b"0" * 64 + b"  ../../etc/passwd\n"), False, "not a list of hashes and file",
    ),
}  # fmt: skip


@pytest.mark.fault(
    "package: files changed, added or missing, wrong or pickled weights, a definition that is not a network, hashes of "
    "/etc/passwd",
    "refused in one line by `bundle --from` and `package --check`, nothing written",
)
@pytest.mark.parametrize("name", CHANGED)
def test_changed_packages_are_refused(package, tmp_path, capsys, name):
    change, sums, message = CHANGED[name]
    spoilt = tmp_path / "spoilt.zip"
    rewritten(package, spoilt, lambda inside: change(inside, tmp_path), sums)
    found = mistake(capsys, "bundle", str(tmp_path / "out"), "--from", str(spoilt))
    assert message in found and str(spoilt) in found
    assert mistake(capsys, "package", str(spoilt), "--check") == found
    assert not (tmp_path / "out").exists() and not [path for path in tmp_path.iterdir() if path.is_dir()]


def with_members(*names: str, mode: int = 0o100644, content: bytes = b"../../somewhere"):
    def write(path: Path) -> None:
        with zipfile.ZipFile(path, "w") as archive:
            for name in names:
                info = zipfile.ZipInfo(name)
                info.external_attr = mode << 16
                archive.writestr(info, content, zipfile.ZIP_DEFLATED)

    return write


def patched(offset: int, value: bytes):
    """The package with other bytes in the directory entry of its last member."""

    def patch(path: Path) -> None:
        content = bytearray(path.read_bytes())
        start = content.rindex(b"PK\x01\x02") + offset  # weights are zips too, and have their own
        content[start : start + len(value)] = value
        path.write_bytes(content)

    return patch


BROKEN = {
    "not a zip": (lambda path: path.write_bytes(b"no zip"), "is not an intact zip file"),
    "empty": (lambda path: path.write_bytes(b""), "is not an intact zip file"),
    "nothing in it": (with_members(), "is not an intact zip file (it is empty)"),
    "truncated": (lambda path: path.write_bytes(path.read_bytes()[:-1000]), "is not an intact zip file"),
    "damaged": (
        lambda path: path.write_bytes(path.read_bytes().replace(b"Apache", b"apache")),
        "intact zip file",
    ),
    "zip slip": (with_members("a/../../x"), "a link or a path that leads out"),
    "absolute": (with_members("/tmp/x"), "a link or a path that leads out"),
    "backslash": (with_members("a\\..\\x"), "a link or a path that leads out"),
    "drive": (with_members("C:/x"), "a link or a path that leads out"),
    "symbolic link": (with_members("a/link", mode=0o120777), "a link or a path that leads out"),
    "device": (with_members("a/dev", mode=0o020666), "a link or a path that leads out"),
    "two folders": (with_members("a/x", "b/x"), "is not in the package's one folder, or is there twice"),
    "twice": (with_members("a/x", "a/X"), "is not in the package's one folder, or is there twice"),
    "no folder": (with_members("x"), "is not in the package's one folder, or is there twice"),
    "too many": (with_members(*(f"a/{number}" for number in range(201))), "has 201 members"),
    "oversized": (patched(24, struct.pack("<I", 0xFFFFFFFE)), "a package of its size has at most 0.031 GB"),
    "bomb": (with_members("a/x", "a/bomb", content=bytes(33 << 20)), "of its size has at most 0.031 GB"),
    "overlapping": (patched(42, bytes(4)), "overlaps what follows it"),
    "more than it says": (patched(24, struct.pack("<I", 1)), "is not an intact zip file (Bad CRC-32"),
    "less than it says": (patched(24, struct.pack("<I", 1 << 20)), "is smaller than it says"),
    "another name inside": (
        lambda path: path.write_bytes(path.read_bytes().replace(b"shared_model", b"shared_modem", 1)),
        "is not an intact zip file (File name in directory",
    ),
    "file and folder": (with_members("a/x/y", "a/x"), "x is both a file and a folder"),
    "name of another alphabet": (
        with_members("a/mod\u0435l.pt"),
        "a link or a path that leads out, or an odd name",
    ),
    "two ways to write it": (with_members("a/e\u0301", "a/\u00e9"), "or an odd name"),
    "device of Windows": (with_members("a/NUL.txt"), "or an odd name"),
    "final dot": (with_members("a/x."), "or an odd name"),
    "deep": (with_members("a/" + "b/" * 5 + "c"), "or an odd name"),
    "terminal": (with_members("a/x\x1b[2J"), "'a/x\\x1b[2J', a link or a path that leads out, or an odd name"),
    "encrypted": (patched(8, struct.pack("<H", 1)), "is encrypted, or compressed as no package is"),
}


@pytest.mark.fault(
    "zip: truncated, damaged, empty; `..`, absolute, backslash, drive, device name, link, device; overlapping "
    "members, sizes or names that differ between directory and file, a bomb, a file that is also a folder, names that "
    "differ by case or alphabet",
    "refused in one line, nothing written",
)
@pytest.mark.parametrize("name", BROKEN)
def test_broken_and_malicious_zips_are_refused(package, tmp_path, capsys, name):
    spoil, message = BROKEN[name]
    spoilt = tmp_path / "here" / "spoilt.zip"
    spoilt.parent.mkdir()
    shutil.copyfile(package, spoilt)
    spoil(spoilt)
    assert message in mistake(capsys, "bundle", str(tmp_path / "here" / "out"), "--from", str(spoilt))
    assert [path.name for path in tmp_path.rglob("*")] == ["here", "spoilt.zip"]


def test_a_folder_in_use_is_checked_too(unpacked, tmp_path, capsys):
    folder = tmp_path / "model"
    shutil.copytree(unpacked, folder)
    (folder / "output").mkdir()
    (folder / "output" / "predictions.csv").write_text("mine")
    assert main(["package", str(folder), "--check"]) == 0
    assert f"run --config_file {folder}/configs/inference.json" in capsys.readouterr().out
    (folder / "configs" / "train.json").write_text("{}")
    assert "train.json is not the file that" in mistake(capsys, "package", str(folder), "--check")
    assert "is not an empty folder" in mistake(capsys, "bundle", str(folder))


@pytest.mark.fault(
    "package: weights removed, exchanged or replaced by pickled code after unpacking",
    "inference refuses them in one line",
)
@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda weights, _: weights.unlink(), "no checkpoint at"),
        (
            lambda weights, folder: weights.write_bytes(other_weights(folder)),
            "a different architecture than EncoderClassif",
        ),
        (
            lambda weights, _: weights.write_bytes(pickle.dumps(Malicious())),
            "not a PyTorch checkpoint of plain weights",
        ),
    ],
)
def test_inference_in_a_spoilt_folder_ends_in_one_line(unpacked, discs, tmp_path, spoil, message):
    folder = tmp_path / "model"
    shutil.copytree(unpacked, folder)
    spoil(folder / "models" / "model.pt", tmp_path)
    file = str(folder / "configs" / "inference.json")
    with pytest.raises(RuntimeError) as error:
        monai.bundle.run(run_id="run", config_file=file, dataset_dir=str(discs), device="cpu")
    found = find_mistake(error.value)
    assert found is not None and message in str(found) and str(folder) in str(found) and "\n" not in str(found)
    assert not (folder / "output").exists()


def test_bundle_copies_everything_and_runs_where_it_is(discs, tracking_uri, tmp_path, capsys):
    folder = tmp_path / "my bundle"
    folder.mkdir()
    assert main(["bundle", str(folder)]) == 0
    assert f"--config_file '{folder}/configs/experiment.yaml'" in capsys.readouterr().out
    ours = CONFIGS.parent
    copied = {path.relative_to(folder) for path in folder.rglob("*") if path.is_file()}
    kept = [*ours.glob("configs/*.*"), *ours.glob("docs/*"), ours / "LICENSE", ours / "large_files.yml"]
    assert copied == {path.relative_to(ours) for path in kept}
    assert all((folder / path).read_bytes() == (ours / path).read_bytes() for path in copied)
    settings = {**TINY, "dataset_dir": str(discs), "tracking_uri": tracking_uri, "max_epochs": 1, "repeats": 1}
    monai.bundle.run(run_id="training", config_file=str(folder / "configs" / "experiment.yaml"), **settings)
    assert (folder / "output" / "repeat_1" / "models" / "model.pt").is_file()
    assert ConfigParser.load_config_file(str(folder / "large_files.yml")) == {"large_files": []}


def test_bundle_goes_to_new_places_only(tmp_path, capsys):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").write_text("mine")
    assert "is not an empty folder: choose another" in mistake(capsys, "bundle", str(tmp_path / "full"))
    (tmp_path / "file").write_text("mine")
    assert "is not an empty folder: choose another" in mistake(capsys, "bundle", str(tmp_path / "file"))
    assert "can't write" in mistake(capsys, "bundle", str(tmp_path / "file" / "below"))
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["file", "full", "mine"]
