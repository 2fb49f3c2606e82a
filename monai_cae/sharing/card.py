"""What a package says of itself: its metadata and its model card, with the numbers of its run."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from monai_cae import __version__
from monai_cae.data import Extraction, SliceExtraction
from monai_cae.data.splits.datalists import SETS
from monai_cae.errors import MonaiCaeError
from monai_cae.evaluation.intervals import wilson_interval
from monai_cae.sharing.runs import Run
from monai_cae.training.results.caveats import SYNTHETIC, data_caveats
from monai_cae.training.stages.workflow import evaluated

EXPERIMENT_CARD = Path("docs", "model_card_experiment.md")
_PAPER = ("CDR > 0", "CDR == 0")
_VERSIONS = {"monai_version": "monai", "pytorch_version": "torch", "numpy_version": "numpy"}
# of the bundle's own card; they hold for every run
_SHARED_SECTIONS = ("Intended use", "Input and output", "Metrics", "Limits")
_OF_CLASSES = ("Input and output", "Metrics")
_SHOWN_SETTINGS = ("image_size", "channels", "seed", "threshold")


def warning(run: Run) -> str:
    """What has to be said first: "" for a run on real data without a leak."""
    return " ".join(data_caveats(run.results))


def experiment_card(run: Run) -> str:
    """The model card of the experiment that has the run as one of its parts; "" for a run on its own.

    Raises:
        MonaiCaeError: the card, which people may have written in, names a subject of the run.
    """
    here = run.folder.resolve()
    for folder in here.parents:
        card, summary = folder / "model_card.md", folder / "summary.json"
        if not (card.is_file() and summary.is_file()):
            continue
        try:
            parts = {part["folder"] for part in json.loads(summary.read_text(encoding="utf-8"))["results"]}
            text = card.read_text(encoding="utf-8")
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise MonaiCaeError(f"{summary} or {card} is not readable ({error}): run the experiment again") from error
        if here.relative_to(folder).as_posix() in parts:
            _refuse_names(text, card, here / "datalist.json")
            return text
    return ""


def _refuse_names(text: str, card: Path, datalist: Path) -> None:
    """A subject called 12 can't be told from a number, OAS1_0012 can."""
    sets = json.loads(datalist.read_text(encoding="utf-8"))
    subjects = {str(item["subject"]) for name in SETS for item in sets[name]}
    words = set(re.findall(r"[\w.-]*\w", text))
    named = sorted(words & {name for name in subjects if re.search(r"[^\W\d]", name) and re.search(r"\d", name)})
    if named:
        raise MonaiCaeError(f"{card} names subject {named[0]}: take it out, a package is made to be shared")


def data_source(run: Run, shipped: Mapping[str, Any], given: str = "") -> str:
    """Where the images come from, as far as the run can tell."""
    if run.synthetic:
        return f"{SYNTHETIC}: brains made by `monai-cae phantom`"
    return given or (str(shipped["data_source"]) if run.oasis else "not stated by whoever made this package")


def run_metadata(run: Run, shipped: Mapping[str, Any], config: Mapping[str, Any], source: str) -> dict[str, Any]:
    """The bundle's metadata.json with this run's classes, sizes, versions and scores.

    Args:
        run: what the package is of.
        shipped: the bundle's metadata.
        config: the package's inference.json.
        source: see `data_source`.
    """
    said = warning(run)
    extraction = evaluated(config, "extraction")
    metadata = _resized(_reworded(dict(shipped), run, extraction), shipped, config, extraction)
    if run.number:
        _of_number(metadata, run.number)
    number, before = str(shipped["version"]), shipped["changelog"]
    installed = {name: _public_version(package) for name, package in _VERSIONS.items()}
    required = {name: _public_version(name) for name in shipped["required_packages_version"]}
    return {
        **metadata,
        "changelog": {**before, number: f"{before[number]}; here with the weights and scores of one run"},
        **installed,
        "required_packages_version": required,
        "name": f"{SYNTHETIC}: {metadata['name']}" if run.synthetic else metadata["name"],
        "description": f"{said} {metadata['description']}".strip(),
        "data_source": source,
        "eval_metrics": run.scores,
        "caveats": [*data_caveats(run.results), *run.caveats],
        "intended_use": f"{said} {metadata['intended_use']}".strip(),
    }


def _of_number(metadata: dict[str, Any], name: str) -> None:
    """What the shipped metadata say of classes, said of a number."""
    metadata |= {
        "name": f"{name} from one brain MRI slice (CAE)",
        "task": f"Predict {name} from one T1-weighted MRI slice",
        "label_classes": f"a number: {name}",
        "pred_classes": f"one channel; after post-processing {name}",
    }
    for side in ("outputs", "post_processed_outputs"):
        told = {"type": "tuples", "format": "raw", "value_range": [], "channel_def": {"0": name}}
        metadata["network_data_format"][side]["pred"] |= told


def _public_version(package: str) -> str:
    return version(package).split("+")[0]  # 2.13.0 of PyTorch's 2.13.0+cpu: that build is of this machine


def _reworded(content: Any, run: Run, extraction: Extraction) -> Any:
    if isinstance(content, Mapping):
        return {key: _reworded(value, run, extraction) for key, value in content.items()}
    if isinstance(content, list):
        return [_reworded(value, run, extraction) for value in content]
    if not isinstance(content, str):
        return content
    if (run.positive, run.negative) != _PAPER:
        content = content.replace("Alzheimer's disease (CDR > 0)", f"patient ({run.positive})")
        content = content.replace("healthy control (CDR 0)", f"control ({run.negative})")
    if run.synthetic or not run.oasis:
        content = content.replace("per OASIS-1 subject", "per subject")
    if isinstance(extraction, SliceExtraction):
        return content.replace("one axial", f"one {extraction.plane}")
    seen = f"T1-weighted MRI, of which it sees {extraction.name},"
    return content.replace("one axial T1-weighted MRI slice", seen).replace("one axial slice", extraction.name)


def _resized(
    metadata: dict[str, Any], shipped: Mapping[str, Any], config: Mapping[str, Any], extraction: Extraction
) -> dict[str, Any]:
    """The shapes of the data formats, for another image size, extraction or other channels than the bundle's."""
    usual = shipped["network_data_format"]["inputs"]["image"]["spatial_shape"][0]
    size, channels, dims = config["image_size"], config["channels"], extraction.spatial_dims
    for formats in (value for key, value in metadata.items() if key.endswith("_data_format")):
        for tensor in (tensor for side in formats.values() for tensor in side.values()):
            shape, said = tensor["spatial_shape"], tensor["channel_def"]
            if shape and shape[0] != usual:  # the encoder's code
                tensor["spatial_shape"] = [size // 2 ** (len(channels) - 1)] * dims
                tensor["num_channels"] = channels[-1]
            elif shape:  # a slice may keep the axis that it was cut from, with size 1
                tensor["spatial_shape"] = [size] * dims + [1] * (len(shape) - dims)
                tensor["num_channels"] = extraction.channels
                tensor["channel_def"] = {str(channel): said["0"] for channel in range(extraction.channels)}
    return metadata


def model_card(
    run: Run,
    config: Mapping[str, Any],
    shipped: str,
    *,
    source: str,
    weights: Mapping[Path, tuple[int, int]],
    experiment: bool = False,
) -> str:
    """The package's docs/README.md.

    Args:
        run: what the package is of.
        config: the package's inference.json.
        shipped: the bundle's own card, whose general sections are taken over.
        source: see `data_source`.
        weights: file -> numbers in it, bytes.
        experiment: the package carries the card of the run's experiment too.
    """
    sections = dict(re.findall(r"^## (.+?)\n(.*?)(?=^## |\Z)", shipped, re.MULTILINE | re.DOTALL))
    said = warning(run)
    whole = f"\n\nThis is one run of an experiment: see {EXPERIMENT_CARD.name} for all of it." if experiment else ""
    parts = [
        f"# Model card: CAE and {run.number or 'classifier'} on one brain MRI slice, weights of one run",
        f"**{said}**" if said else "",
        "**Research software, not a medical device.** Not for diagnosis, screening or any decision about a person.",
        f"## Model\n{_model(config, weights)}",
        f"## Data\n{_data(run, source)}",
        f"## Leak audit\n{_audit(run)}",
        "\n".join(["## Caveats", *(f"- {caveat}" for caveat in run.caveats)]) if run.caveats else "",
        f"## Scores on the test set\n{_scores(run)}{whole}",
        *(
            f"## {name}\n{sections[name].strip()}"
            for name in _SHARED_SECTIONS
            if not (run.number and name in _OF_CLASSES)
        ),
        f"## Run\n{_COMMANDS}",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


_COMMANDS = """```console
pip install monai-cae
python -m monai.bundle run --config_file configs/inference.json --dataset_dir SCAN.nii.gz
python -m monai.bundle run --config_file configs/evaluate.json --dataset_dir COHORT
sha256sum --check SHA256SUMS
```
Configs can hold code: run those of people you trust. The hashes show damage, not who made the package."""


def _table(header: str, *rows: str) -> str:
    return "\n".join([f"| {header} |", "|" + "---|" * (header.count("|") + 1), *(f"| {row} |" for row in rows)])


def _model(config: Mapping[str, Any], weights: Mapping[Path, tuple[int, int]]) -> str:
    files = (f"{path.as_posix()} | {numbers:,} | {size / 1e6:.1f} MB" for path, (numbers, size) in weights.items())
    settings = [f"image | {evaluated(config, 'extraction').name}"]
    settings += [f"{name} | {config[name]}" for name in _SHOWN_SETTINGS]
    return (
        f"Written by monai-cae {__version__}, after Yagis, Seco de Herrera and Citi. The configs hold all settings of "
        "the run.\n\n"
        f"{_table('weights | numbers, batch-norm statistics included | size', *files)}\n\n"
        f"{_table('setting | value', *settings)}\n\n"
        "The weights carry hashes of the subjects' IDs, so that `monai-cae audit` can tell who was in training. "
        "Whoever knows an ID can find out the same."
    )


def _data(run: Run, source: str) -> str:
    rows = []
    for name, one_set in run.audit["sets"].items():
        age = one_set["age"]
        years = f"{age['mean']:.1f} ({age['min']:.0f} to {age['max']:.0f})" if age else "not known"
        classes = "" if run.number else f"{one_set['classes']['1']} | {one_set['classes']['0']} | "
        rows.append(
            f"{name} | {one_set['n']} | {one_set['subjects']} | {classes}{one_set['women']} / {one_set['men']} | "
            f"{years}"
        )
    labels = f"Patients (label 1): `{run.positive}`. Controls (label 0): `{run.negative}`."
    heads = f"set | scans | subjects | {'' if run.number else 'patients | controls | '}women / men | age, mean (range)"
    return (
        f"Source: {source}. {f'Label: {run.number}.' if run.number else labels}\n\n"
        f"{_table(heads, *rows)}\n\n"
        "Images, subject IDs and the list of who was in which set are not part of this package."
        f"{' Terms: data_license.txt.' if run.oasis else ''}"
    )


def _audit(run: Run) -> str:
    done = {True: "passed", False: "FOUND", None: "not done"}
    rows = (f"{check['name']} | {check['looks_for']} | {done[check['passed']]}" for check in run.audit["checks"])
    return f"{run.leaks} leaks between the sets.\n\n{_table('check | looks for | result', *rows)}"


def _scores(run: Run) -> str:
    rows = [f"{name.removeprefix('test_')} | {value:.4g}" for name, value in run.scores.items()]
    test = run.audit["sets"]["test"]
    accuracy = run.scores.get("test_accuracy")
    interval = ""
    if accuracy is not None and test["n"] == test["subjects"]:
        low, high = wilson_interval(round(accuracy * test["n"]), test["n"])
        interval = (
            f"\n\nThe accuracy's 95 % interval is {low:.3f} to {high:.3f} (Wilson, {test['n']} subjects): "
            "do not compare single runs within it."
        )
    return _table("score | value", *rows) + interval
