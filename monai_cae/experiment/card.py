"""The model card of an experiment: methods, subjects, results, and what its author must add.

Everything in it is counts, settings and scores; no subject is named, so that the card can be shared.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

from monai_cae import DISCLAIMER, __version__
from monai_cae.data import Extraction, recorded_rules
from monai_cae.data.splits.datalists import SETS
from monai_cae.errors import MonaiCaeError
from monai_cae.experiment.record import NETWORK
from monai_cae.experiment.results import Results
from monai_cae.experiment.wording import (
    difference_with_interval,
    for_templates,
    is_number,
    number_difference,
    telling,
)
from monai_cae.files import unmarked, write_text
from monai_cae.templates import render
from monai_cae.training.results.caveats import data_caveats
from monai_cae.training.stages.workflow import evaluated

CALIBRATION = ("brier", "ece", "calibration_slope", "calibration_intercept")
_STAGES = ("pretrain", "train", "evaluate")
_SETTINGS = (
    "plane", "slice_index", "image_size", "channels", "batch_size", "max_epochs", "patience", "learning_rate",
    "precision", "augment", "learn", "keep", "training_share", "permute_labels", "calibrate", "covariates", "threshold",
)  # fmt: skip
_PACKAGES = ("monai", "torch", "pytorch-ignite", "scikit-learn", "numpy", "nibabel")


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
        return " ".join(data_caveats(self.summary))

    @property
    def synthetic(self) -> bool:
        """The images are a phantom's."""
        return bool(self.summary["synthetic"])

    @property
    def rules(self) -> tuple[str, str]:
        """Rules of label 1 and label 0; "" where a datalist was given."""
        return recorded_rules(self.recorded)

    @property
    def number(self) -> str:
        """What is predicted, where it is a number; "" for patients and controls."""
        return self.results.target.name if self.results.target.number else ""

    @cached_property
    def tested(self) -> str:
        """The subjects that were tested in any repeat, and of which classes they are."""
        people = self.results.of(NETWORK).groupby("subject")["label"].first()
        return f"{len(people)} test subjects{self.of_classes(people)}"

    def of_classes(self, labels: Iterable[float]) -> str:
        """Of these labels how many are AD and HC, in brackets; "" for other targets."""
        counts = Counter(labels)
        return f" ({counts[1]} AD, {counts[0]} HC)" if self.results.target.binary else ""

    def score(self, name: str) -> str:
        """The network's, with its interval."""
        return telling(self.results.target)(self.results.scores.loc[(NETWORK, name)])

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
        """The classifier's, as the config of its training defines it; of images of several samples, that of each."""
        found: Mapping[str, Any] = (self.configs["train"].get("network_def") or {}).get("encoder") or {}
        return found.get("network", found)

    @property
    def covariates(self) -> list[str]:
        """Names of the columns that the classifier sees beside the slice."""
        return list(self.setting("covariates", "train") or {})

    @property
    def start(self) -> str:
        """What the classifier's weights were before its training."""
        if str(self.setting("transfer", "train") or "none").lower() != "none":
            return "encoder and hidden layers from a classifier of another task"
        if str(self.setting("pretrained", "train")).lower() not in ("none", ""):
            return "encoder from the autoencoder, the rest random"
        weights = self.encoder.get("weights") or self.encoder.get("weights_file")
        return f"encoder from {Path(weights).name}, the rest random" if weights else "random"

    @property
    def version(self) -> str:
        """Of this package."""
        return __version__

    @property
    def software(self) -> str:
        """Packages with their versions."""
        installed = (f"{name} {version(name)}" for name in _PACKAGES)
        return ", ".join((f"monai-cae {__version__}", *installed))

    @property
    def seen(self) -> str:
        """What of a volume the network sees."""
        return self.extraction.name

    @property
    def size(self) -> str:
        """Of what it sees, in pixels or voxels."""
        return " x ".join(map(str, self.extraction.sizes(self.setting("image_size"))))

    @property
    def settings(self) -> list[tuple[str, list[str]]]:
        """Names, and values in each stage; "" where it has none."""
        found = [(name, [config.get(name) for config in self.configs.values()]) for name in _SETTINGS]
        return [
            (name, ["" if value is None else str(value) for value in values])
            for name, values in found
            if any(value is not None for value in values)
        ]

    @property
    def sets(self) -> dict[str, Any]:
        """What the audit counts in each set of the first part."""
        return {name: self.audit["sets"][name] for name in SETS}

    @property
    def sessions(self) -> str:
        """Which of a subject's scans take part."""
        words = {"first": "the first scan of a subject", "all": "all scans of a subject"}
        return words.get(str(self.recorded.get("sessions")), "scans as the datalist has them")

    @property
    def unlabelled(self) -> int:
        """Scans that were left out because they have no label."""
        left_out = self.recorded.get("left_out") or {}
        return next((count for why, count in left_out.items() if why.startswith("scans without")), 0)

    @property
    def transforms(self) -> list[str]:
        """Classes of the preprocessing."""
        listed = (self.configs["evaluate"].get("preprocessing") or {}).get("transforms") or []
        return [_class(one) for one in listed if isinstance(one, dict)]


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
    known, claim = _known(facts), claim_of(facts)
    return render(
        "experiment_card.md",
        **known,
        disclaimer=DISCLAIMER,
        flow=flow(facts),
        calibration=CALIBRATION,
        scores=results.scores,
        NETWORK=NETWORK,
        subgroups=results.subgroups.to_dict("records"),
        comparisons=list(results.comparisons.iterrows()),
        caveats=results.caveats,
        claim=claim,
        still_open=sum(answer.startswith("open:") for _, answer in claim),
        is_number=is_number,
        difference_told=difference_with_interval if results.target.binary else number_difference,
        **for_templates(results.target),
    )


def claim_of(facts: Facts) -> list[tuple[str, str]]:
    """The CLAIM 2024 checklist: what each item asks for, and the answer, which begins with "open:" where the run does
    not know it.

    Args:
        facts: of the experiment.
    """
    summary, results = facts.summary, facts.results
    others = len(results.methods) - 1
    looked = [f"SD over {facts.scheme}"] * (summary["parts"] > 1) + ["subgroups"] * (not results.subgroups.empty)
    looked += [f"{others} other methods"] * (others > 0)
    seen_before = any(caveat.startswith("TEST SETS SEEN BEFORE") for caveat in results.caveats)
    told = {"labels": results.target.score_names, "others": others, "looked": looked, "seen_before": seen_before}
    lines = render("claim.md", **_known(facts), **told).strip().splitlines()
    items = [line.partition(" :: ") for line in lines]
    return [(asks, answer) for asks, _, answer in items]


def _known(facts: Facts) -> dict[str, Any]:
    """What card and checklist both tell from."""
    positive, negative = facts.rules
    return {
        "facts": facts,
        "summary": facts.summary,
        "recorded": {"layout": "", "kind": "", **facts.recorded},
        "left_out": facts.recorded.get("left_out"),
        "positive": positive,
        "negative": negative,
    }


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
            print(f"{path} has been edited and is kept: the new card is {path.stem}.new.md", flush=True)
            path = path.with_name(f"{path.stem}.new.md")
    write_text(path, f"{card}\n{_mark(card)}")
    return path


def _mark(card: str) -> str:
    return f"<!-- written by monai-cae; sha256 of the text above: {hashlib.sha256(card.encode()).hexdigest()} -->\n"


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise MonaiCaeError(f"{path} is not readable ({error}): the model card needs it; run the part again") from error
    return unmarked(content, path)


def _class(definition: Mapping[str, Any]) -> str:
    return str(definition.get("_target_", "not recorded")).rpartition(".")[2]


def _is_simple(value: Any) -> bool:
    if isinstance(value, list):
        return all(_is_simple(item) for item in value)
    return not isinstance(value, dict) and not str(value).startswith(("$", "@"))


class Flow(NamedTuple):
    """Who was found, left out and why, and put into which set.

    Attributes:
        found: scans; None where the datalist does not say.
        layout: how they lay on disk.
        left_out: scans by reason.
        unusable: scans of the datalist that can't be used.
        part: who takes part, in words.
        sets: of the first part: how many subjects, and of which classes.
        tested: how many in all parts, and how these were made.
    """

    found: int | None
    layout: str
    left_out: Mapping[str, int]
    unusable: int
    part: str
    sets: Mapping[str, tuple[int, str]]
    tested: str

    def __str__(self) -> str:
        """CONSORT's diagram in letters."""
        lines = ["found: not recorded by the datalist; nor what was left out"]
        if self.found is not None:
            lines = [f"{self.found} found ({self.layout})", " |", f" +--> {sum(self.left_out.values())} left out"]
            lines += [f" |      {count:>5} {why}" for why, count in self.left_out.items()]
        if self.unusable:
            lines += [" |", f" +--> {self.unusable} scans of the datalist left out, as they can't be used"]
        lines += [" v", self.part, " |"]
        lines += [f" +--> {name:<10} {count:>5} subjects{of}" for name, (count, of) in self.sets.items()]
        return "\n".join([*lines, " v", f"{self.tested}; the sets above are of the first"])


def flow(facts: Facts) -> Flow:
    """From the datalist and the audit of the first part."""
    listed = [item for name in SETS for item in facts.datalist[name]]
    since = {(scan["subject"], scan["image"]) for scan in facts.audit["bad_scans"] if scan.get("set")}
    sets = {
        name: [item for item in facts.datalist[name] if (item["subject"], Path(item["image"]).name) not in since]
        for name in SETS
    }
    items = [item for members in sets.values() for item in members]
    left_out = facts.recorded.get("left_out")
    people = {item["subject"]: item["label"] for item in items}
    by_set = {name: {item["subject"]: item["label"] for item in members} for name, members in sets.items()}
    return Flow(
        None if left_out is None else len(listed) + sum(left_out.values()),
        facts.recorded.get("layout") or "layout not recorded",
        left_out or {},
        len(since),
        f"{len(items)} scans of {len(people)} subjects take part{facts.of_classes(people.values())}",
        {name: (len(one), facts.of_classes(one.values())) for name, one in by_set.items()},
        f"{facts.tested.replace('test subjects', 'subjects tested')} in {facts.scheme}",
    )
