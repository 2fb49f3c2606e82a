"""The checks that MONAI's model zoo runs on a pull request, on this bundle or on a package of `monai-cae package`.

    python tools/zoo_checks.py [BUNDLE_OR_PACKAGE] [--schema FILE]

They follow CONTRIBUTING.md and ci/verify_bundle.py of Project-MONAI/model-zoo. Exit status 1 if one fails. Nothing is
downloaded: --schema names the file that metadata.json's "schema" links to, for MONAI's own verify_metadata. Configs are
executed, as the zoo does: check only what you trust.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import re
import shutil
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from monai_cae.errors import MonaiCaeError
from monai_cae.files import sha256_of
from monai_cae.folders import bundle_files, bundle_folder
from monai_cae.sharing import unpack

NECESSARY = ("configs/metadata.json", "LICENSE", "docs/README.md")
WEIGHTS = "models/model.pt"
LARGEST = 25_000_000
LARGE_FILES = ("large_files.yml", "large_files.yaml", "large_files.json")
METADATA = {  # of meta_schema_20240725.json
    "schema": str, "version": str, "monai_version": str, "pytorch_version": str, "numpy_version": str,
    "required_packages_version": dict, "task": str, "description": str, "authors": str, "copyright": str,
    "network_data_format": dict,
}  # fmt: skip
TENSOR = {"type", "format", "num_channels", "spatial_shape", "dtype", "value_range"}
KEYS = {
    "inference.json": ("bundle_root", "device", "network_def", "inferer", "output_dir"),
    "train.json": (
        "bundle_root", "device", "dataset_dir", "output_dir", "train#trainer", "train#trainer#max_epochs",
        "train#dataset", "train#dataset#data", "train#handlers", "train#preprocessing", "train#inferer",
        "train#key_metric", "validate#evaluator", "validate#handlers", "validate#dataset", "validate#dataset#data",
        "validate#preprocessing", "validate#inferer", "validate#key_metric",
    ),
}  # fmt: skip
FORMATTERS = {
    "isort": ["--check", "--profile", "black", "--line-length", "120"],
    "black": ["--check", "--line-length", "120", "--skip-magic-trailing-comma"],
    "flake8": ["--max-line-length", "120", "--select", "B,C,E,F,N,P,T4,W,B9",
               "--ignore", "E203,E501,E741,W503,W504,C408,N812,B023"],
}  # fmt: skip
_PERSONAL = re.compile(r"/(?:home|Users|root|mnt|tmp)/|[A-Za-z]:\\\\Users")


class Failed(Exception):
    """Why a check has failed."""


class LeftOut(Exception):
    """Why a check could not be done."""


@dataclass(frozen=True)
class Bundle:
    """A copy of the bundle that checks may write to."""

    folder: Path
    schema: Path | None = None

    def path(self, name: str) -> str:
        return str(self.folder / name)

    def json(self, name: str) -> dict[str, Any]:
        try:
            return json.loads((self.folder / name).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise Failed(f"{name}: {error}") from error

    def files(self) -> Iterator[Path]:
        return (path for path in sorted(self.folder.rglob("*")) if path.is_file())

    def large_files(self) -> list[dict[str, str]]:
        found = [self.folder / name for name in LARGE_FILES if (self.folder / name).is_file()]
        return [] if not found else yaml.safe_load(found[0].read_text(encoding="utf-8"))["large_files"]


def necessary_files(bundle: Bundle) -> str:
    missing = [name for name in NECESSARY if not (bundle.folder / name).is_file()]
    if missing:
        raise Failed(f"{', '.join(missing)} missing")
    return ", ".join(NECESSARY)


def preferred_files(bundle: Bundle) -> str:
    if not any((bundle.folder / "configs" / f"inference.{suffix}").is_file() for suffix in ("json", "yaml", "yml")):
        raise Failed("configs/inference.json missing")
    if not (bundle.folder / WEIGHTS).is_file() and WEIGHTS not in {entry["path"] for entry in bundle.large_files()}:
        raise LeftOut(f"no {WEIGHTS} is published: check a package, or name the bundle in the zoo's exclude list")
    return f"{WEIGHTS}, configs/inference.json"


def large_files(bundle: Bundle) -> str:
    named = {}
    for entry in bundle.large_files():
        path = bundle.folder / entry["path"]
        if not path.resolve().is_relative_to(bundle.folder.resolve()):
            raise Failed(f"{entry['path']} leads out of the bundle")
        if not str(entry.get("url", "")).startswith("https://"):
            raise Failed(f"{entry['path']} has no url to download it from")
        if path.is_file() and entry.get("hash_type") == "sha256" and entry["hash_val"] != sha256_of(path):
            raise Failed(f"{entry['path']} has another hash than large_files.yml says")
        named[path] = entry
    too_large = [path for path in bundle.files() if path.stat().st_size > LARGEST and path not in named]
    if too_large:
        sizes = (f"{path.relative_to(bundle.folder)} has {path.stat().st_size / 1e6:.0f} MB" for path in too_large)
        raise Failed(f"{', '.join(sizes)}: upload it, and package with --weights-url so that large_files.yml names it")
    return f"no file above {LARGEST // 10**6} MB{f' but {len(named)} in large_files.yml' if named else ''}"


def version_and_changelog(bundle: Bundle) -> str:
    metadata = bundle.json("configs/metadata.json")
    if metadata.get("version") not in metadata.get("changelog", {}):
        raise Failed(f"version {metadata.get('version')} is not in the changelog")
    return f"version {metadata['version']}"


def requirements(bundle: Bundle) -> str:
    metadata = bundle.json("configs/metadata.json")
    pinned = {name: metadata.get(name, "") for name in ("monai_version", "pytorch_version", "numpy_version")}
    pinned |= metadata.get("required_packages_version", {}) | metadata.get("optional_packages_version", {})
    bad = [f"{name} {number}" for name, number in pinned.items() if not re.fullmatch(r"\d+(\.\d+)+", str(number))]
    if bad:
        raise Failed(f"not versions that pip can be given: {', '.join(bad)}")
    return f"pip has to find {', '.join(f'{k}=={v}' for k, v in metadata['required_packages_version'].items())}"


def metadata_format(bundle: Bundle) -> str:
    if bundle.schema is not None:
        from monai.bundle import verify_metadata

        copied = bundle.folder / "eval" / "schema.json"  # where the zoo puts it; MONAI downloads no file that is there
        copied.parent.mkdir(exist_ok=True)
        shutil.copyfile(bundle.schema, copied)
        verify_metadata(meta_file=bundle.path("configs/metadata.json"), filepath=str(copied))
        return f"against {bundle.schema.name}"
    metadata = bundle.json("configs/metadata.json")
    wrong = [name for name, kind in METADATA.items() if not isinstance(metadata.get(name), kind)]
    for name, formats in metadata.items():
        if name.endswith("_data_format"):
            tensors = [tensor for side in formats.values() for tensor in side.values() if isinstance(tensor, dict)]
            if not {"inputs", "outputs"} <= formats.keys() or any(not tensor.keys() >= TENSOR for tensor in tensors):
                wrong.append(name)
    if wrong:
        raise Failed(f"missing or of another type: {', '.join(wrong)}")
    return "required names and types; --schema FILE checks all"


def key_names(bundle: Bundle) -> str:
    missing = []
    for file, keys in KEYS.items():
        config = bundle.json(f"configs/{file}")
        missing += [f"{file} {key}" for key in keys if not _has(config, key.split("#"))]
        if "ValidationHandler" in json.dumps(config) and '"interval": "@val_interval"' not in json.dumps(config):
            missing.append(f"{file} val_interval as the interval of ValidationHandler")
    if missing:
        raise Failed(f"missing: {', '.join(missing)}")
    return "as CONTRIBUTING.md names them"


def _has(config: Any, names: list[str]) -> bool:
    for name in names:
        if not isinstance(config, dict) or name not in config:
            return False
        config = config[name]
    return True


def no_personal_paths(bundle: Bundle) -> str:
    for path in (bundle.folder / "configs").iterdir():
        found = _PERSONAL.search(path.read_text(encoding="utf-8"))
        if found:
            raise Failed(f"configs/{path.name} has {found[0]}")
    return "none in configs/"


def json_format(bundle: Bundle) -> str:
    for path in bundle.files():
        if path.suffix == ".json" and path.parent.name == "configs":
            text, content = path.read_text(encoding="utf-8"), bundle.json(f"configs/{path.name}")
            if text.rstrip("\n") not in {json.dumps(content, indent=4, ensure_ascii=ascii) for ascii in (True, False)}:
                raise Failed(f"configs/{path.name} is not indented by 4 spaces throughout")
    return "indented by 4 spaces"


def python_format(bundle: Bundle) -> str:
    files = [str(path) for path in bundle.files() if path.suffix == ".py"]
    if not files:
        return "no .py file in the bundle"
    for tool, options in FORMATTERS.items():
        if importlib.util.find_spec(tool) is None:
            raise LeftOut(f"{tool} is not installed, and the bundle has {len(files)} .py files")
        done = subprocess.run(
            [sys.executable, "-m", tool, *options, *files], capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise Failed(f"{tool}: {(done.stdout + done.stderr).strip().splitlines()[0]}")
    return f"{len(files)} files, by {', '.join(FORMATTERS)}"


def properties(bundle: Bundle) -> str:
    import nibabel as nib
    import numpy as np
    from monai.bundle import create_workflow

    _weights(bundle)
    scan = bundle.folder / "scan.nii"
    nib.save(nib.Nifti1Image(np.ones((8, 8, 1), np.int16), np.eye(4)), scan)
    workflow = create_workflow(
        workflow_type="inference",
        bundle_root=str(bundle.folder),
        config_file=bundle.path("configs/inference.json"),
        meta_file=bundle.path("configs/metadata.json"),
        dataset_dir=str(scan),
        allow_other_frame=True,  # the scan lies nowhere
        device="cpu",
    )
    missing = workflow.check_properties()
    if missing:
        raise Failed(f"inference.json has no {', '.join(missing)}")
    return "MONAI's, of inference.json"


def data_shape(bundle: Bundle) -> str:
    from monai.bundle import verify_net_in_out

    verify_net_in_out(
        net_id="network_def",
        meta_file=bundle.path("configs/metadata.json"),
        config_file=bundle.path("configs/inference.json"),
        bundle_root=str(bundle.folder),
        device="cpu",
    )
    return "network_def takes and gives what metadata.json says"


def torchscript(bundle: Bundle) -> str:
    from monai.bundle import ckpt_export

    random = _weights(bundle)
    ckpt_export(
        net_id="network_def",
        filepath=bundle.path("models/verify_model.ts"),
        ckpt_file=bundle.path(WEIGHTS),
        meta_file=bundle.path("configs/metadata.json"),
        config_file=bundle.path("configs/inference.json"),
        bundle_root=str(bundle.folder),
    )
    return "exported with random weights" if random else f"exported with {WEIGHTS}"


def _weights(bundle: Bundle) -> bool:
    """Whether the weights are random ones, written because the bundle has none: the zoo's CI does so too."""
    import torch
    from monai.bundle import ConfigParser

    marker, weights = bundle.folder / "random_weights", bundle.folder / WEIGHTS
    if not weights.is_file():
        weights.parent.mkdir(exist_ok=True)
        network = ConfigParser(bundle.json("configs/inference.json")).get_parsed_content("network_def")
        torch.save(network.state_dict(), weights)
        marker.touch()
    return marker.is_file()


def tensorrt_is_mentioned(bundle: Bundle) -> str:
    if "TensorRT" not in (bundle.folder / "docs" / "README.md").read_text(encoding="utf-8"):
        raise Failed("docs/README.md does not say whether TensorRT works")
    return "docs/README.md says that it was not tried"


CHECKS: tuple[Callable[[Bundle], str], ...] = (
    necessary_files, preferred_files, large_files, version_and_changelog, requirements, metadata_format, key_names,
    no_personal_paths, json_format, python_format, tensorrt_is_mentioned, properties, data_shape, torchscript,
)  # fmt: skip


def run_checks(bundle: Bundle) -> bool:
    """Do every check, print a line for each, and tell whether none has failed."""
    passed = True
    for check in CHECKS:
        try:
            state, why = "ok", check(bundle)
        except LeftOut as reason:
            state, why = "left out", str(reason)
        except Exception as error:  # whatever MONAI raises, the other checks go on
            state, why, passed = "failed", " ".join(str(error).split()), False
        print(f"{state:<9} {check.__name__.replace('_', ' '):<23} {why}", flush=True)
    return passed


def main(arguments: list[str] | None = None) -> int:
    """Check a copy of a bundle's folder, or an unpacked package."""
    parser = argparse.ArgumentParser(description="The model zoo's checks on a bundle.")
    parser.add_argument("bundle", type=Path, nargs="?", help="folder or zip of `monai-cae package` (default: ours)")
    parser.add_argument("--schema", type=Path, help="the JSON schema of metadata.json, downloaded")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder, "bundle")
        try:
            if options.bundle is None:
                for file in bundle_files():
                    (copy / file).parent.mkdir(parents=True, exist_ok=True)
                    shutil.copyfile(bundle_folder() / file, copy / file)
            elif options.bundle.is_dir():
                if not (options.bundle / "configs").is_dir():
                    raise MonaiCaeError(f"{options.bundle} has no configs/: give a bundle's folder or a package")
                shutil.copytree(options.bundle, copy, ignore=shutil.ignore_patterns("output", "__pycache__"))
            else:
                unpack(options.bundle, copy)
        except MonaiCaeError as error:
            print(f"error: {error}", file=sys.stderr)
            return 1
        with warnings.catch_warnings():  # that configs are executed: the help says so
            warnings.filterwarnings("ignore", message="parsing config_file")
            return int(not run_checks(Bundle(copy, options.schema)))


if __name__ == "__main__":
    sys.exit(main())
