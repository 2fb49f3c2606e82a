"""A finished run, read from its output folder as data."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from monai_cae.data.cohort.tasks import RULES, recorded_rules
from monai_cae.data.splits.datalists import SETS
from monai_cae.errors import MonaiCaeError
from monai_cae.files import sha256_of, unmarked
from monai_cae.sharing.bundle import CHECKPOINTS
from monai_cae.sharing.executed import as_written
from monai_cae.training.models.reference import Reference
from monai_cae.training.models.strangers import reference_path
from monai_cae.training.stages.run import data_kind

SETTING = {"classifier": "checkpoint", "autoencoder": "pretrained"}  # of evaluate.json, by network
_OASIS_1 = re.compile(r"OAS1_\d{4}")


@dataclass(frozen=True)
class Run:
    """What pretrain.json, train.json and evaluate.json have left in one `output_dir`; of a variant of an experiment,
    datalist and autoencoder are those of its split.

    Attributes:
        folder: the `output_dir`.
        configs: stage -> config as it was executed, not evaluated.
        results: of the stage evaluate.
        audit: of the three sets, see `monai_cae.data.Audit.to_dict`.
        positive, negative: rules of patients and controls.
        rules: the settings of `cohort` that they were made by, as the datalist records them.
        oasis: every subject is of OASIS-1 by its name; a phantom's have such names, too, and are not.
        checkpoints: place in a bundle -> the weights that were evaluated.
        strangers: what tells strangers; None where it is not there, or about another autoencoder.
        members: networks that are one; see `monai_cae.sharing.ensembles`.
    """

    folder: Path
    configs: dict[str, dict[str, Any]]
    results: dict[str, Any]
    audit: dict[str, Any]
    positive: str
    negative: str
    rules: dict[str, Any]
    oasis: bool
    checkpoints: dict[Path, Path]
    strangers: Path | None
    members: int = 1

    @property
    def synthetic(self) -> bool:
        """The images are a phantom's, not real MRI."""
        return bool(self.results["synthetic"])

    @property
    def leaks(self) -> int:
        """How many were found between the sets."""
        return int(self.results["leaks"])

    @property
    def caveats(self) -> list[str]:
        """What its evaluation found doubtful, a sentence each."""
        return list(self.results.get("caveats", []))

    @property
    def kind(self) -> str:
        """What to call its data, loudly where they are synthetic or leaky."""
        return data_kind(self.synthetic, self.leaks)

    @property
    def number(self) -> str:
        """What was predicted, where it is a number; "" for patients and controls."""
        return "" if self.audit["sets"]["test"]["classes"] else str(self.results["target"])

    @property
    def scores(self) -> dict[str, float]:
        """Measured on the test set, each named `test_*`."""
        return {k: v for k, v in self.results.items() if k.startswith("test_") and isinstance(v, (int, float))}


def read_run(output_dir: str | Path) -> Run:
    """Read a run whose test subjects have been evaluated.

    Raises:
        MonaiCaeError: a stage did not run here, a file is broken, or the weights are not the ones that were evaluated.
    """
    folder = Path(output_dir)
    if not folder.is_dir():
        raise MonaiCaeError(f"{folder} is not a folder: give a run's --output_dir")
    several = sorted(path.parent for path in folder.glob("repeat_*/**/results_evaluate.json"))
    if several:
        raise MonaiCaeError(
            f"{folder} holds an experiment: give one of its runs, such as {several[0]}, or package all of them as one "
            "network with --ensemble"
        )
    results = _read(folder, "results_evaluate.json", "evaluate", "synthetic", "leaks")
    split = folder.resolve().parents[1] if folder.resolve().parent.name == "variants" else folder
    datalist = _read(split, "datalist.json", "evaluate", *SETS)
    homes = {"pretrain": _pretrained_in(folder, split, results), "train": folder}
    found = {stage: _of_variant(home, split, Path(f"config_{stage}.json")) for stage, home in homes.items()}
    stages = {stage: file.parent for stage, file in found.items() if file.is_file()} | {"evaluate": folder}
    checkpoints = _evaluated(folder, split, results)
    recorded = {**(datalist.get("made_from") or {}), **(datalist.get("recipe") or {})}
    positive, negative = recorded_rules(recorded)
    return Run(
        folder=folder,
        configs={stage: as_written(_read(where, f"config_{stage}.json", stage)) for stage, where in stages.items()},
        results=results,
        audit=_read(folder, "audit.json", "evaluate", "sets", "checks"),
        positive=positive or "label 1 of a given datalist",
        negative=negative or "label 0 of a given datalist",
        rules={name: recorded[name] for name in RULES if name in recorded},
        oasis=not results["synthetic"]
        and all(_OASIS_1.match(item["subject"]) for name in SETS for item in datalist[name]),
        checkpoints=checkpoints,
        strangers=_strangers(checkpoints[CHECKPOINTS["autoencoder"]]),
    )


def _strangers(autoencoder: Path) -> Path | None:
    path = reference_path(autoencoder)
    return path if path.is_file() and Reference.load(path).autoencoder == sha256_of(autoencoder) else None


def _read(folder: Path, name: str, stage: str, *keys: str) -> dict[str, Any]:
    path = folder / name
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise MonaiCaeError(f"no {path}: run {stage}.json with --output_dir {folder} first") from error
    except (OSError, ValueError) as error:
        raise MonaiCaeError(f"{path} is not readable JSON ({error}): run {stage}.json again") from error
    if not isinstance(content, dict) or not all(key in content for key in keys):
        raise MonaiCaeError(f"{path} is not what {stage}.json writes: run it again")
    return unmarked(content, path)


def _of_variant(folder: Path, split: Path, name: Path) -> Path:
    """A file of the run's own, or else of the split that it is a variant on."""
    return folder / name if (folder / name).is_file() else split / name


def _pretrained_in(folder: Path, split: Path, results: Mapping[str, Any]) -> Path:
    """Where the autoencoder lies that was evaluated: the run's own folder, its split's, or another variant's."""
    wanted = results.get("weights", {}).get(SETTING["autoencoder"])
    places = [place / CHECKPOINTS["autoencoder"] for place in (folder, split, *sorted(split.glob("variants/*")))]
    found = (path for path in places if path.is_file() and sha256_of(path) == wanted)
    return next((path.parents[1] for path in found), folder)


def _evaluated(folder: Path, split: Path, results: Mapping[str, Any]) -> dict[Path, Path]:
    found = {}
    for network, relative in CHECKPOINTS.items():
        home = _pretrained_in(folder, split, results) if network == "autoencoder" else folder
        path = _of_variant(home, split, relative)
        if not path.is_file():
            raise MonaiCaeError(f"no {path}: copy the {network}'s weights there and run evaluate.json again")
        if results.get("weights", {}).get(SETTING[network]) != sha256_of(path):
            raise MonaiCaeError(
                f"{path} is not the file that results_evaluate.json describes: run evaluate.json with --output_dir "
                f"{folder} again"
            )
        found[relative] = path
    return found
