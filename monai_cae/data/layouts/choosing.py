"""One T1w image of every session, where there are several."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from monai_cae.data.layouts.base import Images
from monai_cae.data.scan import Note
from monai_cae.errors import MonaiCaeError

_OTHER = re.compile(r"(?:^|_)(?:ce-|part-(?:phase|real|imag))")
_T1W = re.compile(r"mp.?rage|mpr(?![a-z])|spgr|bravo|tfe|flash", re.IGNORECASE)


@dataclass(frozen=True)
class Candidate:
    """An image of a session.

    Attributes:
        path: the file.
        kind: how it was made, in words, "" where nothing is said; images of a session with one kind are runs of it.
        run: its number among these.
        acquisition: the name that a user asks for it by.
    """

    path: Path
    kind: str
    run: int
    acquisition: str = "none"


def choose(sessions: Mapping[str, Sequence[Candidate]], acquisition: str = "", run: str = "last") -> Images:
    """One image of every session that has any, by the name of the scan; for acquisition and run see `Asked`.

    Each session gives the kind that most sessions of the cohort have, of kinds that as many have one that is called
    after a gradient echo, and the last of several runs, which often repeats one that went wrong. Images with a contrast
    agent, and phase images, are taken only where there is no other.

    Raises:
        MonaiCaeError: an unknown run, or an acquisition that no image has.
    """
    number = str(run).removeprefix("run-")
    if number not in ("last", "first") and not number.isdecimal():
        raise MonaiCaeError(f"run must be last, first or a number, not {run!r}")
    asked = acquisition.casefold()
    wanted = {
        name: [image for image in images if not asked or image.acquisition.casefold() == asked]
        for name, images in sessions.items()
    }
    kinds = Counter(kind for images in wanted.values() for kind in {image.kind for image in images})
    if sessions and not kinds:
        acquisitions = sorted({image.acquisition for images in sessions.values() for image in images})
        raise MonaiCaeError(f"no T1w image has acq-{acquisition}: there are {', '.join(acquisitions)}")
    usual = sorted(kinds, key=lambda kind: (bool(_OTHER.search(kind)), -kinds[kind], not _T1W.search(kind), kind))
    chosen = {}
    for name, images in wanted.items():
        kind = next((kind for kind in usual if any(image.kind == kind for image in images)), "")
        runs = sorted((image for image in images if image.kind == kind), key=lambda image: image.run)
        if number.isdecimal() and len(runs) > 1:
            runs = [image for image in runs if image.run == int(number)]
        if runs:
            chosen[name] = runs[0 if number == "first" else -1]
    rule = f"acq-{acquisition}" if acquisition else "the kind that most sessions have"
    total = sum(map(len, sessions.values()))
    notes = _notes(sessions, chosen, f"{rule} and the {run} run")
    tied = {
        frozenset((taken.kind, image.kind))
        for name, taken in chosen.items()
        for image in wanted[name]
        if image.kind != taken.kind and kinds[image.kind] == kinds[taken.kind] and not _OTHER.search(image.kind)
    }
    if tied:
        pairs = tuple(" or ".join(kind or "without acq-" for kind in sorted(pair)) for pair in tied)
        notes.append(Note("as many sessions have one kind as another: look which is the T1w scan", pairs))
    return Images({name: image.path for name, image in chosen.items()}, total - len(chosen), notes)


def _notes(sessions: Mapping[str, Sequence[Candidate]], chosen: Mapping[str, Candidate], rule: str) -> list[Note]:
    several = [name for name, images in sessions.items() if len(images) > 1]
    missing = [name for name in sessions if name not in chosen]
    taken = Counter(image.kind or "without acq-" for image in chosen.values())
    if not several and len(taken) < 2:
        return []
    counted = ", ".join(f"{kind} ({count})" for kind, count in taken.most_common())
    text = (
        f"{len(several)} sessions have several T1w images: {rule} are taken ({counted}); --acquisition NAME and --run "
        "first or a number choose others"
    )
    mixed = [Note("images of several kinds are mixed: --acquisition NAME keeps one")] if len(taken) > 1 else []
    lacking = [Note(f"{len(missing)} sessions have no such T1w image", tuple(missing[:3]))] if missing else []
    return [Note(text, tuple(chosen[name].path.name for name in several[:3] if name in chosen)), *mixed, *lacking]
