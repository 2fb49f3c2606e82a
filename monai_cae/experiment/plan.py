"""The plan of an experiment: parts (a repeat, or a fold of one), and the steps of each with their settings."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from monai_cae.errors import MonaiCaeError
from monai_cae.experiment.record import NETWORK
from monai_cae.experiment.space import Changed, Space
from monai_cae.files import unmarked
from monai_cae.tracking import cohort_name
from monai_cae.training.stages.checkpointing import MAY_DIFFER, same_setting

STAGES = ("pretrain", "train", "evaluate")
CLASSIFIER = "classifier"  # settings of both stages that build it
BASELINES = "baselines"
SELECT = "select"
SEARCH = "search"  # the step of a part's trials
CODES = "codes"  # in a part's folder, what frozen encoders make of images, until all parts are done
_LABELS = {"permute_labels", "training_share"}  # of train, and of a pretraining that learns labels
_NOT_COMPARED = (*MAY_DIFFER, "output_dir", "datalist", "pretrained", "tracked_run#tags")
_NOT_EXPLAINED = {"figures#explanations": None, "figures#decoder": None}  # costs as much as some variants
Settings = dict[str, Any]
# What another step has told of the same autoencoder and test set, its reconstructions, takes most of an evaluation.
_NOT_AGAIN: Settings = {
    "run#0#steps": ["$@validation#evaluator.run", "$@evaluator.run"],
    "report#reconstruction": None,
    "report#codecs": None,
}


@dataclass(frozen=True)
class Part:
    """One pass through the stages: a repeat of a hold-out, or one fold of a repeat."""

    folder: str
    repeat: int
    seed: int
    fold: int = 1


@dataclass(frozen=True)
class Selection:
    """Among which recipes every part chooses, and how.

    Attributes:
        candidates: name -> stage -> settings, as of a variant; of equal scores the first wins.
        inner_folds: parts that the subjects outside the test set are divided into.
        metric: the target's score of each inner fold, whose mean decides.
        lower: whether less of it is better.
        space: what trials of a search draw from, in place of candidates.
        trials: how many.
        sampler, pruner: see `monai_cae.experiment.searching`.
    """

    candidates: Mapping[str, Mapping[str, Mapping[str, Any]]]
    inner_folds: int
    metric: str
    lower: bool = False
    space: Space | None = None
    trials: int = 0
    sampler: str = ""
    pruner: str = ""

    def scores(self, results: Mapping[str, Any], candidate: str) -> list[float]:
        """A candidate's score in each inner fold, nan where it has none.

        Args:
            results: step -> stage -> results.
            candidate: its name.
        """
        found = (results.get(inner_step(fold, candidate), {}) for fold in range(1, self.inner_folds + 1))
        values = [one.get(STAGES[2], {}).get(f"test_{self.metric}") for one in found]
        return [math.nan if value is None else float(value) for value in values]

    def chosen(self, results: Mapping[str, Any]) -> str:
        """The candidate with the best mean score; one without a score in some fold comes last.

        Args:
            results: step -> stage -> results; "" where a candidate has not been scored in all inner folds.
        """
        folds = range(1, self.inner_folds + 1)
        if self.space:
            return ""
        if any(inner_step(fold, name) not in results for fold in folds for name in self.candidates):
            return ""
        means = {name: math.fsum(self.scores(results, name)) / self.inner_folds for name in self.candidates}
        sign = 1 if self.lower else -1
        return min(means, key=lambda name: math.inf if math.isnan(means[name]) else sign * means[name])


@dataclass(frozen=True)
class Step:
    """What is recorded as done, or is not there.

    Attributes:
        name: in steps.json.
        method: whose it is; "baselines" for all of these together.
        stages: stage -> settings, in the order in which they run.
        inner: it scores a candidate in an inner fold, or all trials of a search, and leaves nothing else.
        chosen_from: of a step whose settings were chosen: among what and how.
    """

    name: str
    method: str
    stages: Mapping[str, Settings]
    inner: bool = False
    chosen_from: Settings = field(default_factory=dict)

    @property
    def compared(self) -> dict[str, Settings]:
        """The settings that a finished step must have had to be kept."""
        told = {
            stage: {name: value for name, value in settings.items() if name not in _NOT_COMPARED}
            for stage, settings in self.stages.items()
        }
        told |= {SELECT: self.chosen_from} if self.chosen_from else {}
        return json.loads(json.dumps(told, default=str))

    def refuse_other_settings(self, before: Mapping[str, Mapping[str, Any]], folder: Path) -> None:
        """Raise MonaiCaeError if the step in `folder` was finished with other settings than these."""
        now = self.compared
        for stage in sorted(before.keys() | now.keys()):
            old, new = one_by_one(before.get(stage, {})), one_by_one(now.get(stage, {}))
            for key in sorted(old.keys() | new.keys()):
                if key not in _NOT_COMPARED and not same_setting(key, old.get(key), new.get(key)):
                    raise MonaiCaeError(
                        f"{folder} has {self.name} finished with {key} {old.get(key)!r}, not {new.get(key)!r}: choose "
                        "another --output_dir, or --overwrite true in place of --resume true to do all of it again"
                    )


@dataclass(frozen=True)
class Plan:
    """What an experiment consists of, as `run_experiment` is given it.

    Attributes:
        variants: with the candidates of a selection first.
        given: the ready datalist of every fold, one for a hold-out; none where the experiment splits.
        select: how the network's settings are chosen in every part; None where they are given.
    """

    configs: str
    output: Path
    shared: Mapping[str, Any]
    stages: Mapping[str, Mapping[str, Any]]
    variants: Mapping[str, Mapping[str, Mapping[str, Any]]]
    baselines: Sequence[str]
    tracked: Mapping[str, str]
    given: Sequence[Path] = ()
    select: Selection | None = None

    def under(self, run_id: str) -> Plan:
        """The same, with its runs nested under an MLflow run."""
        return replace(self, tracked={**self.tracked, "parent_run_id": run_id})

    @property
    def cohort(self) -> str:
        """What the cohort is called."""
        return cohort_name(self.shared["dataset_dir"])

    @property
    def shares(self) -> dict[str, dict[str, float]]:
        """Method -> the variants that learn from fewer labelled subjects and are otherwise it: the learning curves;
        none where each part's network is another."""
        if self.select:
            return {}
        known = {NETWORK: {}, **{name: _some(changed) for name, changed in self.variants.items()}}
        found: dict[str, dict[str, float]] = {}
        for name, changed in self.variants.items():
            train = dict(changed.get(STAGES[1], {}))
            share = train.pop("training_share", None)
            whole = [method for method, settings in known.items() if settings == _some({**changed, STAGES[1]: train})]
            if share is not None and whole:
                found.setdefault(whole[0], {})[name] = share
        return found

    def elsewhere(self, pretrained: str) -> list[Path]:
        """A checkpoint that is not this experiment's own; none for "none"."""
        path = Path(pretrained)
        return [] if pretrained == "none" or path.resolve().is_relative_to(self.output) else [path]

    def steps(self, part: Part) -> Iterator[Step]:
        """The network, the variants and the baselines on one split, in the order in which they run.

        Before a network that is chosen come the candidates, in each inner fold; its own step says what was chosen once
        the record has all their scores.
        """
        yield Step(STAGES[0], NETWORK, {STAGES[0]: self._settings(part, STAGES[0])})
        candidates = list(self.select.candidates) if self.select else []
        for variant in candidates:
            yield from self._pretraining(part, variant)
        for inner in range(1, self.select.inner_folds + 1 if self.select else 1):
            for variant in candidates:
                name = inner_step(inner, variant)
                stages = {stage: self._settings(part, stage, variant, inner) for stage in STAGES[1:]}
                yield Step(name, name, stages, inner=True)
        if self.select and self.select.space:
            place = self._folder(part)
            given = {"device": self.shared["device"], "pretrained": str(place / "models" / "autoencoder.pt")}
            given |= {"output_dir": str(place / SEARCH), "part": asdict(part), **asdict(self.select)}
            yield Step(SEARCH, SEARCH, {SEARCH: given}, inner=True)
        for variant in ("", *self.variants):
            if variant not in candidates:
                # the longest, so a step of its own: another classifier can be tried on the same autoencoder
                yield from self._pretraining(part, variant)
            method = variant or NETWORK
            stages = {stage: self._settings(part, stage, variant) for stage in STAGES[1:]}
            among = asdict(self.select) if self.select and not variant else {}
            yield Step(method, method, stages, chosen_from=among)
        if self.baselines:
            settings = {**self._settings(part, BASELINES), **self._autoencoder, "only": list(self.baselines)}
            yield Step(BASELINES, BASELINES, {BASELINES: settings})

    def _pretraining(self, part: Part, variant: str) -> Iterator[Step]:
        """A variant's own autoencoder, unless it has none, or an earlier variant has the same."""
        if variant and self._home(variant) == variant:
            yield Step(f"{variant}/{STAGES[0]}", variant, {STAGES[0]: self._settings(part, STAGES[0], variant)})

    def _home(self, variant: str) -> str:
        """Whose autoencoder a variant has: that of the first with its settings for pretrain; "" for the network's."""
        own = self._changed(variant).get(STAGES[0]) if variant else None
        same = (name for name in self.variants if self._changed(name).get(STAGES[0]) == own)
        return "" if own is None else next(same)

    def chosen(self, part: Part) -> str:
        """The candidate that the part's network is made as; "" before it is known, and without a selection."""
        done = self.finished(part) if self.select else {}
        return self.select.chosen({name: step["results"] for name, step in done.items()}) if self.select else ""

    def searched(self, part: Part) -> dict[str, Any]:
        """What the part's search has found, see `searching.search`; nothing before it has ended, and without one."""
        done = self.finished(part).get(SEARCH) if self.select and self.select.space else None
        return done["results"][SEARCH] if done else {}

    def corners(self, part: Part) -> list[Step]:
        """Trials that have, between them, every kind of value that a search may draw; none without one."""
        space = self.select.space if self.select else None
        return [self.trial(part, 0, changed, 1) for changed in space.corners()] if space else []

    def trial(self, part: Part, number: int, changed: Changed, inner: int) -> Step:
        """What scores a trial's settings in an inner fold."""
        name = f"trial_{number}"
        stages = {stage: self._settings(part, stage, name, inner, changed) for stage in STAGES[1:]}
        return Step(name, name, stages, inner=True)

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

    def refuse_labelled_choice(self) -> None:
        """Refuse candidates of autoencoders that learn labels: those of an inner fold's test subjects would be known.

        Raises:
            MonaiCaeError: one does.
        """
        for given in (self.stages, *(self.select.candidates.values() if self.select else ())):
            if self.select and given.get(STAGES[0], {}).keys() & _LABELS:
                raise MonaiCaeError(
                    "select needs autoencoders that learn without labels, as its inner folds share them: leave out "
                    "select, or the overlay whose autoencoder learns labels, such as with_joint.yaml"
                )

    def inner_datalist_of(self, part: Part, inner: int) -> Path:
        """The file that says who is in which set of an inner fold."""
        return self._folder(part, inner) / "datalist.json"

    def _folder(self, part: Part, inner: int = 0) -> Path:
        folder = self.output / part.folder
        return folder / f"inner_{inner}" if inner else folder

    def _settings(
        self, part: Part, stage: str, variant: str = "", inner: int = 0, trial: Changed | None = None
    ) -> Settings:
        """What overrides the stage's config, of the network itself or of a variant, which lies in its own folder and
        shares datalist and, unless it changes the pretraining, autoencoder. In an inner fold a variant has the
        part's autoencoders, which learn from no label."""
        chosen = not variant and stage in STAGES[1:]
        like = self.chosen(part) if chosen else "" if trial is not None else variant
        changed = self._changed(like) if like else trial or (self.searched(part).get("changed", {}) if chosen else {})
        known = json.loads(Path(self.configs, f"{stage}.json").read_text(encoding="utf-8"))
        folder = self._folder(part, inner)
        place = folder / "variants" / variant if variant else folder
        home = self._home(like)
        learned = self._folder(part) / "variants" / home if home else self._folder(part)
        elsewhere: Settings = {"datalist": str(folder / "datalist.json")} if variant else {}
        own = _of_stage(changed, stage)
        if learned != place:
            elsewhere["pretrained"] = str(learned / "models" / "autoencoder.pt")
            if stage == STAGES[2] and variant and "pretrained" not in own:
                elsewhere |= _NOT_AGAIN
        if stage == STAGES[2] and (variant or inner):
            elsewhere |= _NOT_EXPLAINED
        if "codes" in known:
            elsewhere["codes"] = str(self._folder(part) / CODES)
        split = {**self.shared["split"], "fold": part.fold}
        if inner and self.select:
            split |= {"kind": "kfold", "folds": self.select.inner_folds, "fold": inner}
        method = BASELINES if stage == BASELINES else variant or NETWORK
        not_shared = set() if stage in STAGES[:2] else {"precision"}  # tested is what `predict` computes
        shared = {name: value for name, value in self.shared.items() if name in known and name not in not_shared}
        if "extraction" in own and "@plane" not in str(own["extraction"]):  # the plane is that of the others
            shared["plane"] = known["plane"]
        return {
            **shared,
            **_of_stage(self.stages, stage),
            **elsewhere,
            **own,
            "output_dir": str(place),
            "split": split,
            "seed": part.seed,
            "overwrite": stage
            in (STAGES[2], BASELINES),  # they have nothing to resume: a step ended there is done again
            "run_name": " ".join([self.cohort, part.folder, method, *([stage] if stage in STAGES else [])]),
            "tracked_run#tags": {"method": method, "repeat": str(part.repeat), "fold": str(part.fold)},
            **self.tracked,
        }


def inner_step(fold: int, candidate: str) -> str:
    """The name of the step that scores a candidate in an inner fold."""
    return f"inner_{fold}/{candidate}"


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
        MonaiCaeError: it is no JSON object, such as half of one, or of a later format.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        content = error
    if not isinstance(content, dict):
        raise MonaiCaeError(f"{path} is not what an experiment writes: delete it to do its part again")
    return unmarked(content, path)


def _some(changed: Mapping[str, Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    return {stage: settings for stage, settings in changed.items() if settings}


def _of_stage(settings: Mapping[str, Mapping[str, Any]], stage: str) -> Settings:
    both = settings.get(CLASSIFIER, {}) if stage in ("train", "evaluate") else {}
    return {**both, **settings.get(stage, {})}
