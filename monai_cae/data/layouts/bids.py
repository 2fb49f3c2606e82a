"""BIDS: sub-*/[ses-*/]anat/*_T1w.nii[.gz]; one image and one row for every session."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from monai_cae.data.cohort.persons import loose
from monai_cae.data.cohort.tables import Table, column_names
from monai_cae.data.cohort.tasks import BLANK
from monai_cae.data.layouts.base import Asked, Images, entries, subfolders
from monai_cae.data.layouts.choosing import Candidate, choose
from monai_cae.data.scan import Scan


class Bids:
    """T1w images, participants.tsv and, if present, sub-*_sessions.tsv."""

    name = "BIDS"

    def detect(self, root: Path) -> bool:
        """Whether there are folders of subjects, and nothing says that somebody has processed them."""
        return bool(subfolders(root, "sub-")) and not is_derivative(root)

    def images(self, root: Path, asked: Asked) -> Images:
        """One T1w image of each session."""
        return choose_t1w(session_images(root, "anat", "*_t1w.nii*"), asked.acquisition, asked.run or "last")

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
    """One image of every session, see `choose`. The kind of an image is its entities except subject, session and run:
    acquisition, reconstruction, contrast agent ..."""
    candidates = {
        name: [Candidate(path, _kind(path), _run(path), _entities(path).get("acq", "none")) for path in paths]
        for name, paths in sessions.items()
    }
    return choose(candidates, str(acquisition).removeprefix("acq-"), run)


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
