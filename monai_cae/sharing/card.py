"""The metadata and model card of a package, with the numbers of its run."""

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
from monai_cae.templates import render
from monai_cae.training.results.caveats import SYNTHETIC, data_caveats
from monai_cae.training.stages.workflow import evaluated

EXPERIMENT_CARD = Path("docs", "model_card_experiment.md")
_PAPER = ("CDR > 0", "CDR == 0")
_VERSIONS = {"monai_version": "monai", "pytorch_version": "torch", "numpy_version": "numpy"}


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
        raise MonaiCaeError(f"{card} names subject {named[0]}: remove it, a package is made to be shared")


def data_source(run: Run, shipped: Mapping[str, Any], given: str = "") -> str:
    """Where the images come from, as far as the run can tell."""
    if run.synthetic:
        return f"{SYNTHETIC}: brains made by `monai-cae phantom`"
    return given or (str(shipped["data_source"]) if run.oasis else "not stated by the author of this package")


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
    of = "one run" if run.members == 1 else f"{run.members} networks, whose mean is predicted"
    number, before = str(shipped["version"]), shipped["changelog"]
    installed = {name: _public_version(package) for name, package in _VERSIONS.items()}
    required = {name: _public_version(name) for name in shipped["required_packages_version"]}
    return {
        **metadata,
        "changelog": {**before, number: f"{before[number]}; here with the weights and scores of {of}"},
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
    for one, several in (
        ("one axial T1-weighted MRI slice", seen),
        ("one axial slice", extraction.name),
        ("one brain MRI slice", f"a {extraction.kind} of brain MRI"),
    ):
        content = content.replace(one, several)
    return content


def _resized(
    metadata: dict[str, Any], shipped: Mapping[str, Any], config: Mapping[str, Any], extraction: Extraction
) -> dict[str, Any]:
    """The shapes of the data formats, for another image size, extraction or other channels than the bundle's."""
    usual = shipped["network_data_format"]["inputs"]["image"]["spatial_shape"][0]
    sizes, channels = extraction.sizes(config["image_size"]), config["channels"]
    for formats in (value for key, value in metadata.items() if key.endswith("_data_format")):
        for tensor in (tensor for side in formats.values() for tensor in side.values()):
            shape, said = tensor["spatial_shape"], tensor["channel_def"]
            if shape and shape[0] != usual:  # the encoder's code
                tensor["spatial_shape"] = [size // 2 ** (len(channels) - 1) for size in sizes]
                tensor["num_channels"] = channels[-1]
            elif shape:  # a slice may keep the axis that it was cut from, with size 1
                tensor["spatial_shape"] = sizes + [1] * (len(shape) - len(sizes))
                tensor["num_channels"] = extraction.channels
                each = extraction.channels // extraction.samples
                names = extraction.sample_names if extraction.samples > 1 else [said["0"]]
                tensor["channel_def"] = {str(number): names[number // each] for number in range(extraction.channels)}
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
    test, accuracy = run.audit["sets"]["test"], run.scores.get("test_accuracy")
    one_each = accuracy is not None and test["n"] == test["subjects"]
    return render(
        "package_card.md",
        run=run,
        said=warning(run),
        version=__version__,
        weights=weights,
        image=evaluated(config, "extraction").name,
        config=config,
        source=source,
        interval=wilson_interval(round(accuracy * test["n"]), test["n"]) if one_each else None,
        experiment=EXPERIMENT_CARD.name if experiment else "",
        sections=dict(re.findall(r"^## (.+?)\n(.*?)(?=^## |\Z)", shipped, re.MULTILINE | re.DOTALL)),
    )
