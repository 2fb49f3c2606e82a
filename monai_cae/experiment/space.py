"""The settings that a search may choose, and from which values: a file, or the same under `select#space`."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

import yaml

from monai_cae.errors import MonaiCaeError, suggestion

_STAGES = ("classifier", "train", "evaluate")  # classifier is both of the others
_WORDS = ("low", "high", "log", "step", "choices")
# what a trial shares with the others, or what says where it lies
_SAME = (
    "dataset_dir", "datalist", "experiment_name", "output_dir", "overwrite", "parent_run_id",
    "resume", "run_name", "seed", "split", "target", "tracked_run", "tracking_uri",
)  # fmt: skip
_SIZE = 1 << 20  # bytes; a space is a page of text
Changed = dict[str, dict[str, Any]]


@dataclass(frozen=True)
class Parameter:
    """A setting and its values.

    Attributes:
        stage: train, evaluate or, for both, classifier.
        setting: of that stage, such as `penalty#code`.
        choices: name -> value; empty for a range.
        low, high: ends of the range, both in it; whole numbers for whole numbers.
        log: drawn by its logarithm.
        step: distance of the values; None for all.
    """

    stage: str
    setting: str
    choices: Mapping[str, Any]
    low: float = 0
    high: float = 0
    log: bool = False
    step: float | None = None

    @property
    def name(self) -> str:
        """Its name in the study."""
        return f"{self.stage}#{self.setting}"

    def suggested(self, trial: Any) -> Any:
        """The value that an Optuna trial gets."""
        if self.choices:
            return self.choices[trial.suggest_categorical(self.name, list(self.choices))]
        if isinstance(self.low, int) and isinstance(self.high, int):
            return trial.suggest_int(self.name, self.low, self.high, log=self.log, step=int(self.step or 1))
        return trial.suggest_float(self.name, self.low, self.high, log=self.log, step=self.step)

    def value(self, param: Any) -> Any:
        """The setting's value, of what the study calls it."""
        return self.choices[param] if self.choices else param

    @property
    def ends(self) -> list[Any]:
        """Values that show whether the setting can be: all choices, or both ends of the range."""
        return list(self.choices.values()) if self.choices else [self.low, self.high]


@dataclass(frozen=True)
class Space:
    """All parameters of a search.

    Attributes:
        parameters: in the order of the file.
    """

    parameters: tuple[Parameter, ...]

    def suggested(self, trial: Any) -> Changed:
        """Stage -> settings, as an Optuna trial gets them."""
        return self._changed({one.name: one.suggested(trial) for one in self.parameters})

    def changed(self, params: Mapping[str, Any]) -> Changed:
        """Stage -> settings, of the parameters of a finished trial."""
        return self._changed({one.name: one.value(params[one.name]) for one in self.parameters if one.name in params})

    def _changed(self, values: Mapping[str, Any]) -> Changed:
        found: Changed = {}
        for one in self.parameters:
            if one.name in values:
                found.setdefault(one.stage, {})[one.setting] = values[one.name]
        return found

    def corners(self) -> Iterator[Changed]:
        """Settings in which each parameter has each of its ends at least once."""
        most = max(len(one.ends) for one in self.parameters)
        for number in range(most):
            yield self._changed({one.name: one.ends[min(number, len(one.ends) - 1)] for one in self.parameters})


def read_space(given: Any) -> Space:
    """A space from a YAML file, or from what would be in it: stage -> setting -> values.

    Values are `{choices: [1, 2]}`, `{choices: {NAME: VALUE}}` for lists and groups, or `{low: 1, high: 100}` with
    `log: true` and `step` as needed. Whole numbers at both ends give whole numbers.

    Raises:
        MonaiCaeError: no such file, not what it must be, an unknown word, or a setting that is drawn twice.
    """
    where = "select#space"
    if isinstance(given, (str, Path)):
        where = str(given)
        given = _read(Path(given))
    if not isinstance(given, Mapping) or not given:
        raise MonaiCaeError(
            f"{where} must be settings by stage, such as {{train: {{learning_rate: ...}}}}, not {given!r}"
        )
    parameters = []
    for stage, settings in given.items():
        if stage not in _STAGES:
            why = ": every trial would need an autoencoder of its own; try some as variants" * (stage == "pretrain")
            raise MonaiCaeError(f"{where} has settings of {stage!r}: it can have those of {', '.join(_STAGES)}{why}")
        if not isinstance(settings, Mapping):
            raise MonaiCaeError(f"{stage} in {where} must be settings and their values, not {settings!r}")
        parameters += [_parameter(stage, str(name), values, where) for name, values in settings.items()]
    if not parameters:
        raise MonaiCaeError(f"{where} has no setting: name some, such as {{train: {{learning_rate: ...}}}}")
    for number, one in enumerate(parameters):
        for other in parameters[:number]:
            if _share(one, other):
                raise MonaiCaeError(f"{where} draws {other.name} and {one.name}, which set the same: leave one out")
    return Space(tuple(parameters))


def _share(one: Parameter, other: Parameter) -> bool:
    """Whether both set the same item of a stage, or one sets a member of what the other sets."""
    stages, places = {one.stage, other.stage}, sorted([one.setting.split("#"), other.setting.split("#")], key=len)
    return (len(stages) == 1 or _STAGES[0] in stages) and places[0] == places[1][: len(places[0])]


def told(params: Mapping[str, Any]) -> str:
    """A trial's values in a line: each without its stage, numbers with three digits."""
    shown = {name.partition("#")[2]: value for name, value in params.items()}
    return ", ".join(f"{name} {one:.3g}" if isinstance(one, float) else f"{name} {one}" for name, one in shown.items())


def _read(path: Path) -> Any:
    try:
        if path.stat().st_size > _SIZE:
            raise MonaiCaeError(f"{path} is too large for the space of a search")
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        reason = getattr(error, "strerror", None) or str(error).partition("\n")[0]
        raise MonaiCaeError(f"can't read the space of the search, {path} ({reason})") from error


def _parameter(stage: str, setting: str, values: Any, where: str) -> Parameter:
    what = f"{stage}#{setting} in {where}"
    if not setting or setting.startswith("_"):
        raise MonaiCaeError(f"{what} is no setting that anything reads: leave it out")
    if setting.partition("#")[0].partition("::")[0] in _SAME:
        raise MonaiCaeError(f"{what} is the same for all trials: leave it out, and set it for the whole experiment")
    if not isinstance(values, Mapping):
        raise MonaiCaeError(f"{what} must be {{low: ..., high: ...}} or {{choices: [...]}}, not {values!r}")
    for word in values:
        if word not in _WORDS:
            raise MonaiCaeError(f"{what} has {word!r}: {suggestion(word, _WORDS)}")
    if "choices" in values:
        return Parameter(stage, setting, _choices(values, what))
    low, high, log, step = (values.get(name) for name in _WORDS[:4])
    if not (_is_number(low) and _is_number(high) and low < high):
        texts = any(isinstance(end, str) and "e" in end.lower() for end in (low, high))
        hint = ": YAML reads 1e-5 as text, write 1.0e-5" * texts
        raise MonaiCaeError(f"{what} needs numbers low and high, low the smaller, not {values}{hint}")
    if not _is_number(high - low):
        raise MonaiCaeError(f"{what}: from {low} to {high} is too far to draw from")
    if log not in (None, True, False) or not (step is None or (_is_number(step) and step > 0)):
        raise MonaiCaeError(f"{what}: log must be true or false, and step a number above 0, not {log!r} and {step!r}")
    if log and (low <= 0 or step is not None):
        raise MonaiCaeError(f"{what}: with log: true, low must be above 0, and there is no step")
    if isinstance(low, int) and isinstance(high, int) and isinstance(step, float):
        raise MonaiCaeError(f"{what}: whole numbers need a step that is one; write {low}.0 for others")
    whole = isinstance(low, int) and isinstance(high, int)
    low, high = (low, high) if whole else (float(low), float(high))
    return Parameter(stage, setting, {}, low, high, bool(log), step)


def _choices(values: Mapping[str, Any], what: str) -> dict[str, Any]:
    choices = values["choices"]
    if len(values) > 1:
        raise MonaiCaeError(f"{what} has choices, so it has neither low, high, log nor step")
    if not isinstance(choices, (Mapping, list)) or len(choices) < 2:
        raise MonaiCaeError(f"{what} needs at least two choices, not {choices!r}")
    try:
        json.dumps(choices, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:  # a date, NaN, an anchor within itself
        raise MonaiCaeError(f"{what}: choices must be texts, numbers, lists or groups of them ({error})") from error
    if not isinstance(choices, Mapping) and any(isinstance(one, (Mapping, list)) for one in choices):
        raise MonaiCaeError(f"{what}: give lists and groups a name each, as choices: {{NAME: VALUE}}")
    pairs = choices.items() if isinstance(choices, Mapping) else zip(choices, choices, strict=True)
    named = {str(name): value for name, value in pairs}
    if len(named) < len(choices):
        raise MonaiCaeError(f"{what} has a choice twice")
    return named


def _is_number(value: Any) -> TypeGuard[float]:
    try:
        return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    except OverflowError:  # whole numbers may have any number of digits
        return False
