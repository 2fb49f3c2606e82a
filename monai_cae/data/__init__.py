"""Which subjects, which slice; independent of networks and training.

Names are imported when they are first used: finding and preparing scans needs neither PyTorch nor MONAI, and each
process of a preparation would hold them in memory.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from monai_cae.data.cohort.covariates import inference_items, with_covariates
    from monai_cae.data.cohort.demographics import PAPER_TABLE_1, balance, table_1
    from monai_cae.data.cohort.label_subsets import labelled_items
    from monai_cae.data.cohort.pseudonyms import hash_subject, hashed_subjects
    from monai_cae.data.cohort.selection import Cohort, load_cohort, load_usable_cohort, select_cohort
    from monai_cae.data.cohort.tables import read_table
    from monai_cae.data.cohort.tasks import TASKS, Task, make_task, recorded_rules
    from monai_cae.data.heads import write_heads
    from monai_cae.data.images.check import CohortCheck, ScanCheck, check_cohort
    from monai_cae.data.images.extraction import (
        PAPER_SLICE,
        Extraction,
        SlabExtraction,
        SliceExtraction,
        VolumeExtraction,
    )
    from monai_cae.data.images.frames import frame_lines
    from monai_cae.data.images.inputs import NetworkInput
    from monai_cae.data.images.readers import ExtractionReader, SliceReader
    from monai_cae.data.images.samples import PatchesExtraction, PlanesExtraction, SlicesExtraction
    from monai_cae.data.images.scan_quality import UsableImages, skipped_lines, usable_images
    from monai_cae.data.images.transforms import Extract, Extractd, SelectSlice, SelectSliced
    from monai_cae.data.layouts import Found, find_images, read_scans
    from monai_cae.data.phantom import is_synthetic, write_phantom
    from monai_cae.data.scan import BadScan, Scan
    from monai_cae.data.splits.admission import audit_external, audit_training
    from monai_cae.data.splits.audit import audit_datalist, audit_sets
    from monai_cae.data.splits.datalists import write_datalist
    from monai_cae.data.splits.findings import Audit, Finding
    from monai_cae.data.splits.leakage import LeakageDemo, leakage_demo
    from monai_cae.data.splits.sets import Sets, load_sets, read_datalist, recipe_of, shareable, usable_sets
    from monai_cae.data.splits.splitting import split_cohort

_MODULES = {
    "cohort.covariates": "inference_items with_covariates",
    "cohort.demographics": "PAPER_TABLE_1 balance table_1",
    "cohort.label_subsets": "labelled_items",
    "cohort.pseudonyms": "hash_subject hashed_subjects",
    "cohort.selection": "Cohort load_cohort load_usable_cohort select_cohort",
    "cohort.tables": "read_table",
    "cohort.tasks": "TASKS Task make_task recorded_rules",
    "heads": "write_heads",
    "images.check": "CohortCheck ScanCheck check_cohort",
    "images.extraction": "PAPER_SLICE Extraction SlabExtraction SliceExtraction VolumeExtraction",
    "images.frames": "frame_lines",
    "images.inputs": "NetworkInput",
    "images.readers": "ExtractionReader SliceReader",
    "images.samples": "PatchesExtraction PlanesExtraction SlicesExtraction",
    "images.scan_quality": "UsableImages skipped_lines usable_images",
    "images.transforms": "Extract Extractd SelectSlice SelectSliced",
    "layouts": "Found find_images read_scans",
    "phantom": "is_synthetic write_phantom",
    "scan": "BadScan Scan",
    "splits.admission": "audit_external audit_training",
    "splits.audit": "audit_datalist audit_sets",
    "splits.datalists": "write_datalist",
    "splits.findings": "Audit Finding",
    "splits.leakage": "LeakageDemo leakage_demo",
    "splits.sets": "Sets load_sets read_datalist recipe_of shareable usable_sets",
    "splits.splitting": "split_cohort",
}
_HOMES = {name: module for module, names in _MODULES.items() for name in names.split()}
__all__ = list(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
