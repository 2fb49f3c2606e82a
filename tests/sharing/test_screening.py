"""Packages of strangers: what could run a program is shown and refused, what our own packages hold passes."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import monai.bundle
import pytest
import yaml
from test_package import edited, members, rewritten
from tiny import CONFIGS

from monai_cae.cli import main
from monai_cae.sharing.screening import screen_files
from monai_cae.training.stages.workflow import find_mistake

RUN = "$__import__('pathlib').Path('executed').touch()"  # in the working directory, which a fixture looks at


def put(config: dict, place: str, value: object) -> None:
    *owners, name = [int(part) if part.isdigit() else part for part in place.split("/")]
    for owner in owners:
        config = config[owner]
    if name == "+":
        config.append(value)
    else:
        config[name] = value


# config, place, what is put there -> where it is shown
ATTACKS = {
    "expression": ("train", "seed", RUN, "configs/train.json: seed: $__import__"),
    "import": ("pretrain", "imports/+", "$import antigravity", "imports#1: $import antigravity"),
    "target": ("baselines", "report/_target_", "os.system", "report#_target_: os.system"),
    "target of monai": ("inference", "reader/_target_", "monai.bundle.run", "reader#_target_: monai.bundle.run"),
    "target of torch": ("inference", "inferer", {"_target_": "torch.load", "f": "x"}, "inferer#_target_: torch.load"),
    "shipped target elsewhere": (
        "inference", "inferer", {"_target_": "Compose", "transforms": []}, "inferer#_target_: Compose"),
    "reader by name": (
        "inference", "preprocessing/transforms/0/reader", "os.system", "preprocessing#transforms#0#reader: os.system"),
    "reader by reference": ("inference", "reader", "os.system", "configs/inference.json: reader: os.system"),
    "command of a reader": (
        "inference", "preprocessing/transforms/0/command", "touch executed", "transforms#0#command: touch executed"),
    "macro": ("evaluate", "network_def", "%/etc/other.json", "network_def: %/etc/other.json"),
    "macro of an address": ("evaluate", "sets", "%https://x.org/a.yaml", "sets: %https://x.org/a.yaml"),
    "relative reference": ("train", "train/trainer/device", "@##device", "train#trainer#device: @##device"),
    "hidden in a name": ("train", "reader#_target_", "os.system", "reader#_target_: os.system"),
    "hidden in MONAI's name": ("train", "reader::_target_", "os.system", "reader::_target_: os.system"),
    "addition": ("train", "+imports", ["$import antigravity"], "+imports#0: $import antigravity"),
    "mode": ("train", "reader/_mode_", "debug", "reader#_mode_: debug"),
    "requires": ("train", "reader/_requires_", ["$print(1)"], "reader#_requires_#0: $print(1)"),
    "disabled": ("train", "reader/_disabled_", "$print(1)", "reader#_disabled_: $print(1)"),
    "remark that is none": ("train", "_desc_", RUN, "_desc_: $__import__"),
    "below metadata": ("train", "_meta_", {"a": RUN}, "_meta_#a: $__import__"),
    "other server": ("train", "tracking_uri", "https://x.org", "tracking_uri: https://x.org"),
    "other place to write": ("evaluate", "predictions", "/root/.bashrc", "predictions: /root/.bashrc"),
    "relative place": ("evaluate", "cohort/table", "../../x.csv", "cohort#table: ../../x.csv"),
    "metadata": ("metadata", "intended_use", "$import antigravity", "metadata.json: intended_use: $import antig"),
    "target in metadata": ("metadata", "supported_apps", {"_target_": "os.getcwd"}, "supported_apps#_target_: os"),
    "control characters": ("train", "seed", "$0\x1b[2J\n\u202e", "seed: $0\\x1b[2J\\n\\u202e"),
}  # fmt: skip


@pytest.mark.fault(
    "package: code or a path of its own in a config or metadata.json (`$`, `$import`, os.system, torch.load or "
    "monai.bundle.run as `_target_`, in a reader or hidden in a name, `_requires_`, macros, another server or "
    "file to write)",
    r"each shown with its file and key, and refused; escape sequences and right-to-left marks are printed as "
    r"`\x1b`, `\u202e`",
)
@pytest.mark.parametrize("name", ATTACKS)
def test_configs_that_could_run_or_read_something_are_shown(unpacked, tmp_path, capsys, name):
    config, place, value, shown = ATTACKS[name]
    (tmp_path / "configs").mkdir()
    content = json.loads((unpacked / "configs" / f"{config}.json").read_text())
    put(content, place, value)
    (tmp_path / "configs" / f"{config}.json").write_text(json.dumps(content))
    lines = [str(doubt) for doubt in screen_files(tmp_path, [f"configs/{config}.json"])]
    assert len(lines) == (2 if name == "target of torch" else 1) and shown in lines[0]
    assert lines[0].isprintable()


FOREIGN = {
    "logging.conf": ({"configs/logging.conf": b"[handlers]\nargs=(exec('import this'),)"}, "logging.conf: is not"),
    "script": ({"scripts/__init__.py": b"import os; os.mkdir('executed')"}, "scripts/__init__.py: a file that no pack"),
    "library": ({"torch.py": b""}, "torch.py: a file that no package has"),
    "config": ({"configs/extra.json": b"{}"}, "configs/extra.json: a file that no package has"),
    "overlay": ({"configs/with_selection.yaml": b"a: $1"}, "with_selection.yaml: is not the file that monai-cae ships"),
    "yaml bomb": ({"large_files.yml": b"large_files: &a [*a, *a]"}, "large_files.yml: is not a list of weights"),
    "download": (
        {"large_files.yml": b"large_files:\n- {path: ../x, url: 'https://x.org', hash_val: a, hash_type: sha256}"},
        "large_files.yml: large_files#0: ../x from https://x.org",
    ),
}  # fmt: skip


@pytest.mark.fault(
    "package: code in logging.conf, `scripts/`, torch.py, an extra config, a weight list with a download or YAML "
    "aliases that multiply",
    "each shown and refused, nothing written",
)
@pytest.mark.parametrize("name", FOREIGN)
def test_files_that_no_package_has_are_shown(package, tmp_path, capsys, name):
    added, shown = FOREIGN[name]
    rewritten(package, tmp_path / "spoilt.zip", lambda inside: inside.update(added))
    for command in (["bundle", str(tmp_path / "out"), "--from"], ["package", "--check"]):
        assert main([*command, str(tmp_path / "spoilt.zip")]) == 1
        printed = capsys.readouterr()
        assert f"\n  {shown}" in printed.err or f"\n  configs/{shown}" in printed.err
    assert [path.name for path in tmp_path.iterdir()] == ["spoilt.zip"]


def test_what_is_refused_can_be_trusted_and_then_says_so(package, tmp_path, capsys):
    spoilt, folder = tmp_path / "spoilt.zip", tmp_path / "model"
    rewritten(
        package, spoilt, lambda inside: edited(inside, "configs/train.json", lambda config: config.update(seed=RUN))
    )
    assert main(["package", str(spoilt), "--check"]) == 1
    refused = capsys.readouterr().err
    assert refused.startswith(f"error: {spoilt}: 1 place is not what this monai-cae ships") and "--trust" in refused
    assert main(["package", str(spoilt), "--check", "--trust"]) == 0
    assert main(["bundle", str(folder), "--from", str(spoilt), "--trust"]) == 0
    printed = capsys.readouterr().out
    assert printed.count("and will run (1 place: configs/train.json: seed: $__import__(") == 2
    assert json.loads((folder / "configs" / "train.json").read_text())["seed"] == RUN
    assert main(["package", str(folder), "--check"]) == 1
    assert main(["export", str(folder), str(tmp_path / "model.ts")]) == 0  # inference.json is what it runs


@pytest.mark.fault(
    "package: a `$` in the inference.json that `monai-cae export` runs",
    "shown and refused, run only with `--trust`",
)
def test_export_runs_an_inference_config_only_when_told_to(unpacked, tmp_path, capsys):
    folder = tmp_path / "model"
    shutil.copytree(unpacked, folder)
    path = folder / "configs" / "inference.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"image_size": "$print('executed') or 16"}))
    assert main(["export", str(folder), str(tmp_path / "model.ts")]) == 1
    printed = capsys.readouterr()
    assert "image_size: $print('executed') or 16" in printed.err and not printed.out
    assert main(["export", str(folder), str(tmp_path / "model.ts"), "--trust"]) == 0
    printed = capsys.readouterr().out
    assert "executed" in printed and "and will run (1 place: configs/inference.json: image_size: $print(" in printed


@pytest.mark.fault("package: monai.py added next to it after unpacking", "shown, refused")
def test_code_beside_an_unpacked_package_is_shown(unpacked, tmp_path, capsys):
    folder = tmp_path / "model"
    shutil.copytree(unpacked, folder)
    (folder / "monai.py").write_text("")
    assert main(["package", str(folder), "--check"]) == 1
    assert "  monai.py: a file that no package has" in capsys.readouterr().err


def test_everything_that_is_shipped_passes(tmp_path):
    names = [f"configs/{path.name}" for path in CONFIGS.iterdir() if path.is_file()]
    assert len(names) > 10 and screen_files(CONFIGS.parent, names) == []


AUTOENCODERS = [f"with_{name}.yaml" for name in ("masked", "k_sparse", "winner_take_all", "z_layer", "variational")]


@pytest.mark.parametrize("overlay", ["with_selection.yaml", "with_networks.yaml", *AUTOENCODERS])
def test_settings_of_the_overlays_pass(tmp_path, overlay):
    """As a variant or `stages` puts them into train.json and evaluate.json."""
    content = yaml.safe_load((CONFIGS / overlay).read_text())
    given = {
        **content.get("+variants", {}),
        **content.get("select", {}).get("candidates", {}),
        "stages": {
            name.removeprefix("+stages#"): changed for name, changed in content.items() if name.startswith("+stages#")
        },
    }
    (tmp_path / "configs").mkdir()
    count = 0
    for settings in given.values():
        for stage, changed in settings.items():
            name = "train" if stage == "classifier" else stage
            config = json.loads((CONFIGS / f"{name}.json").read_text())
            for place, value in changed.items():
                if place != "pretrained":  # the machine's own, which a package does not keep
                    put(config, place.replace("#", "/"), value)
                    count += 1
            (tmp_path / "configs" / f"{name}.json").write_text(json.dumps(config))
            assert screen_files(tmp_path, [f"configs/{name}.json"]) == []
    assert count >= 3


def test_running_configs_is_monais_and_not_screened(unpacked, tmp_path, discs):
    """What the documentation says: look first, `python -m monai.bundle run` executes any config."""
    folder = tmp_path / "model"
    shutil.copytree(unpacked, folder)
    path = folder / "configs" / "inference.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"seed": "$open('/nowhere/at/all')"}))
    with pytest.raises(RuntimeError) as error:
        monai.bundle.run(run_id="run", config_file=str(path), dataset_dir=str(discs), device="cpu")
    assert find_mistake(error.value) is None and "/nowhere/at/all" in str(error.value)
    assert "antigravity" not in sys.modules
    assert members(Path(shutil.make_archive(str(tmp_path / "zip"), "zip", folder.parent, folder.name)))
