"""BIDS: sub-*/[ses-*/]anat/*_T1w.nii[.gz]; one image and one row for every session."""

from __future__ import annotations

import dataclasses
import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from monai_cae.data.cohort.persons import loose
from monai_cae.data.cohort.tables import Table, column_names
from monai_cae.data.cohort.tasks import BLANK
from monai_cae.data.layouts.base import Asked, Images, entries, subfolders
from monai_cae.data.scan import Note, Scan
from monai_cae.errors import MonaiCaeError


class Bids:
    """T1w images, participants.tsv and, if present, sub-*_sessions.tsv."""

    name = "BIDS"

    def detect(self, root: Path) -> bool:
        """Whether there are folders of subjects, and nothing says that somebody has processed them."""
        return bool(subfolders(root, "sub-")) and not is_derivative(root)

    def images(self, root: Path, asked: Asked) -> Images:
        """One T1w image of each session."""
        return choose_t1w(session_images(root, "anat", "*_t1w.nii*"), asked.acquisition, asked.run)

    def rows(self, root: Path, asked: Asked) -> Table:
        """One row per session; sub-*_sessions.tsv takes precedence over participants.tsv."""
        table = asked.table_in(root)
        if not (asked.columns or {}).get("subject") and "participant_id" in column_names(table):
            asked = dataclasses.replace(asked, columns={**(asked.columns or {}), "subject": "participant_id"})
        read = asked.rows(table)
        return Table(_with_sessions(root, read.scans, asked), read.notes)


def is_derivative(root: Path) -> bool:
    """Whether a folder's dataset_description.json calls it a BIDS derivative; False where none can be read."""
    return description(root).get("DatasetType") == "derivative"


def description(root: Path) -> dict[str, Any]:
    """What a BIDS folder's dataset_description.json says; nothing where there is none, or it can't be read."""
    try:
        content = json.loads((root / "dataset_description.json").read_text(encoding="utf-8-sig"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def choose_t1w(sessions: Mapping[str, Sequence[Path]], acquisition: str = "", run: str = "last") -> Images:
    """One image of every session that has any, by the name of the scan; for acquisition and run see `Asked`.

    The kind of an image is its entities except subject, session and run: acquisition, reconstruction, contrast agent
    ... Each session gives the kind that most sessions of the cohort have, and the last of several runs, which often
    repeats one that went wrong.

    Raises:
        MonaiCaeError: an unknown run, or an acquisition that no image has.
    """
    number = str(run).removeprefix("run-")
    if number not in ("last", "first") and not number.isdecimal():
        raise MonaiCaeError(f"run must be last, first or a number, not {run!r}")
    asked = str(acquisition).removeprefix("acq-").casefold()
    wanted = {
        name: [path for path in paths if not acquisition or _acquisition(path).casefold() == asked]
        for name, paths in sessions.items()
    }
    kinds = Counter(kind for paths in wanted.values() for kind in set(map(_kind, paths)))
    if sessions and not kinds:
        acquisitions = sorted({_acquisition(path) for paths in sessions.values() for path in paths})
        raise MonaiCaeError(f"no T1w image has acq-{acquisition}: there are {', '.join(acquisitions)}")
    usual = sorted(kinds, key=lambda kind: (-kinds[kind], len(kind), kind))
    chosen = {}
    for name, paths in wanted.items():
        kind = next((kind for kind in usual if kind in map(_kind, paths)), "")
        runs = sorted((path for path in paths if _kind(path) == kind), key=_run)
        if number.isdecimal() and len(runs) > 1:
            runs = [path for path in runs if _run(path) == int(number)]
        if runs:
            chosen[name] = runs[0 if number == "first" else -1]
    rule = f"acq-{acquisition}" if acquisition else "the kind that most sessions have"
    total = sum(map(len, sessions.values()))
    return Images(chosen, total - len(chosen), _notes(sessions, chosen, f"{rule} and the {run} run"))


def _notes(sessions: Mapping[str, Sequence[Path]], chosen: Mapping[str, Path], rule: str) -> list[Note]:
    several = [name for name, paths in sessions.items() if len(paths) > 1]
    missing = [name for name in sessions if name not in chosen]
    taken = Counter(_kind(path) or "without acq-" for path in chosen.values())
    if not several and len(taken) < 2:
        return []
    counted = ", ".join(f"{kind} ({count})" for kind, count in taken.most_common())
    text = (
        f"{len(several)} sessions have several T1w images: {rule} are taken ({counted}); --acquisition NAME and --run "
        "first or a number choose others"
    )
    mixed = [Note("images of several kinds are mixed: --acquisition NAME keeps one")] if len(taken) > 1 else []
    lacking = [Note(f"{len(missing)} sessions have no such T1w image", tuple(missing[:3]))] if missing else []
    return [Note(text, tuple(chosen[name].name for name in several[:3] if name in chosen)), *mixed, *lacking]


def _acquisition(path: Path) -> str:
    return _entities(path).get("acq", "none")


def _entities(path: Path) -> dict[str, str]:
    return {key: value for part in path.name.split("_") if (pair := part.partition("-"))[1] for key, _, value in [pair]}


def _kind(path: Path) -> str:
    left_out = ("sub", "ses", "run")
    return "_".join(f"{key}-{value}" for key, value in _entities(path).items() if key not in left_out)


def _run(path: Path) -> int:
    number = re.sub(r"\D", "", _entities(path).get("run", ""))
    return int(number or 0)


def session_images(root: Path, part: str, pattern: str) -> dict[str, list[Path]]:
    """All images of one kind, by the name of the session."""
    images = {}
    for subject in subfolders(root, "sub-"):
        sessions = subfolders(subject, "ses-")
        for folder, session in [(path, path.name) for path in sessions] or [(subject, "")]:
            files = entries(folder / part) if (folder / part).is_dir() else []
            found = [p for p in files if fnmatchcase(p.name.lower(), pattern) and p.suffix.lower() in (".nii", ".gz")]
            if found:
                images[f"{subject.name}_{session}" if session else subject.name] = found
    return images


def _with_sessions(root: Path, rows: list[Scan], asked: Asked) -> list[Scan]:
    """BIDS: one row per session, what sub-*_sessions.tsv says (a blank says nothing) before participants.tsv."""
    folders = {loose(path.name): path for path in subfolders(root, "sub-")}
    out = []
    for row in rows:
        folder = folders.get(loose(row.subject), root / row.subject)
        table = folder / f"{folder.name}_sessions.tsv"
        sessions = [path.name for path in subfolders(folder, "ses-")]
        if table.is_file():
            known = {name.strip().lower() for name in column_names(table)}
            roles = {role: name for role, name in (asked.columns or {}).items() if name.strip().lower() in known}
            names = {name.lower(): name for name in row.row}
            sessionwise = dataclasses.replace(asked, columns={**roles, "subject": "session_id"}, subject_pattern="(.+)")
            told = sessionwise.rows(table)
            about = [one for one in told.scans if not row.session or loose(one.subject) == loose(row.session)]
            out += [] if about else [row]
            for session in about:
                given = {
                    names.get(name.lower(), name): value
                    for name, value in session.row.items()
                    if name != "session_id" and value.strip().lower() not in BLANK
                }
                out.append(
                    dataclasses.replace(
                        row,
                        session=session.subject if session.subject.startswith("ses-") else f"ses-{session.subject}",
                        cdr=row.cdr if session.cdr is None else session.cdr,
                        age=row.age if session.age is None else session.age,
                        sex=session.sex or row.sex,
                        covariates={**row.covariates, **session.covariates},
                        row={**row.row, **given},
                    )
                )
        elif sessions and not row.session:
            out += [dataclasses.replace(row, session=name) for name in sessions]
        else:
            out.append(row)
    return out
