"""The plan of an experiment: parts (a repeat, or a fold of one), and the steps of each with their settings."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from monai_cae.errors import MonaiCaeError
from monai_cae.experiment.record import NETWORK
from monai_cae.tracking import cohort_name
from monai_cae.training.stages.checkpointing import MAY_DIFFER

STAGES = ("pretrain", "train", "evaluate")
CLASSIFIER = "classifier"  # settings of both stages that build it
BASELINES = "baselines"
_LABELS = ("permute_labels", "training_share")  # of train, and of a pretraining that learns labels
_NOT_COMPARED = (*MAY_DIFFER, "output_dir", "datalist", "pretrained", "tracked_run#tags")
Settings = dict[str, Any]


@dataclass(frozen=True)
class Part:
    """One pass through the stages: a repeat of a hold-out, or one fold of a repeat."""

    folder: str
    repeat: int
    seed: int
    fold: int = 1


@dataclass(frozen=True)
class Step:
    """What is recorded as done, or is not there.

    Attributes:
        name: in steps.json.
        method: whose it is; "baselines" for all of these together.
        stages: stage -> settings, in the order in which they run.
    """

    name: str
    method: str
    stages: Mapping[str, Settings]

    @property
    def compared(self) -> dict[str, Settings]:
        """The settings that a finished step must have had to be kept."""
        told = {
            stage: {name: value for name, value in settings.items() if name not in _NOT_COMPARED}
            for stage, settings in self.stages.items()
        }
        return json.loads(json.dumps(told, default=str))

    def refuse_other_settings(self, before: Mapping[str, Mapping[str, Any]], folder: Path) -> None:
        """Raise MonaiCaeError if the step in `folder` was finished with other settings than these."""
        now = self.compared
        for stage in sorted(before.keys() | now.keys()):
            old, new = one_by_one(before.get(stage, {})), one_by_one(now.get(stage, {}))
            for key in sorted(old.keys() | new.keys()):
                if old.get(key) != new.get(key) and key not in _NOT_COMPARED:
                    raise MonaiCaeError(
                        f"{folder} has {self.name} finished with {key} {old.get(key)!r}, not {new.get(key)!r}: choose "
                        "another --output_dir, or --overwrite true in place of --resume true to do all of it again"
                    )


@dataclass(frozen=True)
class Plan:
    """What an experiment consists of, as `run_experiment` is given it.

    Attributes:
        given: the ready datalist of every fold, one for a hold-out; none where the experiment splits.
    """

    configs: str
    output: Path
    shared: Mapping[str, Any]
    stages: Mapping[str, Mapping[str, Any]]
    variants: Mapping[str, Mapping[str, Mapping[str, Any]]]
    baselines: Sequence[str]
    tracked: Mapping[str, str]
    given: Sequence[Path] = ()

    def under(self, run_id: str) -> Plan:
        """The same, with its runs nested under an MLflow run."""
        return replace(self, tracked={**self.tracked, "parent_run_id": run_id})

    @property
    def cohort(self) -> str:
        """What the cohort is called."""
        return cohort_name(self.shared["dataset_dir"])

    @property
    def shares(self) -> dict[str, float]:
        """The variants that learn from fewer labelled subjects and are otherwise the network: the learning curve."""
        only = {name: changed["train"] for name, changed in self.variants.items() if list(changed) == ["train"]}
        return {
            name: changed["training_share"] for name, changed in only.items() if list(changed) == ["training_share"]
        }

    def steps(self, part: Part) -> Iterator[Step]:
        """The network, the variants and the baselines on one split, in the order in which they run."""
        for variant in ("", *self.variants):
            method = variant or NETWORK
            if not variant or STAGES[0] in self._changed(variant):
                # the longest, so a step of its own: another classifier can be tried on the same autoencoder
                name = f"{variant}/{STAGES[0]}" if variant else STAGES[0]
                yield Step(name, method, {STAGES[0]: self._settings(part, STAGES[0], variant)})
            yield Step(method, method, {stage: self._settings(part, stage, variant) for stage in STAGES[1:]})
        if self.baselines:
            settings = {**self._settings(part, BASELINES), **self._autoencoder, "only": list(self.baselines)}
            yield Step(BASELINES, BASELINES, {BASELINES: settings})

    def finished(self, part: Part) -> dict[str, Any]:
        """Step -> its settings, results and seconds, as recorded in the part's folder."""
        return read_json(self.record_of(part)) if self.record_of(part).is_file() else {}

    def record_of(self, part: Part) -> Path:
        """The file that says which steps are done."""
        return self.output / part.folder / "steps.json"

    def datalist_of(self, part: Part) -> Path:
        """The file that says who is in which set."""
        return self.output / part.folder / "datalist.json"

    @property
    def _autoencoder(self) -> Settings:
        """Of the baselines on its code: what pretraining calls its network."""
        own = ((name.partition("#"), value) for name, value in self.stages.get(STAGES[0], {}).items())
        return {f"autoencoder_def{mark}{rest}": value for (item, mark, rest), value in own if item == "network_def"}

    def _changed(self, variant: str) -> Mapping[str, Mapping[str, Any]]:
        """A variant's settings; one with other labels is pretrained by itself where pretraining learns them."""
        changed = self.variants[variant]
        learned = self.stages.get(STAGES[0], {}).keys() & _LABELS
        labels = {name: value for name, value in changed.get("train", {}).items() if name in learned}
        return {**changed, STAGES[0]: {**labels, **changed.get(STAGES[0], {})}} if labels else changed

    def _settings(self, part: Part, stage: str, variant: str = "") -> Settings:
        """What overrides the stage's config, of the network itself or of a variant, which lies in its own folder and
        shares datalist and, unless it changes the pretraining, autoencoder."""
        changed = self._changed(variant) if variant else {}
        known = json.loads(Path(self.configs, f"{stage}.json").read_text(encoding="utf-8"))
        folder = self.output / part.folder
        elsewhere: Settings = {"datalist": str(folder / "datalist.json")} if variant else {}
        if variant and STAGES[0] not in changed:
            elsewhere["pretrained"] = str(folder / "models" / "autoencoder.pt")
        method = BASELINES if stage == BASELINES else variant or NETWORK
        return {
            **{name: value for name, value in self.shared.items() if name in known},
            **_of_stage(self.stages, stage),
            **elsewhere,
            **_of_stage(changed, stage),
            "output_dir": str(folder / "variants" / variant if variant else folder),
            "split": {**self.shared["split"], "fold": part.fold},
            "seed": part.seed,
            "overwrite": stage
            in (STAGES[2], BASELINES),  # they have nothing to resume: a step ended there is done again
            "run_name": " ".join([self.cohort, part.folder, method, *([stage] if stage in STAGES else [])]),
            "tracked_run#tags": {"method": method, "repeat": str(part.repeat), "fold": str(part.fold)},
            **self.tracked,
        }


def parts_of(repeats: int, seed: int, split: Mapping[str, Any]) -> list[Part]:
    """The repeats, each with its seed, or with `kind` "kfold" every fold of each.

    Raises:
        MonaiCaeError: folds that are no whole number from 2.
    """
    numbered = [(repeat, seed + repeat - 1) for repeat in range(1, repeats + 1)]
    if split.get("kind") != "kfold":
        return [Part(f"repeat_{repeat}", repeat, its_seed) for repeat, its_seed in numbered]
    folds = split.get("folds")
    if isinstance(folds, bool) or not isinstance(folds, int) or folds < 2:
        raise MonaiCaeError(f"split#folds must be a whole number, 2 or more, not {folds!r}")
    return [
        Part(f"repeat_{repeat}/fold_{fold}", repeat, its_seed, fold)
        for repeat, its_seed in numbered
        for fold in range(1, folds + 1)
    ]


def one_by_one(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings in groups named as on the command line, `cohort#task`, as the stages log them."""
    single: dict[str, Any] = {}
    for name, value in settings.items():
        members = {f"{name}#{member}": one for member, one in value.items()} if isinstance(value, Mapping) else {}
        single |= members or {name: value}
    return single


def read_json(path: Path) -> dict[str, Any]:
    """A record of an experiment.

    Raises:
        MonaiCaeError: it is no JSON object, such as half of one.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        content = error
    if not isinstance(content, dict):
        raise MonaiCaeError(f"{path} is not what an experiment writes: delete it to do its part again")
    return content


def _of_stage(settings: Mapping[str, Mapping[str, Any]], stage: str) -> Settings:
    both = settings.get(CLASSIFIER, {}) if stage in ("train", "evaluate") else {}
    return {**both, **settings.get(stage, {})}
