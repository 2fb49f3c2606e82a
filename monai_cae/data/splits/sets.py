"""Whole subjects into training, validation and test: written once as a MONAI datalist, read by every stage."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from monai_cae.data.cohort.pseudonyms import hidden, pseudonym, with_pseudonyms
from monai_cae.data.cohort.selection import Cohort, CohortSettings, Labels, PatientsAndControls, load_usable_cohort
from monai_cae.data.cohort.tables import ROLES
from monai_cae.data.cohort.tasks import recorded_rules
from monai_cae.data.images.extraction import PAPER_SLICE, Extraction
from monai_cae.data.images.frames import Frame
from monai_cae.data.images.scan_quality import LEFT_OUT, bad_scans, from_record, recorded
from monai_cae.data.layouts import Layout, read_scans
from monai_cae.data.path_safety import below, require_inside
from monai_cae.data.scan import BadScan
from monai_cae.data.splits.datalists import (
    SETS,
    Item,
    check_record,
    checked_item,
    datalist_content,
    folder_of,
    read_content,
    write_content,
)
from monai_cae.data.splits.splitting import Split, split_cohort
from monai_cae.data.texts import MAX_NAME, shown
from monai_cae.errors import MonaiCaeError, suggestion
from monai_cae.terminal import say


@dataclass(frozen=True)
class Sets:
    """The items of a datalist: `image` (absolute path), `label` (0 HC, 1 AD, or a number), `subject`, and columns.

    Attributes:
        training, validation, test: the three sets, whole subjects each.
        synthetic: the images are a phantom's, not real MRI.
        hashed: subjects have pseudonyms, see `monai_cae.data.cohort.pseudonyms`.
        bad_scans: those that were left out as they can't be used, before the split or from these sets.
        unwritten: content of the datalist, where it is not on the disk yet.
        rules: of patients and of controls, as the datalist records them; "" where it does not, or has numbers.
    """

    training: list[Item]
    validation: list[Item]
    test: list[Item]
    synthetic: bool = False
    hashed: bool = False
    bad_scans: tuple[BadScan, ...] = ()
    unwritten: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    rules: tuple[str, str] = ("", "")

    @property
    def everyone(self) -> list[Item]:
        """The items of all three sets."""
        return [*self.training, *self.validation, *self.test]

    def write(self, datalist: str | Path) -> None:
        """Write the datalist, atomically, unless these sets come from one that is on the disk."""
        if self.unwritten:
            write_content(datalist, self.unwritten)


def load_sets(
    dataset_dir: str | Path,
    datalist: str | Path,
    *,
    layout: Layout | None = None,
    cohort: Mapping[str, Any] | None = None,
    split: Mapping[str, Any] | None = None,
    extraction: Extraction = PAPER_SLICE,
    seed: int = 0,
    allow_leaks: bool = False,
    allow_outside: bool = False,
    allow_other_frame: bool = False,
    training: Frame | None = None,
    hash_ids: bool = False,
    on_bad_scan: str = "fail",
    write: bool = True,
    given: bool = False,
    target: Labels | None = None,
    everyone: bool = False,
    compare: bool = True,
    read: bool = True,
) -> Sets:
    """The three sets, read from the datalist; where there is none yet, it is made from the cohort first.

    Args:
        dataset_dir: cohort folder; the datalist's image paths are relative to it.
        datalist: JSON file, written atomically when it does not exist.
        layout: see `Asked`.
        cohort: fields of `CohortSettings`.
        split: fields of `Split`.
        extraction: every image must have its slices.
        seed: see `Split`.
        allow_leaks: accept a given datalist with a subject in two sets.
        allow_outside: accept images outside dataset_dir, see `monai_cae.data.path_safety.require_inside`.
        allow_other_frame, training: see `find_bad`.
        hash_ids: give every subject a pseudonym, and so in whatever is made of the sets; the file keeps the IDs.
        on_bad_scan: "fail" names every scan that can't be used, "skip" leaves them out: before the split, see
            `load_usable_cohort`, and from the sets of a datalist that is there.
        write: write a new datalist at once; without, `Sets.write` does it when everything else has been checked.
        given: a datalist that is there was made elsewhere, and is taken whatever cohort, split and seed it records.
        target: what the labels are; by default patients and controls.
        everyone: all subjects are for the test; nobody is trained on. A datalist of such a test is made again.
        compare: look whether the cohort's table still says of a datalist's subjects what it said when it was made.
        read: look whether every scan of a datalist that is there can be read and used.

    Raises:
        MonaiCaeError: an unknown option, a datalist of other settings, subjects or labels, a subject in two sets, bad
            scans, a set or class of which none is left, or what `load_usable_cohort` and `split_cohort` refuse.
    """
    cohort_options = _known_options("cohort", cohort, CohortSettings, without={"plane", "layout", "allow_outside"})
    split_options = _known_options("split", split, Split, without={"seed"})
    target = target or PatientsAndControls()
    for name, part, kind in (
        ("layout", layout, Layout),
        ("extraction", extraction, Extraction),
        ("target", target, Labels),
    ):
        if part is not None and not isinstance(part, kind):
            wanted = f"must be of the kind {kind.__name__}, such as {{_target_: my_package.MyClass}}"
            raise MonaiCaeError(f"{name} {wanted}, not {part!r}")
    root, datalist = Path(dataset_dir), Path(datalist)
    if cohort_options["table"]:
        cohort_options["table"] = str(cohort_options["table"])
    folder = folder_of(root).resolve()
    made_from = {"dataset_dir": str(folder), **cohort_options, **split_options, "seed": seed}
    made_from["target"] = target.name
    made_from["layout"] = layout.name if layout else ""
    made_from["datalist"] = str(root.resolve()) if root.is_file() else ""  # whose subjects are split anew
    # a plain folder's images lie in the plane's subfolder: where there is one, the plane decides which files these are
    made_from["plane"] = extraction.plane if (root / extraction.plane).is_dir() else ""
    made_from |= {"everyone": True} if everyone else {}
    frame = {"training": training, "allow_other_frame": allow_other_frame}
    Split(**split_options, seed=seed)
    unwritten: dict[str, Any] = {}
    # of a test alone it decides nothing: one that an interrupted test left is made again
    left = everyone and not given and datalist.exists() and (read_content(datalist).get("made_from") or {})
    if not datalist.exists() or (left and left.get("everyone")):
        also: dict[str, Any] = {"layout": layout, "allow_outside": allow_outside, "on_bad_scan": on_bad_scan}
        try:
            chosen = load_usable_cohort(root, extraction, frame=frame, target=target, **also, **cohort_options)
            tested = {"training": [], "validation": [], "test": chosen.scans}
            sets = tested if everyone else split_cohort(chosen, seed=seed, target=target, **split_options)
        except MonaiCaeError as error:
            raise MonaiCaeError(_in_groups(str(error), cohort_options.keys())) from error
        for note in chosen.notes:
            say(f"note: {note.line(names=not hash_ids)}")
        for why, count in chosen.left_out.items():
            if why != LEFT_OUT:  # which are named one by one
                say(f"left out: {count} {why}")
        about: dict[str, Any] = {"made_from": made_from, "recipe": {**extraction.settings, **recipe_of(chosen, root)}}
        about |= {} if target.classes else {"labels": f"label = {target.name}"}
        unwritten = datalist_content(sets, root=root, synthetic=chosen.synthetic, **about)
        check_record(unwritten, datalist)
    allowed: dict[str, Any] = {"allow_leaks": allow_leaks, "allow_outside": allow_outside, "hash_ids": hash_ids}
    known = {name: made_from[name] for name in ("dataset_dir", "target")} if given else made_from
    allowed["needed"] = SETS[2:] if everyone else SETS
    found = read_datalist(datalist, root, content=unwritten, made_from=known, target=target, **allowed)
    if compare and not unwritten and not given:
        asked = CohortSettings(plane=extraction.plane, layout=layout, allow_outside=allow_outside, **cohort_options)
        _refuse_changed(datalist, root, asked, made_from, target)
    if not read and not unwritten:
        return found
    found = usable_sets(found, datalist, extraction, on_bad_scan=on_bad_scan, frame=frame, target=target)
    if write and unwritten:
        write_content(datalist, unwritten)
        return found
    return dataclasses.replace(found, unwritten=unwritten)


def _refuse_changed(
    datalist: Path, root: Path, asked: CohortSettings, made_from: Mapping[str, Any], target: Labels
) -> None:
    """Raise MonaiCaeError where the table says otherwise of these subjects than when this datalist was made from it.

    The table need not be there any more. Images that are gone change who is chosen, and are told of with the scans.
    """
    content = read_content(datalist)
    if content.get("made_from") != made_from:  # it came from elsewhere, and does not record all of this
        return
    skipped = {one["image"] for one in (content.get("recipe") or {}).get("bad_scans", [])}
    folder = folder_of(root)
    try:
        found = read_scans(root, asked, allow_unmatched=True)
    except MonaiCaeError:
        return
    try:
        there = [scan for scan in found.scans if scan.image is not None]
        chosen = asked.of([scan for scan in there if below(Path(str(scan.image)), folder) not in skipped], target)
    except MonaiCaeError as error:
        raise MonaiCaeError(_in_groups(str(error), [field.name for field in dataclasses.fields(asked)])) from error
    before = {item["image"]: (str(item["subject"]), item["label"]) for name in SETS for item in content[name]}
    now = {below(Path(str(scan.image)), folder): (scan.subject, scan.label) for scan in chosen.scans}
    compared = before if all((folder / image).exists() for image in before) else before.keys() & now.keys()
    changed = [image for image in compared if before[image] != now.get(image)]
    if changed:
        image = min(changed, key=lambda image: (image not in now, image))
        subject, label = before[image]
        is_now = f"label {now[image][1]:g}" if image in now else "no part"
        raise MonaiCaeError(
            f"{root} has changed since {datalist} was made: {subject} had label {label:g} then and has {is_now} now: "
            "restore the table, or begin anew in another --output_dir, of an experiment also with --overwrite true"
        )


def recipe_of(cohort: Cohort, root: Path) -> dict[str, Any]:
    """What a datalist records of its cohort: the layout, and who was left out and why."""
    notes = [note.line() for note in cohort.notes]
    recipe: dict[str, Any] = {"layout": cohort.layout, "left_out": dict(cohort.left_out), "notes": notes}
    return recipe | ({"bad_scans": recorded(cohort.bad_scans, folder_of(root))} if cohort.bad_scans else {})


def usable_sets(
    sets: Sets,
    datalist: Path,
    extraction: Extraction,
    *,
    on_bad_scan: str,
    frame: Mapping[str, Any] | None = None,
    target: Labels | None = None,
) -> Sets:
    """The sets of a datalist that is there (named in errors), with every scan read and found usable.

    Args:
        sets, extraction: what was read, and what is wanted of its images.
        on_bad_scan: "fail" names all bad scans; "skip" leaves them out, in memory.
        frame: `training` and `allow_other_frame` of `find_bad`.
        target: see `load_sets`.

    Raises:
        MonaiCaeError: bad scans, or a class of which none is left in a set.
    """
    items = {name: getattr(sets, name) for name in SETS}
    images = [(item["subject"], item["image"]) for members in items.values() for item in members]
    bad = bad_scans(images, extraction, on_bad_scan, **(frame or {}))
    if not bad:
        return sets
    broken = {scan.image: scan for scan in bad}
    left_out = [
        dataclasses.replace(broken[item["image"]], set=name)
        for name, members in items.items()
        for item in members
        if item["image"] in broken
    ]
    classes = (target or PatientsAndControls()).classes
    for name, members in items.items():
        kept = [item for item in members if item["image"] not in broken]
        gone = {item["label"] for item in members} - {item["label"] for item in kept}
        if gone and (classes or not kept):
            what = classes.get(min(gone), "scan")
            raise MonaiCaeError(
                f"no usable {what} is left in the {name} set of {datalist}: {len(bad)} of {len(images)} scans can't be "
                f"used, the first: {bad[0].reason}"
            )
        items[name] = kept
    if sets.hashed:
        left_out = [hidden(scan, scan.subject) for scan in left_out]
    return dataclasses.replace(sets, **items, bad_scans=(*sets.bad_scans, *left_out))


def _known_options(
    what: str, given: Mapping[str, Any] | None, settings: type[Any], without: set[str]
) -> dict[str, Any]:
    known = {field.name: field.default for field in dataclasses.fields(settings) if field.name not in without}
    for name in given or {}:
        if name not in known:
            raise MonaiCaeError(f"unknown setting --{what}#{name}: {suggestion(name, known, f'--{what}#')}")
    return {**known, **(given or {})}


def _in_groups(message: str, options: Collection[str]) -> str:
    """A message on the cohort, which names the options of `monai-cae`, with those of the bundle: --cohort#table."""

    def grouped(option: re.Match[str]) -> str:
        name = option[1].replace("-", "_")
        role = name.removesuffix("_column")
        if name != role and role in ROLES:
            return f"--cohort#columns#{role}"
        return f"--cohort#{name}" if name in options else option[0]

    return re.sub(r"--([\w-]+)", grouped, message)


def read_datalist(
    path: str | Path,
    dataset_dir: str | Path,
    *,
    content: Mapping[str, Any] | None = None,
    made_from: Mapping[str, Any] | None = None,
    allow_leaks: bool = False,
    allow_outside: bool = False,
    hash_ids: bool = False,
    target: Labels | None = None,
    needed: Sequence[str] = SETS,
) -> Sets:
    """Read a datalist and check that it can be trusted.

    Args:
        path: MONAI datalist JSON with "training", "validation" and "test".
        dataset_dir: what its image paths are relative to.
        content: what will be in the file; by default it is read.
        made_from: the settings of this run; a datalist that records other ones is refused.
        allow_leaks, allow_outside, hash_ids, target: see `load_sets`.
        needed: the sets that must have somebody.

    Raises:
        MonaiCaeError: not a datalist, made from other settings, a subject in two sets, an invalid label, or
            an image outside dataset_dir. The images are not looked at.
    """
    path = Path(path)
    content = content or read_content(path, "delete it to have it made again")
    labelled = (content.get("made_from") or {}).get("target", PatientsAndControls.name)
    if target is None and labelled != PatientsAndControls.name:
        raise MonaiCaeError(f"the labels of {path} are {labelled}, and this is for patients and controls")
    target = target or PatientsAndControls()
    missing = [
        name for name in SETS if not isinstance(content.get(name), list) or not (content[name] or name not in needed)
    ]
    if missing:
        raise MonaiCaeError(f"{path} is not a usable datalist: it has no {', '.join(missing)} set")
    recorded = content.get("made_from") or {}
    for key, value in (made_from or {}).items():
        if key in recorded and recorded[key] != value:
            advice = "give that as --dataset_dir, " if key == "dataset_dir" else ""
            raise MonaiCaeError(
                f"{path} was made with {key} {_shown(recorded[key])}, not {_shown(value)}: {advice}choose another "
                "--output_dir, or delete the file"
            )
    # not load_decathlon_datalist: it makes a path of every value that happens to name a file, of subject IDs too
    root = folder_of(Path(dataset_dir)).absolute()
    sets = {name: [_located(item, root, name, path, allow_outside, target) for item in content[name]] for name in SETS}
    owner: dict[str, str] = {}
    for name, items in sets.items():
        for item in items:
            if owner.setdefault(item["subject"], name) != name and not allow_leaks:
                raise MonaiCaeError(
                    f"{path}: subject {item['subject']} is in {owner[item['subject']]} and in {name}: "
                    "a subject may be in one set only, or the result is worthless"
                )
    try:
        bad = from_record((content.get("recipe") or {}).get("bad_scans", []))
    except ValueError as error:
        raise MonaiCaeError(f"{path} is not a usable datalist (its recipe: {error})") from error
    training, validation, test = (with_pseudonyms(sets[name]) if hash_ids else sets[name] for name in SETS)
    if hash_ids:
        bad = [hidden(scan, pseudonym(scan.subject)) for scan in bad]
    synthetic = bool(content.get("synthetic", False))
    rules = recorded_rules(recorded) if target.classes else ("", "")
    return Sets(training, validation, test, synthetic=synthetic, hashed=hash_ids, bad_scans=tuple(bad), rules=rules)


def shareable(sets: Sets) -> dict[str, Any]:
    """The sets as a datalist for others: no image paths, which contain IDs, and no folder of this machine."""
    kept = ("label", "subject", "session", "cdr", "age", "sex")
    content: dict[str, Any] = {"description": "without image paths", "synthetic": sets.synthetic}
    for name in SETS:
        content[name] = [{key: item[key] for key in kept if key in item} for item in getattr(sets, name)]
    return content


def _shown(value: Any) -> str:
    return "none" if value in ("", None) else shown(value, MAX_NAME).strip("'")


def _located(item: Any, root: Path, name: str, path: Path, allow_outside: bool, target: Labels) -> Item:
    item = checked_item(item, f"{path}: an item of {name}")
    label = target.checked(item.get("label"), f"{path}: the label of {item['subject']}")
    require_inside(item["image"], root, f"{path}: the item of {item['subject']} in {name}", allow_outside)
    return {**item, "image": str(root / item["image"]), "label": label}
