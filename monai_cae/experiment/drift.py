"""How unlike those that an autoencoder has learned from the scans of a cohort are: `monai-cae drift`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch.utils.data import Dataset

from monai_cae import DISCLAIMER
from monai_cae.data import Cohort, hashed_subjects
from monai_cae.data.cohort.tasks import parse, read_codes
from monai_cae.errors import MonaiCaeError
from monai_cae.evaluation.drift import drift, drift_figure
from monai_cae.evaluation.style import save_figure
from monai_cae.experiment.latent import items_of
from monai_cae.experiment.short_page import short_page
from monai_cae.experiment.wording import p_value
from monai_cae.files import replacing, write_text
from monai_cae.templates import render
from monai_cae.terminal import progress_bar, say
from monai_cae.tracking import cohort_name
from monai_cae.training import Strangers
from monai_cae.training.results.figures import SYNTHETIC_NOTE
from monai_cae.training.stages.run import data_kind

_FILES = ("drift.csv", "drift_groups.csv", "drift.md", "drift.html", "figures/drift.png", "figures/strangers.png")


def report_drift(
    *,
    strangers: Strangers,
    cohort: Cohort,
    dataset: Dataset,
    by: str,
    as_sites: bool,
    missing_codes: Any,
    trained_on: Sequence[str],
    dataset_dir: str,
    output_dir: str,
    batch_size: int,
    overwrite: bool,
) -> dict[str, Any]:
    """Tell of every scan of a cohort how unlike the training's it is, and compare groups of them.

    Args:
        strangers: looks.
        cohort: its scans, with the rows of the table.
        dataset: their images, in the same order.
        by: a column of the table, see `monai_cae.evaluation.drift.drift`; "" for one group.
        as_sites: each number of it is a group of its own, such as the code of a site.
        missing_codes: numbers of the table that mean "not given".
        trained_on: hashed IDs of the subjects that the autoencoder has seen.
        dataset_dir: names the cohort.
        output_dir: drift.csv (scans), drift_groups.csv, drift.html with the same as drift.md, and figures are written
            there.
        batch_size: images at once.
        overwrite: replace what is there.

    Returns:
        The numbers of `scans`, `subjects` and `marked` scans.

    Raises:
        MonaiCaeError: earlier results, no such column, or an autoencoder of whose training nothing is known.
    """
    output, scans, reference = Path(output_dir), cohort.scans, strangers.reference
    there = [name for name in _FILES if (output / name).is_file()]
    if there and not overwrite:
        raise MonaiCaeError(f"{output} has {there[0]}: choose another --output_dir, or give --overwrite true")
    if not strangers.limit:
        raise MonaiCaeError("drift counts the scans above unlike_limit: give a percentile such as 95, not 0")
    if isinstance(reference, str):
        raise MonaiCaeError(
            f"what the autoencoder's training looked like is {reference}: run pretrain.json of this version, with "
            "enough scans (--split#val_fraction)"
        )
    columns = list(dict.fromkeys(name for scan in scans for name in scan.row))
    name = next((one for one in columns if one.casefold() == by.casefold()), "")
    if by and not name:
        raise MonaiCaeError(f"the table has no column {by}: give --by one of {', '.join(columns) or 'none'}")
    texts = [scan.row.get(name, "").strip() if by else "all" for scan in scans]
    if as_sites not in (True, False):
        raise MonaiCaeError(f"as_sites must be true or false, not {as_sites!r}")
    table = pd.DataFrame({
        "subject": [scan.subject for scan in scans], "file": [str(scan.image) for scan in scans],
        "by": ["" if parse(text, read_codes(missing_codes)) is None else text for text in texts],
        **_looked(strangers, dataset, [scan.subject for scan in scans], batch_size),
    })  # fmt: skip
    found = drift(table, strangers.limit, as_sites)
    for path in (output / name for name in _FILES):
        path.unlink(missing_ok=True)
    for stem, frame in (("drift", table.rename(columns={"by": name or "group"})), ("drift_groups", found.groups)):
        with replacing(output / f"{stem}.csv") as temporary:
            frame.to_csv(temporary, index=False, float_format="%.5g")
    note = SYNTHETIC_NOTE if cohort.synthetic else ""
    about = f"{table['subject'].nunique()} subjects" + (f", by {name}" if by else "")
    save_figure(drift_figure(found, strangers.limit, note, about), output / "figures" / "drift.png")
    drawn = strangers.figure(note)
    if drawn is not None:
        save_figure(drawn, output / "figures" / "strangers.png")
    seen = sum(digest in set(trained_on) for digest in hashed_subjects(items_of(cohort)))
    facts = {"scans": len(table), "subjects": table["subject"].nunique(), "marked": int(table["stranger"].sum())}
    page = render(
        "drift.md",
        **facts,
        data=data_kind(cohort.synthetic),
        disclaimer=DISCLAIMER,
        cohort=cohort_name(dataset_dir),
        by=name,
        time=found.time,
        limit=strangers.limit,
        validation=reference.validation,
        seen=seen if trained_on else None,
        found=found,
        groups=found.groups.to_dict("records"),
        shown=drawn is not None,
        p_value=p_value,
    )
    write_text(output / "drift.md", page)
    write_text(output / "drift.html", short_page(page, output, "drift", cohort.synthetic))
    print(f"\n{facts['marked']} of {facts['scans']} scans are unlike the training's, {data_kind(cohort.synthetic)}")
    if found.time:
        say(f"  {name} is read as time, or an amount; --as_sites true if its values are codes of sites")
    for row in found.groups.to_dict("records"):
        tested = f", corrected p {p_value(row['q'])}" if pd.notna(row["q"]) else ""
        say(f"  {row['group']:<24} {row['marked']} of {row['subjects']} subjects, median percentile {row['median']:.0f}"
            f"{tested}")  # fmt: skip
    if pd.notna(found.p):
        say(f"  {found.test}: {found.statistic:.2f}, p {p_value(found.p)}")
    print(f"  page   {output / 'drift.html'}\n  table  {output / 'drift.csv'}\n  {DISCLAIMER}", flush=True)
    return facts


def _looked(strangers: Strangers, dataset: Dataset, subjects: Sequence[str], batch_size: int) -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = {"unlike": [], "unlike_by": [], "stranger": []}
    progress = progress_bar("scans", len(subjects), "scan")
    strangers.forget()
    for first in range(0, len(subjects), batch_size):
        part = range(first, min(first + batch_size, len(subjects)))
        images = torch.stack([torch.as_tensor(dataset[index]["image"]) for index in part])
        told = strangers({"image": images, "subject": [subjects[index] for index in part]})
        for name, values in found.items():
            values += list(told[name]) if name == "unlike_by" else told[name].tolist()
        progress.update(len(part))
    progress.close()
    return found
