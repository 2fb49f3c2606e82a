"""Which subjects take part, and with which label."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from scipy import optimize

from monai_cae.data.cohort.persons import natural, person
from monai_cae.data.cohort.tasks import RULES, UNLABELLED, Task, make_task
from monai_cae.data.images.extraction import Extraction
from monai_cae.data.images.scan_quality import LEFT_OUT, bad_scans
from monai_cae.data.layouts import Asked, Found, read_scans
from monai_cae.data.phantom import is_synthetic
from monai_cae.data.scan import BadScan, Note, Scan
from monai_cae.data.splits.datalists import SETS, checked_item, read_content
from monai_cae.data.texts import shown
from monai_cae.errors import MonaiCaeError

CONTROLS = ("oldest", "matched", "all")
SESSIONS = ("first", "all")
CONVERTERS = ("as_scanned", "leave_out")
_RULES = (*RULES, "controls", "converters")
_SEEN = "trained on by the other network"
_FURTHER = "further scans of a subject"
_NAMED = 5
_OTHER_SEX_YEARS = 1000.0  # costs more than any difference in age


@dataclass(frozen=True)
class Cohort:
    """The scans that take part.

    Attributes:
        patients: label 1.
        controls: label 0.
        measured: scans with a number as label, if the target is not a class.
        layout: the kind of folder, in words.
        task: the rules of the two classes.
        left_out: reasons why scans do not take part, and counts.
        synthetic: the images are a phantom's, not real MRI.
        bad_scans: those left out because they can't be used.
        notes: guesses made while reading, and the values that made patients, controls and neither.
    """

    patients: list[Scan]
    controls: list[Scan]
    layout: str = ""
    task: Task = field(default_factory=Task)
    left_out: Mapping[str, int] = field(default_factory=dict)
    synthetic: bool = False
    bad_scans: tuple[BadScan, ...] = ()
    notes: tuple[Note, ...] = ()
    measured: list[Scan] = field(default_factory=list)

    @property
    def scans(self) -> list[Scan]:
        """All of them, in the order of their names."""
        return sorted(self.patients + self.controls + self.measured, key=lambda scan: scan.name)


@runtime_checkable
class Labels(Protocol):
    """What the data need to know of a target, see `monai_cae.targets.Target`; `classes` are none for numbers."""

    @property
    def name(self) -> str: ...  # what is predicted; a datalist records it with its settings
    @property
    def classes(self) -> Mapping[float, str]: ...  # label -> what somebody with it is called
    @property
    def fewest(self) -> int: ...  # subjects of a cohort that is split
    @property
    def tells(self) -> Collection[str]: ...  # columns that tell the label, and can't be covariates

    def select(self, scans: Sequence[Scan], *, sessions: str, missing_codes: Any, **rules: Any) -> Cohort:
        """Who takes part, each with a label; `rules` are the cohort's settings that differ from their defaults."""

    def checked(self, label: Any, what: str) -> float:
        """A label of a given datalist; MonaiCaeError where it is none, which names it as `what`."""

    def strata(self, labels: Sequence[float]) -> list[str]:
        """What a split is stratified by. Every set has all first words; others may be joined where they are rare."""


class PatientsAndControls:
    """The labels 1 and 0."""

    name = "diagnosis"
    fewest = 0  # of which both classes have some: the split says whether they are enough
    classes: Mapping[float, str] = {1: "patient", 0: "control"}
    tells: Collection[str] = ("cdr", "label")

    def select(
        self,
        scans: Sequence[Scan],
        *,
        sessions: str,
        missing_codes: Any,
        controls: str = "oldest",
        converters: str = "as_scanned",
        **rules: str,
    ) -> Cohort:
        """See `select_cohort` and, for the rules, `make_task`."""
        task = make_task(missing_codes=missing_codes, **rules)
        return select_cohort(scans, task=task, controls=controls, sessions=sessions, converters=converters)

    def checked(self, label: Any, what: str) -> int:
        """A label of a given datalist; MonaiCaeError where it is neither 0 nor 1, which names it as `what`."""
        if label not in (0, 1):
            raise MonaiCaeError(f"{what} is {shown(label)}; it must be 0 (HC) or 1 (AD)")
        return int(label)

    def strata(self, labels: Sequence[float]) -> list[str]:
        """The classes."""
        return [f"{label:g}" for label in labels]


@dataclass(frozen=True)
class CohortSettings(Asked):
    """How a cohort is read, and who of it takes part.

    Attributes:
        task, positive, negative, label_column: which scans are patients and which controls, see `make_task`.
        controls, sessions, converters: see `select_cohort`.
        unseen_by: folder of a finished run, or its datalist; whom it was trained on takes no part.
    """

    task: str = "paper"
    positive: str = ""
    negative: str = ""
    label_column: str = ""
    controls: str = "oldest"
    sessions: str = "first"
    converters: str = "as_scanned"
    unseen_by: str = ""

    def of(self, scans: Sequence[Scan], target: Labels | None = None) -> Cohort:
        """Select the scans that take part; the target gets the settings of the classes that are not the defaults."""
        rules = {name: value for name in _RULES if (value := getattr(self, name)) != getattr(CohortSettings, name)}
        target = target or PatientsAndControls()
        unseen = self._unseen(scans)
        cohort = target.select(unseen, sessions=self.sessions, missing_codes=self.missing_codes, **rules)
        seen = {_SEEN: len(scans) - len(unseen)} if self.unseen_by else {}
        return dataclasses.replace(cohort, left_out={**seen, **cohort.left_out})

    def _unseen(self, scans: Sequence[Scan]) -> Sequence[Scan]:
        if not self.unseen_by:
            return scans
        path = Path(str(self.unseen_by))
        path = path / "datalist.json" if path.is_dir() else path
        if not path.is_file():
            raise MonaiCaeError(f"no datalist at {path}: give --unseen-by a finished run's folder, or its datalist")
        content = read_content(path)
        items = [(item, f"{path}: an item of {name}") for name in SETS[:2] for item in content.get(name) or []]
        seen = {person(checked_item(*item)["subject"]) for item in items}
        if not seen:
            raise MonaiCaeError(f"{path} has nobody in training or validation: give --unseen-by a trained run")
        return [scan for scan in scans if person(scan.subject) not in seen]


def load_cohort(dataset_dir: str | Path, **settings: Any) -> Cohort:
    """Read a cohort (a folder, table or datalist), and select the scans that take part; no image is opened.

    Args:
        dataset_dir: see `read_scans`.
        **settings: fields of `CohortSettings`.

    Raises:
        MonaiCaeError: what `read_scans`, `make_task` and `select_cohort` refuse.
    """
    asked = CohortSettings(**settings)
    found = read_scans(dataset_dir, asked)
    return _complete(asked.of(found.scans), found, dataset_dir)


def load_usable_cohort(
    dataset_dir: str | Path,
    extraction: Extraction,
    *,
    on_bad_scan: str,
    frame: Mapping[str, Any] | None = None,
    target: Labels | None = None,
    **settings: Any,
) -> Cohort:
    """`load_cohort`, with every selected scan read and usable.

    With "skip" the selection uses only good scans: the next one by the rule of the controls replaces a bad one, and a
    subject's second scan replaces a bad first one. Only selected scans are read.

    Args:
        dataset_dir: see `load_cohort`.
        extraction: what is read of the scans.
        on_bad_scan: "fail" names all selected bad scans; "skip" leaves them out.
        frame: `training` and `allow_other_frame` of `find_bad`.
        target: what a scan's label is; by default whether it is a patient's.
        settings: see `load_cohort`.

    Raises:
        MonaiCaeError: what `load_cohort` refuses, bad scans, or a class of which none is left.
    """
    asked = CohortSettings(plane=extraction.plane, **settings)
    found = read_scans(dataset_dir, asked)
    scans, bad = found.scans, list[BadScan]()
    while True:
        try:
            cohort = asked.of(scans, target)
        except MonaiCaeError as error:
            if not bad:
                raise
            raise MonaiCaeError(f"{error}; {len(bad)} were left out as unusable, the first: {bad[0].reason}") from error
        images = [(scan.name, scan.image) for scan in cohort.scans if scan.image is not None]
        if not images:
            raise MonaiCaeError("dataset_dir is only a table: training needs the folder with the images")
        worse = bad_scans(images, extraction, on_bad_scan, **(frame or {}))
        if not worse:
            return _complete(cohort, found, dataset_dir, bad)
        bad += worse
        broken = {scan.image for scan in worse}
        scans = [scan for scan in scans if str(scan.image) not in broken]


def _complete(cohort: Cohort, found: Found, dataset_dir: str | Path, bad: Sequence[BadScan] = ()) -> Cohort:
    broken = {LEFT_OUT: len(bad)} if bad else {}
    return dataclasses.replace(
        cohort,
        layout=found.layout,
        left_out={**found.left_out, **broken, **cohort.left_out},
        synthetic=is_synthetic(Path(dataset_dir)),
        bad_scans=tuple(bad),
        notes=(*found.notes, *cohort.notes),
    )


def select_cohort(
    scans: Sequence[Scan],
    *,
    task: Task | None = None,
    controls: str = "oldest",
    sessions: str = "first",
    converters: str = "as_scanned",
) -> Cohort:
    """Select all patients, and controls for them: the paper's selection (section IV-A) and its variants.

    Of OASIS-1 the defaults give the 100 patients (CDR > 0) and, with the oldest controls (ties by ID), the sex counts
    and age ranges of Table I exactly. A scan that the task gives no label, such as one with a blank CDR, is left out.

    Args:
        scans, task: the scans to choose from, and the rules of the two classes; by default the paper's.
        controls: "oldest" takes the oldest, as many as there are patients; "matched" gives every patient the control of
            the same sex, as long as there are enough, that is nearest in age (no control twice, smallest sum of
            differences); "all" takes every one.
        sessions: "first" keeps a subject's first scan, "all" every one (whole subjects still go into one set).
        converters: subjects with scans of both labels, such as those of OASIS-2 that convert. "as_scanned" gives every
            scan the label of its own day, so that the first scan of a later patient is a control's; "leave_out" leaves
            these subjects out.

    Raises:
        MonaiCaeError: an unknown rule, a class without subjects, contradicting labels of one subject, or ages or sexes
            missing where they are needed.
    """
    if controls not in CONTROLS:
        raise MonaiCaeError(f"controls must be one of {', '.join(CONTROLS)}, not {controls!r}")
    if converters not in CONVERTERS:
        raise MonaiCaeError(f"converters must be one of {', '.join(CONVERTERS)}, not {converters!r}")
    task = task or Task()
    changing = _converters(scans, task)
    left = changing if converters == "leave_out" else {}
    kept = _of_sessions([scan for scan in scans if scan.subject not in left], sessions)
    rows = [scan.row for scan in kept]
    labels = task.labels(rows, (scan.name for scan in kept))
    values = task.values(rows, labels)
    labelled = [dataclasses.replace(scan, label=label) for scan, label in zip(kept, labels, strict=True)]
    _refuse_contradictions(labelled)
    patients = [scan for scan in labelled if scan.label == 1]
    healthy = [scan for scan in labelled if scan.label == 0]
    for found, rule in ((patients, f"patient ({task.positive})"), (healthy, f"control ({task.controls})")):
        if not found:
            told = f" ({'; '.join(values)})" if values else ""
            raise MonaiCaeError(
                f"no {rule} among {len(kept)} scans{told}: two classes are needed; check the table and the task; "
                f"{UNLABELLED}"
            )
    people = {scan.subject for scan in _choose(_first_scans(healthy), _first_scans(patients), controls)}
    chosen = [scan for scan in healthy if scan.subject in people]
    left_out = {
        "scans without a label (blank, or neither patient nor control)": sum(label is None for label in labels),
        _FURTHER: len(scans) - len(kept) - sum(scan.subject in left for scan in scans),
        f"controls not chosen ({controls})": len(healthy) - len(chosen),
        "subjects with scans of both labels (converters)": len(left),
    }
    return Cohort(
        patients,
        chosen,
        task=task,
        left_out={why: count for why, count in left_out.items() if count},
        notes=(*(Note(line) for line in values), *_told(changing, converters)),
    )


def _converters(scans: Sequence[Scan], task: Task) -> dict[str, set[int]]:
    """Subjects with scans of both labels."""
    if len({scan.subject for scan in scans}) == len(scans):
        return {}
    labels: dict[str, set[int]] = {}
    for scan, label in zip(scans, task.labels([s.row for s in scans], (s.name for s in scans)), strict=True):
        if label is not None:
            labels.setdefault(scan.subject, set()).add(label)
    return {subject: found for subject, found in labels.items() if len(found) > 1}


def _told(changing: Collection[str], converters: str) -> list[Note]:
    if not changing:
        return []
    what = "take no part" if converters == "leave_out" else "each scan counts as what the subject was on its day"
    text = f"subjects that are controls in one scan and patients in another ({len(changing)}): {what} (--converters)"
    return [Note(text, tuple(sorted(changing)[:_NAMED]))]


def select_measured(
    scans: Sequence[Scan], value: Callable[[Scan], float | None], *, name: str, sessions: str = "first"
) -> Cohort:
    """All scans of which `value` gives a number; errors call it `name`. For `sessions` see `select_cohort`.

    Raises:
        MonaiCaeError: an unknown word for the sessions, or nobody has the number.
    """
    kept = _of_sessions(scans, sessions)
    measured = [dataclasses.replace(scan, label=number) for scan in kept if (number := value(scan)) is not None]
    if not measured:
        raise MonaiCaeError(f"no {name} among {len(kept)} scans: check the table, or choose another target")
    if len({scan.label for scan in measured}) == 1:
        raise MonaiCaeError(f"{name} is {measured[0].label} for all of {len(measured)} scans: nothing is to be learned")
    left_out = {f"scans without {name}": len(kept) - len(measured), _FURTHER: len(scans) - len(kept)}
    return Cohort([], [], left_out={why: count for why, count in left_out.items() if count}, measured=measured)


def select_everybody(scans: Sequence[Scan], sessions: str = "first") -> Cohort:
    """All scans, whatever is known of them, with the label 0. For `sessions` see `select_cohort`."""
    kept = _of_sessions(scans, sessions)
    left_out = {_FURTHER: len(scans) - len(kept)} if len(scans) > len(kept) else {}
    return Cohort([], [], left_out=left_out, measured=[dataclasses.replace(scan, label=0.0) for scan in kept])


def _of_sessions(scans: Sequence[Scan], sessions: str) -> list[Scan]:
    if sessions not in SESSIONS:
        raise MonaiCaeError(f"sessions must be one of {', '.join(SESSIONS)}, not {sessions!r}")
    ordered = sorted(scans, key=lambda scan: (scan.subject, natural(scan.session)))
    return ordered if sessions == "all" else _first_scans(ordered)


def _first_scans(ordered: Sequence[Scan]) -> list[Scan]:
    return list({scan.subject: scan for scan in reversed(ordered)}.values())[::-1]


def _refuse_contradictions(scans: Sequence[Scan]) -> None:
    first: dict[str, Scan] = {}
    for scan in scans:
        if scan.label is not None and first.setdefault(scan.subject, scan).label != scan.label:
            raise MonaiCaeError(
                f"{first[scan.subject].name} and {scan.name} are one subject with both labels: correct the table, "
                "leave such subjects out with --converters leave_out, or keep first scans only"
            )


def _choose(healthy: list[Scan], patients: list[Scan], controls: str) -> list[Scan]:
    if controls == "all" or len(healthy) <= len(patients):
        return healthy
    for scan in (*healthy, *(patients if controls == "matched" else ())):
        if scan.age is None or (controls == "matched" and not scan.sex):
            missing = "age" if scan.age is None else "sex"
            raise MonaiCaeError(
                f"{scan.name} has no {missing}, which {controls} controls need: fill it in, name its column with "
                f"--{missing}-column, or take all controls with --controls all"
            )
    if controls == "oldest":
        oldest = sorted(healthy, key=lambda scan: (-(scan.age or 0), scan.name))[: len(patients)]
        return sorted(oldest, key=lambda scan: scan.name)
    ages = [np.array([scan.age for scan in group], dtype=float) for group in (patients, healthy)]
    sexes = [np.array([scan.sex for scan in group]) for group in (patients, healthy)]
    cost = np.abs(ages[0][:, None] - ages[1]) + _OTHER_SEX_YEARS * (sexes[0][:, None] != sexes[1])
    _, columns = optimize.linear_sum_assignment(cost)
    return [healthy[index] for index in sorted(columns)]
