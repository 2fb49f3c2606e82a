"""A BIDS derivative with prepared T1w images, as `monai-cae prepare` and fMRIPrep write, and its qc.tsv."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from monai_cae.data.cohort.cells import read_cells
from monai_cae.data.cohort.tables import Table
from monai_cae.data.layouts.base import Asked, Images, subfolders
from monai_cae.data.layouts.bids import Bids, choose_t1w, description, is_derivative, session_images
from monai_cae.data.texts import shown
from monai_cae.errors import MonaiCaeError

QC_TABLE = "qc.tsv"
VERDICTS = ("pass", "review", "fail", "error")
DECISIONS = ("", "keep", "drop")
TOOL = "monai-cae prepare"  # as it names itself in dataset_description.json
_UNJUDGED = "scans that qc.tsv does not list (finish monai-cae prepare with --resume)"


class Judged(NamedTuple):
    """A row of qc.tsv: what the numbers say of a scan ("error": it was not prepared), and what somebody decided."""

    verdict: str
    decision: str = ""
    reasons: str = ""

    @property
    def left_out(self) -> str:
        """Why the scan takes no part; "" if it does."""
        if self.verdict == "error":
            return "scans that could not be prepared"
        if self.decision == "drop":
            return "scans dropped in qc.tsv"
        failed = self.verdict == "fail" and self.decision != "keep"
        return "scans that failed their QC, and are not marked keep in qc.tsv" if failed else ""


class BidsDerivative(Bids):
    """*_desc-preproc_T1w.nii[.gz], in a template's space where there is one, without what qc.tsv rules out."""

    name = "BIDS derivative"

    def detect(self, root: Path) -> bool:
        """Whether there are folders of subjects, and its description calls it a derivative."""
        return bool(subfolders(root, "sub-")) and is_derivative(root)

    def rows(self, root: Path, asked: Asked) -> Table:
        """As BIDS; in a table of ours a visit that was carried over names no session."""
        columns = {"session": "none", **(asked.columns or {})} if _is_ours(root) else asked.columns
        return super().rows(root, replace(asked, columns=columns))

    def images(self, root: Path, asked: Asked) -> Images:
        """One image of each session."""
        names = ("_space-*_desc-preproc_t1w.nii*", "_desc-preproc_t1w.nii*", "_t1w.nii*")  # the best first
        found = next((found for name in names if (found := session_images(root, "anat", f"*{name}"))), {})
        images = choose_t1w(found, asked.acquisition, asked.run or "last")
        judged = read_qc(root / QC_TABLE)
        ruled_out = {name: one.left_out for name, one in judged.items() if one.left_out}
        if _is_ours(root):
            ruled_out |= {name: _UNJUDGED for name in images.by_name if name not in judged}
        return replace(images, ruled_out=ruled_out)


def _is_ours(root: Path) -> bool:
    return any(one.get("Name") == TOOL for one in description(root).get("GeneratedBy", []) if isinstance(one, dict))


def read_qc(path: Path) -> Mapping[str, Judged]:
    """The rows of a qc.tsv by the name of their scan, such as "sub-01_ses-02"; none where there is no file.

    Raises:
        MonaiCaeError: a table without the columns scan, verdict and decision, an unknown word, a scan twice.
    """
    if not path.is_file():
        return {}
    cells = read_cells(path)
    missing = [name for name in ("scan", "verdict", "decision") if name not in cells.columns]
    if missing:
        raise MonaiCaeError(f"{path} has no column {missing[0]}: download it again from qc.html, or delete it")
    judged: dict[str, Judged] = {}
    for number, row in cells.rows:
        one = Judged(row["verdict"].strip().lower(), row["decision"].strip().lower(), row.get("reasons", ""))
        for word, known in zip(one[:2], (VERDICTS, DECISIONS), strict=True):
            if word not in known:
                words = ", ".join(filter(None, known))
                raise MonaiCaeError(f"{path}, row {number}: {shown(word)} is none of {words}: correct it")
        if row["scan"].strip() in judged:
            raise MonaiCaeError(f"{path}, row {number}: {shown(row['scan'])} is there twice: delete one row")
        judged[row["scan"].strip()] = one
    return judged
