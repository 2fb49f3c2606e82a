"""Claims: a slice of an .img takes at most 2 x its bare bytes, 15 x less than the volume; k slices at most 1.2 x k bare
reads; a slice of a .nii.gz no more than inflating all of it; 200 subjects start in 2 s.

Run: python benchmarks/reading.py [--quick]        --quick takes fewer turns; seconds either way

Volumes are OASIS-1's: 176 x 208 x 176 big-endian int16, the slice is the 106th. Single files stay in the page cache,
so that nothing is waited for, and the processor's time is measured, which other programs change little; all ways take
turns, medians are compared. For the cold start the cohort's files are dropped from the page cache before
every turn; then the subjects are selected, checked, split and audited, and pretrain.json's own preprocessing puts every
slice in one tensor. Imports are apart. The volumes have values in five slices and are holes elsewhere (73 MB on disk).
"""

from __future__ import annotations

import argparse
import functools
import gzip
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import torch
from monai.bundle import ConfigParser
from monai.data import NibabelReader
from monai.transforms import LoadImage
from report import Row, alternate, finish

from monai_cae.data import ExtractionReader, SlabExtraction, SliceExtraction, SliceReader, audit_training, load_sets
from monai_cae.data.images.slice_cache import forget
from monai_cae.training import ImageCache

CONFIG = Path(__file__).parent.parent / "bundle" / "configs" / "pretrain.json"
SHAPE, SLICE, SUBJECTS = (176, 208, 176), 106, 200
SLABS = (5, 15)  # slices of a slab
AXES = {"axial": 2, "coronal": 1, "sagittal": 0}
HEADER = "ID,M/F,Hand,Age,Educ,SES,MMSE,CDR,eTIV,nWBV,ASF,Delay"


def brain(seed: int, slices: int) -> np.ndarray:
    """A bright ellipse with noise on nothing, as a masked scan is."""
    x, y = np.ogrid[-1 : 1 : 1j * SHAPE[0], -1 : 1 : 1j * SHAPE[1]]
    inside = (x**2 + y**2 < 0.8)[:, :, None]
    return inside * np.random.default_rng(seed).integers(500, 3000, (*SHAPE[:2], slices), dtype=np.int16)


def pair_header() -> Any:
    """Analyze, big-endian int16, four-dimensional as OASIS-1's."""
    header = nib.AnalyzeHeader(endianness=">")
    header.set_data_dtype(np.int16)
    header.set_data_shape((*SHAPE, 1))
    header.set_zooms((1, 1, 1, 1))
    return header


def make_cohort(root: Path) -> list[Path]:
    """OASIS-1's folders and table, every other subject a patient; gives the image files, which are on disk."""
    rows, files = [HEADER], []
    header, slice_bytes = pair_header(), 2 * SHAPE[0] * SHAPE[1]
    for number in range(1, SUBJECTS + 1):
        name = f"OAS1_{number:04d}_MR1"
        rows.append(
            f"{name},{'FM'[number % 2]},R,{60 + number % 37},2,,29,{(0, 0.5)[number // 2 % 2]},1344,0.743,1.306,"
        )
        folder = root / f"disc{1 + number // 40}" / name / "PROCESSED" / "MPRAGE" / "T88_111"
        folder.mkdir(parents=True)
        stem = folder / f"{name}_mpr_n4_anon_111_t88_masked_gfc"
        header["db_name"] = name.encode()
        stem.with_suffix(".hdr").write_bytes(header.binaryblock)
        with stem.with_suffix(".img").open("wb") as file:
            file.truncate(slice_bytes * SHAPE[2])
            file.seek(slice_bytes * (SLICE - 3))
            file.write(brain(number, 5).astype(">i2").tobytes(order="F"))
            file.flush()
            os.fsync(file.fileno())  # only what is on disk can be dropped from memory
        files += [stem.with_suffix(".hdr"), stem.with_suffix(".img")]
    (root / "oasis_cross-sectional.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    return files


def drop_from_cache(files: list[Path]) -> None:
    """Their pages leave memory; nothing where the system has no such call."""
    for path in files if hasattr(os, "posix_fadvise") else ():
        with path.open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def cold_start(root: Path, files: list[Path], steps: dict[str, list[float]]) -> float:
    """Seconds from the folder to one tensor of all slices; notes each step."""
    config = ConfigParser()
    config.read_config(CONFIG)
    cohort, split = config.get_parsed_content("cohort"), config.get_parsed_content("split")
    preprocessing = config.get_parsed_content("train#preprocessing")
    drop_from_cache(files)
    with tempfile.TemporaryDirectory() as output:
        marks = [time.perf_counter()]
        extraction = SliceExtraction(slice_index=SLICE)
        sets = load_sets(root, Path(output, "datalist.json"), cohort=cohort, split=split, extraction=extraction)
        marks.append(time.perf_counter())
        audit_training(sets, extraction=extraction)
        marks.append(time.perf_counter())
        items = sets.training + sets.validation + sets.test
        cached = ImageCache(items, preprocessing)
        images = torch.stack([cached[number]["image"] for number in range(len(items))])
        marks.append(time.perf_counter())
    if images.shape != (SUBJECTS, 1, 176, 176):
        raise RuntimeError(f"not all {SUBJECTS} slices are there: {tuple(images.shape)}")
    for name, start, end in zip(("select and check", "audit", "preprocess"), marks, marks[1:], strict=False):
        steps.setdefault(name, []).append(end - start)
    return marks[-1] - marks[0]


def timed(call: Callable[[], object], times: int = 1) -> Callable[[], float]:
    """Seconds of the processor in one call, the mean of some."""

    def measure() -> float:
        started = time.process_time()
        for _ in range(times):
            call()
        return (time.process_time() - started) / times

    return measure


def slice_of(path: Path, plane: str = "axial") -> Callable[[], np.ndarray]:
    """Reads the slice as `LoadImage` has the reader do it."""
    reader, name = SliceReader(plane, SLICE), str(path)
    return lambda: reader.get_data(reader.read(name))[0]


def slab_of(path: Path, slices: int) -> Callable[[], np.ndarray]:
    """Reads neighbouring axial slices as `LoadImage` has the reader do it."""
    reader, name = ExtractionReader(SlabExtraction("axial", SLICE, slices)), str(path)
    return lambda: reader.get_data(reader.read(name))[0]


def bare_read(header: str, voxels: str, first: int = SLICE - 1) -> bytes:
    """Header and axial slice, unparsed."""
    size = 2 * SHAPE[0] * SHAPE[1]
    with open(header, "rb") as file:  # noqa: PTH123  # pathlib would slow what is to be bare
        file.read(348)
    with open(voxels, "rb") as file:  # noqa: PTH123
        file.seek(first * size)
        return file.read(size)


def bare_reads(header: str, voxels: str, slices: int) -> list[bytes]:
    """Neighbouring axial slices, one bare read after the other."""
    return [bare_read(header, voxels, first) for first in range(SLICE - 1, SLICE - 1 + slices)]


def inflated(path: Path) -> bytes:
    """The whole file, as Python's gzip reads it."""
    with gzip.open(path) as file:
        return file.read()


def anew(read: Callable[[], np.ndarray]) -> np.ndarray:
    """A slice that is not kept from the time before."""
    forget()
    return read()


def through_nibabel(path: Path, plane: str, *, whole: bool) -> np.ndarray:
    """The slice, cut from the volume in memory or by nibabel's own slicing of the file."""
    volume = nib.load(path).dataobj
    wanted: list[Any] = [slice(None)] * 3 + [0] * (volume.ndim - 3)
    wanted[AXES[plane]] = slice(SLICE - 1, SLICE)
    return np.asarray(volume)[tuple(wanted)] if whole else np.asarray(volume[tuple(wanted)])


def single_files(folder: Path, turns: int) -> list[Row]:
    """The rows on one file."""
    volume = brain(0, SHAPE[2])
    img, gz = folder / "a.img", folder / "a.nii.gz"
    nib.AnalyzeImage(volume[..., None], None, pair_header()).to_filename(img)
    nib.Nifti1Image(volume, np.eye(4)).to_filename(gz)
    for plane, axis in AXES.items():
        expected = volume.take([SLICE - 1], axis)
        for array in (slice_of(img, plane)(), slice_of(gz, plane)(), through_nibabel(img, plane, whole=False)):
            np.testing.assert_array_equal(array, expected)

    names = str(img.with_suffix(".hdr")), str(img)
    bare = alternate({"ours": timed(slice_of(img), 50), "bare": timed(lambda: bare_read(*names), 50)}, 20 * turns)
    ours, whole = LoadImage(SliceReader("axial", SLICE)), LoadImage(NibabelReader)
    load = alternate(
        {"ours": timed(lambda: ours(img), 20), "whole": timed(lambda: whole(img)[..., SLICE - 1, 0])}, turns
    )
    slabs = {
        slices: alternate(
            {"ours": timed(slab_of(img, slices), 20), "bare": timed(lambda k=slices: bare_reads(*names, k), 20)},
            10 * turns,
        )
        for slices in SLABS
    }
    zipped = alternate(
        {
            **{plane: timed(functools.partial(anew, slice_of(gz, plane))) for plane in AXES},
            "nibabel": timed(lambda: through_nibabel(gz, "axial", whole=True)),
            "gzip": timed(lambda: inflated(gz)),
        },
        turns,
    )
    rows = [
        Row(".img slice, SliceReader", 1e6 * bare["ours"], 1e6 * bare["bare"], "bare open, seek, read", "us",
            bare["ours"] / bare["bare"], "<= 2"),
        *(
            Row(f"{k} slices of an .img", 1e6 * took["ours"], 1e6 * took["bare"], f"{k} bare opens, seeks and reads",
                "us", took["ours"] / took["bare"], "<= 1.2")
            for k, took in slabs.items()
        ),
        Row(".img slice, LoadImage", 1e3 * load["ours"], 1e3 * load["whole"], "NibabelReader and slicing", "ms",
            load["whole"] / load["ours"], ">= 15"),
        Row(f".nii.gz, axial slice {SLICE} of {SHAPE[2]}", 1e3 * zipped["axial"], 1e3 * zipped["nibabel"],
            "nibabel, the whole", "ms", zipped["nibabel"] / zipped["axial"]),
        *(
            Row(f".nii.gz, {plane} slice", 1e3 * zipped[plane], 1e3 * zipped["gzip"], "Python's gzip, the whole", "ms",
                zipped[plane] / zipped["gzip"], "<= 1")
            for plane in ("coronal", "sagittal")
        ),
    ]  # fmt: skip
    for plane in ("coronal", "sagittal"):
        nibabels = functools.partial(through_nibabel, img, plane, whole=False)
        cut = alternate({"ours": timed(slice_of(img, plane)), "nibabel": timed(nibabels)}, turns)
        rows.append(
            Row(f".img slice, {plane}", 1e3 * cut["ours"], 1e3 * cut["nibabel"], "nibabel's slicing", "ms",
                cut["nibabel"] / cut["ours"])
        )  # fmt: skip
    return rows


def main() -> None:
    """Print the table, write results/reading.json."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true")
    quick = parser.parse_args().quick
    with tempfile.TemporaryDirectory() as folder:
        rows = single_files(Path(folder), 5 if quick else 15)
        root = Path(folder, "cohort")
        files = make_cohort(root)
        steps: dict[str, list[float]] = {}
        seconds = alternate({"start": lambda: cold_start(root, files, steps)}, 3 if quick else 9)["start"]
    rows.append(Row(f"cold start of {SUBJECTS} subjects", seconds, 0, "", "s", seconds, "<= 2"))
    finish("reading", rows, cold_start_steps_s={name: sorted(taken)[len(taken) // 2] for name, taken in steps.items()})


if __name__ == "__main__":
    main()
