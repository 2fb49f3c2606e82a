"""A finished run as a MONAI bundle in one zip: weights, configs as executed, metadata, model card, hashes."""

from __future__ import annotations

import json
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import ZIP_STORED, ZipFile, ZipInfo

import yaml

from monai_cae.errors import MonaiCaeError
from monai_cae.files import replacing, sha256_of
from monai_cae.folders import bundle_folder
from monai_cae.sharing.bundle import CHECKPOINTS, STRANGERS, open_bundle
from monai_cae.sharing.card import EXPERIMENT_CARD, data_source, experiment_card, model_card, run_metadata
from monai_cae.sharing.ensembles import read_ensemble
from monai_cae.sharing.executed import as_defaults, carried_over
from monai_cae.sharing.runs import Run, read_run
from monai_cae.sharing.screening import EVALUATED
from monai_cae.sharing.unpack import SUMS, check_files, fitted_network

LARGE = 25_000_000  # bytes; what the model zoo takes as a file of its repository


@dataclass(frozen=True)
class Package:
    """A package that has been written.

    Attributes:
        path: the zip.
        run: what it is of.
        sha256, size: of the zip; size in bytes.
        doubts: what its configs have besides what monai-cae ships; whoever unpacks it has to trust these.
    """

    path: Path
    run: Run
    sha256: str
    size: int
    doubts: tuple[str, ...] = ()


def package_run(
    output_dir: str | Path, path: str | Path, *, data: str = "", weights_url: str = "", ensemble: bool = False
) -> Package:
    """Write a run as a MONAI bundle that needs nothing else than this package to be installed.

    In it are the weights that evaluate.json has tested, configs with the run's settings as defaults and no path of this
    machine, metadata.json and a model card with the run's numbers, the card of its experiment where it is part of one,
    LICENSE, and SHA256SUMS. No image, no subject ID; but, so that strangers can be told, up to 4,096 numbers of each
    training image's code.
    The same run gives the same bytes under the same name.

    Args:
        output_dir: of the run.
        path: new file, `NAME.zip`; all that is in it lies in the folder `NAME`.
        data: where the images come from, for the model card; a phantom and OASIS-1 are told by themselves.
        weights_url: address of a folder that the weights are going to be published in, for large_files.yml.
        ensemble: `output_dir` is of an experiment, and the networks of all its parts are one, see `read_ensemble`.

    Raises:
        MonaiCaeError: the run is not finished, its weights do not fit its config, or the file is there already.
    """
    path = Path(path)
    if path.suffix != ".zip" or not path.stem:
        raise MonaiCaeError(f"{path} must be a file NAME.zip")
    if path.exists():
        raise MonaiCaeError(f"{path} exists: choose another name, or delete it")
    if weights_url and not weights_url.startswith("https://"):
        raise MonaiCaeError(f"--weights-url must start with https://, not {weights_url!r}")
    place = "choose another place for the package"
    with (
        tempfile.TemporaryDirectory() as beside,
        replacing(path, place) as temporary,
        tempfile.TemporaryDirectory() as folder,
    ):
        run = (
            read_ensemble(output_dir, Path(beside, CHECKPOINTS["classifier"].name))
            if ensemble
            else read_run(output_dir)
        )
        _fill(Path(folder), run, data, weights_url)
        doubts = check_files(Path(folder), exact=True, trust=True).doubts
        _zip(Path(folder), temporary, path.stem)
    return Package(path, run, sha256_of(path), path.stat().st_size, doubts)


def _fill(folder: Path, run: Run, data: str, weights_url: str) -> None:
    ours = bundle_folder()
    for name in ("configs", "docs", "models"):
        (folder / name).mkdir()
    for name in ("LICENSE", "configs/logging.conf", *(["docs/data_license.txt"] if run.oasis else [])):
        shutil.copyfile(ours / name, folder / name)
    for place, checkpoint in run.checkpoints.items():
        shutil.copyfile(checkpoint, folder / place)
    if run.strangers:
        shutil.copyfile(run.strangers, folder / STRANGERS)
    shipped = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in (ours / "configs").glob("*.json")}
    metadata = shipped.pop("metadata")
    configs = _configs(run, shipped)
    for name, config in configs.items():
        _write_json(folder / "configs" / f"{name}.json", config)
    predict, source = configs["inference"], data_source(run, metadata, data)
    _write_json(folder / "configs" / "metadata.json", run_metadata(run, metadata, predict, source))
    bundle = open_bundle(folder)
    weights = {
        path: (_numbers(fitted_network(bundle, network)), (folder / path).stat().st_size)
        for network, path in CHECKPOINTS.items()
    }
    card = (ours / "docs" / "README.md").read_text(encoding="utf-8")
    whole = experiment_card(run)
    if whole:
        _write(folder / EXPERIMENT_CARD, whole)
    written = model_card(run, predict, card, source=source, weights=weights, experiment=bool(whole))
    _write(folder / "docs" / "README.md", written)
    large = [path for path, (_, size) in weights.items() if size > LARGE]
    if weights_url and large:
        _write(folder / "large_files.yml", _large_files(folder, large, weights_url))
    files = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    _write(folder / SUMS, "".join(f"{sha256_of(folder / name)}  {name}\n" for name in files))


def _configs(run: Run, shipped: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Stages as they were executed; the others, inference.json above all, changed as evaluate.json was."""
    configs = {
        name: as_defaults(run.configs[name], config)
        if name in run.configs
        else carried_over(config, run.configs["evaluate"], shipped["evaluate"])
        for name, config in shipped.items()
    }
    if not isinstance(configs["inference"]["threshold"], (int, float)):  # chosen on the validation subjects
        configs["inference"]["threshold"] = run.results["threshold"]
    configs["inference"]["precision"] = "float32"  # as exports compute; bfloat16 is 1e-3 away from them
    configs["evaluate"] |= EVALUATED
    return configs


def _numbers(network: Any) -> int:
    return sum(tensor.numel() for tensor in network.state_dict().values() if tensor.is_floating_point())


def _large_files(folder: Path, paths: list[Path], weights_url: str) -> str:
    entries = [
        {
            "path": path.as_posix(),
            "url": f"{weights_url.rstrip('/')}/{path.as_posix()}",
            "hash_val": sha256_of(folder / path),
            "hash_type": "sha256",
        }
        for path in paths
    ]
    return yaml.safe_dump({"large_files": entries}, sort_keys=False)


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8", newline="\n")


def _write_json(path: Path, content: Any) -> None:
    _write(path, json.dumps(content, indent=4, ensure_ascii=False) + "\n")


def _zip(folder: Path, path: Path, base: str) -> None:
    """Uncompressed, in the order of the names, with one date: the same files give the same bytes on every machine."""
    with ZipFile(path, "w", ZIP_STORED) as archive:
        for file in sorted(file for file in folder.rglob("*") if file.is_file()):
            info = ZipInfo(f"{base}/{file.relative_to(folder).as_posix()}", (1980, 1, 1, 0, 0, 0))
            info.create_system = 3  # Unix, on every system
            info.external_attr = 0o100644 << 16
            info.file_size = file.stat().st_size  # or it would be written as if it had more than 4 GB
            with file.open("rb") as source, archive.open(info, "w") as target:
                shutil.copyfileobj(source, target)
