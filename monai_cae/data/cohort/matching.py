"""Which image belongs to which row of a table, and which of several images of a session is taken."""

from __future__ import annotations

import dataclasses
import difflib
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from monai_cae.data.cohort.persons import loose, without_prefixes
from monai_cae.data.path_safety import require_inside
from monai_cae.data.scan import Note, Scan
from monai_cae.errors import MonaiCaeError

_OTHER_FORMATS = {
    ".mgz": "FreeSurfer's .mgz: convert them with mri_convert",
    ".mgh": "FreeSurfer's .mgh: convert them with mri_convert",
    ".zst": "compressed with zstd: unpack them with unzstd",
    ".bz2": "compressed with bzip2: unpack them with bunzip2",
    ".xz": "compressed with xz: unpack them with unxz",
    ".zip": "zip archives: unpack them",
    ".dcm": "DICOM: convert them to NIfTI, with dcm2niix for example",
    ".mha": "MetaImage: convert them to NIfTI",
    ".nrrd": "NRRD: convert them to NIfTI",
    ".mnc": "MINC: convert them with mnc2nii",
    ".head": "AFNI's: convert them with 3dAFNItoNIFTI",
}


@dataclasses.dataclass(frozen=True)
class Images:
    """The images of a cohort.

    Attributes:
        by_name: name of the scan -> file.
        further: how many were passed over for another of the same session.
        notes: how these were chosen.
    """

    by_name: dict[str, Path]
    further: int = 0
    notes: list[Note] = dataclasses.field(default_factory=list)


@dataclasses.dataclass(frozen=True)
class T1w:
    """The rule that takes one image of every BIDS session.

    The kind of an image is its entities but for subject, session and run: acquisition, reconstruction, contrast agent
    ... Of a session the kind is taken that most sessions of the cohort have, and of several runs the last, which is
    often the repetition of one that went wrong.

    Attributes:
        acquisition: take images with this `acq-` alone, "none" for those without; "" for any.
        run: "last", "first", or the number of a run.
    """

    acquisition: str = ""
    run: str = "last"

    def __call__(self, sessions: Mapping[str, Sequence[Path]]) -> Images:
        """Choose.

        Args:
            sessions: name of the scan -> its images, one or more.

        Raises:
            MonaiCaeError: an unknown run, or an acquisition that no image has.
        """
        run = str(self.run).removeprefix("run-")
        if run not in ("last", "first") and not run.isdecimal():
            raise MonaiCaeError(f"run must be last, first or a number, not {self.run!r}")
        wanted = {name: [path for path in paths if self._wanted(path)] for name, paths in sessions.items()}
        kinds = Counter(kind for paths in wanted.values() for kind in {_kind(path) for path in paths})
        if sessions and not kinds:
            acquisitions = sorted({_entities(path).get("acq", "none") for paths in sessions.values() for path in paths})
            raise MonaiCaeError(f"no T1w image has acq-{self.acquisition}: there are {', '.join(acquisitions)}")
        usual = sorted(kinds, key=lambda kind: (-kinds[kind], len(kind), kind))
        chosen = {}
        for name, paths in wanted.items():
            kind = next((kind for kind in usual if kind in map(_kind, paths)), "")
            runs = sorted((path for path in paths if _kind(path) == kind), key=_run)
            if run.isdecimal() and len(runs) > 1:
                runs = [path for path in runs if _run(path) == int(run)]
            if runs:
                chosen[name] = runs[0 if run == "first" else -1]
        total = sum(map(len, sessions.values()))
        return Images(chosen, total - len(chosen), self._notes(sessions, chosen))

    def _wanted(self, path: Path) -> bool:
        has = _entities(path).get("acq", "none")
        return not self.acquisition or has.casefold() == str(self.acquisition).removeprefix("acq-").casefold()

    def _notes(self, sessions: Mapping[str, Sequence[Path]], chosen: Mapping[str, Path]) -> list[Note]:
        several = [name for name, paths in sessions.items() if len(paths) > 1]
        taken = Counter(_kind(path) or "without acq-" for path in chosen.values())
        if not several and len(taken) < 2:
            return []
        rule = f"acq-{self.acquisition}" if self.acquisition else "the kind that most sessions have"
        counted = ", ".join(f"{kind} ({count})" for kind, count in taken.most_common())
        notes = [
            Note(
                f"{len(several)} sessions have several T1w images: {rule} and the {self.run} run are taken "
                f"({counted}); --acquisition NAME and --run first or a number choose otherwise",
                tuple(chosen[name].name for name in several[:3] if name in chosen),
            )
        ]
        if len(taken) > 1:
            notes.append(Note("images of several kinds are mixed: --acquisition NAME keeps one"))
        missing = [name for name in sessions if name not in chosen]
        return notes + (
            [Note(f"{len(missing)} sessions have no such T1w image", tuple(missing[:3]))] if missing else []
        )


def _entities(path: Path) -> dict[str, str]:
    return {key: value for part in path.name.split("_") if (pair := part.partition("-"))[1] for key, _, value in [pair]}


def _kind(path: Path) -> str:
    left_out = ("sub", "ses", "run")
    return "_".join(f"{key}-{value}" for key, value in _entities(path).items() if key not in left_out)


def _run(path: Path) -> int:
    number = re.sub(r"\D", "", _entities(path).get("run", ""))
    return int(number or 0)


def match(
    rows: Sequence[Scan], images: Mapping[str, Path], root: Path, allow_outside: bool
) -> tuple[list[Scan], list[Note]]:
    """The rows that have an image, each with its own.

    Args:
        rows: of the table; `file` names the image where the table does, with or without its suffix.
        images: name of the scan -> file.
        root: of the paths in the table.
        allow_outside: see `require_inside`.

    Returns:
        The rows with images, and which were matched in spite of another spelling.

    Raises:
        MonaiCaeError: a path that leads out of the folder.
    """
    spelled, asked = defaultdict(list), Counter(loose(row.name) for row in rows)
    for name in images:
        spelled[loose(name)].append(name)
    found, respelled = [], []
    for row in rows:
        if row.file and row.file not in images:
            require_inside(row.file, root, f"the table's row of {row.name}", allow_outside)
            path = Path(row.file) if Path(row.file).is_absolute() else root / row.file
        else:
            key = loose(row.name)
            alike = spelled[key] if asked[key] == 1 and len(spelled[key]) == 1 else []
            name = next((name for name in (row.file, row.name, *row.aliases, *alike) if name in images), "")
            if not name:
                continue
            path = images[name]
            if name in alike and without_prefixes(name) != without_prefixes(row.name):
                respelled.append(f"{row.name} -> {name}")
        if path.suffix.lower() == ".img":
            path = path.with_suffix(".HDR" if path.suffix.isupper() else ".hdr")
        found.append(dataclasses.replace(row, image=path))
    text = f"{len(respelled)} rows matched to images whose names differ in zeros, prefixes or case"
    return found, [Note(text, tuple(respelled[:3]))] if respelled else []


def nearest(name: str, partners: Iterable[str]) -> str:
    """A name without a partner, and the partner whose name is most like it."""
    close = difflib.get_close_matches(name, list(partners), 1, cutoff=0.3)
    return f"{name} (nearest: {close[0]})" if close else name


def other_formats(files: Iterable[Path]) -> str:
    """What to do with images in formats that are not read, for the end of an error; "" where there are none."""
    counts = Counter(path.suffix.lower() for path in files if path.suffix.lower() in _OTHER_FORMATS)
    return "".join(f"; {count} files are {_OTHER_FORMATS[suffix]}" for suffix, count in counts.most_common(2))
