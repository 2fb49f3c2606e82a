"""The model card of an experiment: what was done, with whom, what came out, and what it leaves to its author.

Everything in it is counts, settings and scores; no subject is named, so that the card can be shared.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any

from monai_cae import DISCLAIMER
from monai_cae.data import Extraction, make_task
from monai_cae.data.splits.datalists import SETS
from monai_cae.errors import MonaiCaeError
from monai_cae.evaluation.pooled import pooled
from monai_cae.evaluation.scores import LABELS
from monai_cae.experiment.claim import OPEN, claim_rows
from monai_cae.experiment.record import NETWORK
from monai_cae.experiment.results import Results
from monai_cae.experiment.wording import (
    difference_with_interval,
    is_number,
    markdown,
    p_value,
    readable,
    with_interval,
)
from monai_cae.files import replacing
from monai_cae.training.stages.workflow import evaluated

CALIBRATION = ("brier", "ece", "calibration_slope", "calibration_intercept")
_STAGES = ("pretrain", "train", "evaluate")
_SETTINGS = (
    "plane", "slice_index", "image_size", "channels", "batch_size", "max_epochs", "patience", "learning_rate",
    "precision", "augment", "learn", "keep", "training_share", "permute_labels", "calibrate", "covariates", "threshold",
)  # fmt: skip
_PACKAGES = ("monai-cae", "monai", "torch", "pytorch-ignite", "scikit-learn", "numpy", "nibabel")
_ADDRESS = "https://doi.org/10.1148/ryai.240300"
TRIPOD = (
    "TRIPOD+AI (Collins et al. 2024, BMJ 385:e078378): as far as a run can know them, this card covers the items 6b "
    "(eligibility), 8a (the rule of the outcome), 12a (use of the data, partitions), 12c (model, building, internal "
    "validation), 12e (measures of performance), 15 (output and threshold), 20a (flow of participants), 20b "
    "(characteristics), 21 (numbers in each analysis), 23a (performance with intervals, also of subgroups), and parts "
    "of 7 (preparation of the data), 11 (missing data) and 26 (limitations). All others are the author's."
)


@dataclass(frozen=True)
class Facts:
    """What is known of an experiment: what it has computed, and what the first repeat wrote beside its results.

    Attributes:
        summary: as in summary.json.
        results: the tables.
        folder: of the first part.
    """

    summary: Mapping[str, Any]
    results: Results
    folder: Path

    @cached_property
    def datalist(self) -> dict[str, Any]:
        """Who was in which set, and how it came about."""
        return _read(self.folder / "datalist.json")

    @cached_property
    def audit(self) -> dict[str, Any]:
        """What was looked for between the sets."""
        return _read(self.folder / "audit.json")

    @cached_property
    def configs(self) -> dict[str, dict[str, Any]]:
        """Stage -> config as it was executed."""
        return {stage: _read(self.folder / f"config_{stage}.json") for stage in _STAGES}

    @cached_property
    def recorded(self) -> dict[str, Any]:
        """How the sets were made; empty for a datalist that was given and does not say."""
        return {**(self.datalist.get("made_from") or {}), **(self.datalist.get("recipe") or {})}

    @property
    def said(self) -> str:
        """What has to be said first; "" for real data without a leak."""
        leaks = self.summary["leaks"]
        synthetic = "SYNTHETIC DATA, NOT REAL MRI: nothing about people follows from it." if self.synthetic else ""
        leaky = f"LEAKY: {leaks} found between the sets, the scores are worthless." if leaks else ""
        return f"{synthetic} {leaky}".strip()

    @property
    def synthetic(self) -> bool:
        """The images are a phantom's."""
        return bool(self.summary["synthetic"])

    @property
    def rules(self) -> tuple[str, str]:
        """Rules of label 1 and label 0; "" where a datalist was given."""
        names = ("task", "positive", "negative", "label_column")
        if not all(name in self.recorded for name in names):
            return "", ""
        task = make_task(**{name: self.recorded[name] for name in names})
        return task.positive, task.negative or f"not ({task.positive})"

    @cached_property
    def tested(self) -> tuple[int, int]:
        """Patients and controls among the subjects that were tested in any repeat."""
        labels = pooled(self.results.of(NETWORK)).labels
        return int(labels.sum()), int((labels == 0).sum())

    def score(self, name: str) -> str:
        """The network's, with its interval."""
        return with_interval(self.results.scores.loc[(NETWORK, name)])

    def setting(self, name: str, *stages: str) -> Any:
        """Of the first of the stages that has it; None where none does."""
        return next((self.configs[stage][name] for stage in stages or _STAGES if name in self.configs[stage]), None)

    @cached_property
    def extraction(self) -> Extraction:
        """What of a volume the network sees."""
        found: Extraction = evaluated(self.configs["train"], "extraction")
        return found

    @property
    def scheme(self) -> str:
        """How often was split, and how."""
        repeats, folds = self.summary["repeats"], self.summary["folds"]
        often = f"{repeats} repeat{'s' * (repeats > 1)}"
        return f"{often} of {folds}-fold cross-validation" if folds > 1 else f"{often} of a hold-out"

    @property
    def network(self) -> str:
        """The classifier's class, its encoder's, and what it sees beside the slice."""
        given = self.configs["train"].get("network_def") or {}
        simple = {key: value for key, value in given.items() if not key.startswith("_") and _is_simple(value)}
        settings = [f"encoder={_class(self.encoder)}", *(f"{key}={value}" for key, value in simple.items())]
        beside = f", with {', '.join(self.covariates)} from the table" if self.covariates else ""
        return f"`{_class(given)}({', '.join(settings)})`{beside}"

    @property
    def encoder(self) -> Mapping[str, Any]:
        """The classifier's, as the config of its training defines it."""
        return (self.configs["train"].get("network_def") or {}).get("encoder") or {}

    @property
    def covariates(self) -> list[str]:
        """Names of the columns that the classifier sees beside the slice."""
        return list(self.setting("covariates", "train") or {})

    @property
    def start(self) -> str:
        """What the classifier's weights were before its training."""
        if str(self.setting("pretrained", "train")).lower() not in ("none", ""):
            return "encoder from the autoencoder, the rest random"
        weights = self.encoder.get("weights")
        return f"encoder from {Path(weights).name}, the rest random" if weights else "random"

    @property
    def software(self) -> str:
        """Packages with their versions."""
        return ", ".join(f"{name} {version(name)}" for name in _PACKAGES)


def experiment_card(summary: Mapping[str, Any], results: Results, output: Path) -> str:
    """The model card in Markdown, with the CLAIM 2024 checklist filled in as far as the run knows the answers.

    Args:
        summary: as in summary.json.
        results: the tables.
        output: the experiment's folder, with the folder of the first part.

    Raises:
        MonaiCaeError: a file of the first part is missing or broken.
    """
    facts = Facts(summary, results, output / summary["results"][0]["folder"])
    answers = claim_rows(facts)
    still_open = sum(row[2].startswith(OPEN) for row in answers)
    sections = {
        "": f"**{facts.said}**" if facts.said else "",
        "# Model card of an experiment": f"**{DISCLAIMER}** Written by monai-cae "
        f"{version('monai-cae')} from what the run has left; what it can't know is marked *open*.",
        "## Intended use": "Research on representation learning and on classifying single MRI slices; a baseline that "
        "other methods are compared with on the same subjects.",
        "## Not intended": "Diagnosis, prognosis, screening, choice of a treatment, or any other decision about a "
        "person; scans of other sources than those below without testing on them first.",
        "## Model and settings": _model(facts),
        "## Data": _data(facts),
        "## Scores of the network": _scores(facts),
        "## Calibration": _calibration(facts),
        "## Subgroups": _subgroups(facts),
        "## Against other methods": _comparisons(facts),
        "## Caveats": "\n".join(f"- {caveat}" for caveat in results.caveats) or "None were found by the run.",
        "## Limits": _limits(facts),
        "## CLAIM 2024": f"Checklist for Artificial Intelligence in Medical Imaging, 2024 update (Tejani et al., "
        f"{_ADDRESS}), items in our own short words. {44 - still_open} of 44 are answered from the run; {still_open} "
        f"are open, for the author.\n\n{markdown([['item', 'asks for', 'answer'], *answers])}",
        "## TRIPOD+AI": TRIPOD,
    }
    return "\n\n".join(f"{title}\n\n{text}".strip() for title, text in sections.items() if text) + "\n"


def write_card(path: Path, card: str) -> Path:
    """Write a card with its hash in a comment, unless the file there is no longer as it was written: then beside it.

    Args:
        path: model_card.md.
        card: the text.

    Returns:
        What was written: `path`, or model_card.new.md where its author has edited `path`.
    """
    if path.is_file():
        text, _, mark = path.read_text(encoding="utf-8").rpartition("\n<!-- ")
        if f"<!-- {mark}" != _mark(text):
            print(f"{path} has been edited and stays: the new card is {path.stem}.new.md", flush=True)
            path = path.with_name(f"{path.stem}.new.md")
    with replacing(path) as temporary:
        temporary.write_text(f"{card}\n{_mark(card)}", encoding="utf-8")
    return path


def _mark(card: str) -> str:
    return f"<!-- written by monai-cae; sha256 of the text above: {hashlib.sha256(card.encode()).hexdigest()} -->\n"


def _read(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise MonaiCaeError(f"{path} is not readable ({error}): the model card needs it; run the part again") from error


def _class(definition: Mapping[str, Any]) -> str:
    return str(definition.get("_target_", "not recorded")).rpartition(".")[2]


def _is_simple(value: Any) -> bool:
    if isinstance(value, list):
        return all(_is_simple(item) for item in value)
    return not isinstance(value, dict) and not str(value).startswith(("$", "@"))


def _model(facts: Facts) -> str:
    rows = [["setting", *_STAGES]]
    for name in _SETTINGS:
        values = [facts.configs[stage].get(name) for stage in _STAGES]
        if any(value is not None for value in values):
            rows.append([name, *("" if value is None else str(value) for value in values)])
    return (
        f"A convolutional autoencoder on one slice per scan; a classifier, {facts.network}. Weights before its "
        f"training: {facts.start}. After Yagis, Seco de Herrera and Citi. Of the first part, of seed "
        f"{facts.summary['results'][0]['seed']}; all settings are in its executed configs.\n\n{markdown(rows)}\n\n"
        f"Software: {facts.software}."
    )


def _data(facts: Facts) -> str:
    positive, negative = facts.rules
    rules = (
        f"Patients (AD, label 1): `{positive}`. Controls (HC, label 0): `{negative}`."
        if positive
        else "Labels are those of a given datalist, whose rule is not recorded."
    )
    rows = [["set", "scans", "subjects", "AD", "HC", "women / men", "age, mean (SD), range"]]
    for name in SETS:
        one = facts.audit["sets"][name]
        age = one["age"]
        sd = f" ({age['sd']:.1f})" if age and is_number(age["sd"]) else ""
        years = f"{age['mean']:.1f}{sd}, {age['min']:.0f} to {age['max']:.0f}" if age else "not known"
        numbers = [str(value) for value in (one["n"], one["subjects"], one["classes"]["1"], one["classes"]["0"])]
        rows.append([name, *numbers, f"{one['women']} / {one['men']}", years])
    done = {True: "passed", False: "FOUND", None: "not done"}
    checks = "; ".join(f"{check['name']}: {done[check['passed']]}" for check in facts.audit["checks"])
    return (
        f"{rules}\n\n```text\n{flow(facts)}\n```\n\nSets of the first part:\n\n{markdown(rows)}\n\n"
        f"Leak audit, {facts.summary['leaks']} leaks over all parts. Of the first part: {checks}."
    )


def flow(facts: Facts) -> str:
    """Who was found, left out and why, and put into which set: CONSORT's diagram in letters."""
    listed = [item for name in SETS for item in facts.datalist[name]]
    since = {(scan["subject"], scan["image"]) for scan in facts.audit["bad_scans"] if scan.get("set")}
    sets = {
        name: [item for item in facts.datalist[name] if (item["subject"], Path(item["image"]).name) not in since]
        for name in SETS
    }
    items = [item for members in sets.values() for item in members]
    left_out, layout = facts.recorded.get("left_out"), facts.recorded.get("layout") or "layout not recorded"
    if left_out is None:
        lines = ["found: not recorded by the datalist; nor who was left out"]
    else:
        lines = [f"{len(listed) + sum(left_out.values())} found ({layout})", " |"]
        lines += [f" +--> {sum(left_out.values())} left out", *(f" |      {n:>5} {why}" for why, n in left_out.items())]
    if since:
        lines += [" |", f" +--> {len(since)} scans of the datalist left out, as they can't be used"]
    people = {item["subject"]: item["label"] for item in items}
    patients = sum(people.values())
    lines += [
        " v",
        f"{len(items)} scans of {len(people)} subjects take part ({patients} AD, {len(people) - patients} HC)",
        " |",
    ]
    for name in SETS:
        one = {item["subject"]: item["label"] for item in sets[name]}
        known = f"{len(one):>5} subjects ({sum(one.values())} AD, {len(one) - sum(one.values())} HC)"
        lines.append(f" +--> {name:<10} {known}")
    tested = f"{sum(facts.tested)} subjects tested ({facts.tested[0]} AD, {facts.tested[1]} HC)"
    return "\n".join([*lines, " v", f"{tested} in {facts.scheme}; the sets above are of the first"])


def _scores(facts: Facts) -> str:
    rows = [["score", "mean, 95 % interval", "SD over repeats"]]
    for name, label in LABELS.items():
        if name not in CALIBRATION:
            sd = facts.results.scores.loc[(NETWORK, name), "sd"]
            rows.append([label, facts.score(name), f"{sd:.3f}" if is_number(sd) else "-"])
    reconstructed = facts.summary["metrics"]["test_psnr"]
    psnr = f"{reconstructed['mean']:.2f} dB" if is_number(reconstructed["mean"]) else "not known"
    return (
        f"{markdown(rows)}\n\nOn {sum(facts.tested)} test subjects ({facts.tested[0]} AD, {facts.tested[1]} HC), "
        f"{facts.scheme}. Intervals: what other subjects would do to the mean, by bootstrap over subjects. SD: what "
        f"other splits and weights do. PSNR of the test images: {psnr}."
    )


def _calibration(facts: Facts) -> str:
    rows = [["score", "mean, 95 % interval"], *([LABELS[name], facts.score(name)] for name in CALIBRATION)]
    return (
        f"{markdown(rows)}\n\nA calibrated classifier has slope 1 and intercept 0; the interval of ECE lies too high. "
        "Diagram: figures/calibration.png."
    )


def _subgroups(facts: Facts) -> str:
    if facts.results.subgroups.empty:
        return "Neither age, sex nor CDR is known of the tested subjects."
    rows = [["group", "n", "AD", "score", "mean, 95 % interval"]]
    for row in facts.results.subgroups.to_dict("records"):
        group = f"{row['by'].upper() if row['by'] == 'cdr' else row['by']} {row['group']}"
        rows.append([group, str(row["subjects"]), str(row["patients"]), LABELS[row["score"]], with_interval(row)])
    return markdown(rows)


def _comparisons(facts: Facts) -> str:
    if facts.results.comparisons.empty:
        return "None ran on the same splits: with_baselines.yaml adds simpler ones."
    rows = [["method", "score", "its score", "network minus it, 95 % interval", "p, paired", "p, corrected t"]]
    for (method, score), row in facts.results.comparisons.iterrows():  # type: ignore[misc]  # two levels
        theirs = with_interval(facts.results.scores.loc[(method, score)])
        tested = [f"{p_value(row['p_paired'])} ({row['paired_test']})", p_value(row["p_corrected_t"])]
        rows.append([readable(str(method)), LABELS[score], theirs, difference_with_interval(row), *tested])
    return f"{markdown(rows)}\n\nOn the same subjects and splits; no correction for comparing with several methods."


def _limits(facts: Facts) -> str:
    beside = f" and {', '.join(facts.covariates)}" if facts.covariates else ""
    seen = f"{facts.extraction.name} of a volume{beside}"
    lines = [
        f"The network sees {seen}, nothing else; orientation is taken as the file stores it.",
        f"{sum(facts.tested)} test subjects: read the intervals, not the means.",
        "Test and training subjects are of one cohort: other scanners, centres and populations were not tested.",
        "A label is what the rule above makes of the table; how well that tells the disease is not measured here.",
        "Subgroups were not planned by the run, and are not corrected for their number.",
    ]
    if facts.synthetic:
        lines.insert(0, "The images are synthetic: no score says anything about people, or about real MRI.")
    return "\n".join(f"- {line}" for line in lines)
