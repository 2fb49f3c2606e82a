"""`monai-cae prepare` as a user types it: what it prints, what it refuses, and one whole run."""

from __future__ import annotations

import csv
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from dicoms import head, write_series

from monai_cae.cli import main
from monai_cae.data.template import FRAME_SHAPE


def refused(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> str:
    """The one line that a refusal prints."""
    assert main(["prepare", *map(str, arguments)]) == 1
    printed = capsys.readouterr().err.strip().splitlines()
    assert printed[-1].startswith("error: ")
    return printed[-1]


def volume(path: Path, shape: tuple[int, ...] = (20, 20, 20)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(np.ones(shape, np.int16), np.diag([8.0, 8, 8, 1])), path)
    return path


def test_what_can_t_be_an_input_is_told_in_one_line(tmp_path, capsys):
    out, empty = tmp_path / "out", tmp_path / "empty"
    empty.mkdir()
    assert "no scan in" in refused(capsys, empty, out)
    scan = volume(tmp_path / "scans" / "P1.nii.gz")
    assert "no mask at" in refused(capsys, scan, out, "--mask", tmp_path / "no.nii")
    assert "--jobs must be 1 or more, not 0" in refused(capsys, scan, out, "--jobs", "0")
    assert "lies in" in refused(capsys, scan.parent, scan.parent / "out")
    (out / "x").mkdir(parents=True)
    assert "is not empty, and monai-cae prepare has not written it" in refused(capsys, scan, out)
    assert [path.name for path in out.iterdir()] == ["x"]


def test_an_output_that_would_be_read_as_input_is_refused(tmp_path, capsys):
    scans = volume(tmp_path / "derivatives" / "raw" / "P1.nii.gz").parent  # "derivatives" above is no excuse
    (tmp_path / "link").symlink_to(scans)
    assert "are the same" in refused(capsys, scans, tmp_path / "link")
    for inside in (scans / "out", tmp_path / "link" / "out", scans / ".." / "raw" / "out"):
        assert "lies in" in refused(capsys, scans, inside)
    assert "lies in" in refused(capsys, tmp_path, tmp_path / "derivatives" / "out")  # no BIDS, all folders are read
    volume(tmp_path / "bids" / "sub-1" / "anat" / "sub-1_T1w.nii.gz", (20, 20, 1))
    (tmp_path / "bids" / "dataset_description.json").write_text('{"Name": "x", "BIDSVersion": "1.10.0"}')
    out = tmp_path / "bids" / "derivatives" / "out"
    assert main(["prepare", str(tmp_path / "bids"), str(out), "--mask", "none"]) == 1  # one slice
    assert (out / "qc.tsv").is_file()


def test_several_t1w_series_are_listed_with_the_option_that_decides(tmp_path, capsys):
    for number in (2, 5):
        write_series(tmp_path / "in" / str(number), study="1.2.3", SeriesNumber=number)
    line = refused(capsys, tmp_path / "in", tmp_path / "out")
    assert "2 T1w series (series 2 (t1_mprage_sag" in line and "series 5 (" in line and "--series" in line
    assert not (tmp_path / "out").exists()


def test_a_scan_that_can_t_be_prepared_is_in_the_summary_and_the_status(tmp_path, capsys):
    scans = tmp_path / "in"
    volume(scans / "P1.nii.gz", (20, 20, 20, 4))
    volume(scans / "P2.nii.gz", (20, 20, 1))
    assert main(["prepare", str(scans), str(tmp_path / "out"), "--mask", "none"]) == 1
    printed = capsys.readouterr().out
    assert "2 scans: a folder of scans" in printed
    assert "1 of 2: sub-P1: error" in printed and "not a 3D volume" in printed
    assert "0 prepared, 0 to review, 2 failed" in printed
    assert "next:" not in printed
    with (tmp_path / "out" / "qc.tsv").open() as file:
        assert {row["scan"]: row["verdict"] for row in csv.DictReader(file, delimiter="\t")} == {
            "sub-P1": "error", "sub-P2": "error",
        }  # fmt: skip


def test_a_dicom_folder_is_prepared_with_a_mask_and_told(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("MONAI_CAE_ID_KEY", "a key for this test")
    write_series(tmp_path / "Doe" / "t1", study="1.2.3")
    write_series(tmp_path / "Doe" / "loc", head()[:3], study="1.2.3", SeriesNumber=1, SeriesDescription="localizer")
    mask = np.zeros((34, 96, 100), np.uint8)
    mask[9:29, 20:75, 20:80] = 1
    affine = np.array([[4.0, 0, 0, -72], [0, 2, 0, -100], [0, 0, 2, -103], [0, 0, 0, 1]])  # the series', RAS+
    nib.save(nib.Nifti1Image(mask, affine), tmp_path / "mask.nii.gz")
    out = tmp_path / "out"
    options = ["--subject", "7", "--mask", str(tmp_path / "mask.nii.gz")]
    main(["prepare", str(tmp_path / "Doe"), str(out), *options])
    printed = capsys.readouterr().out
    assert "1 scan: DICOM" in printed
    assert "sub-7: taken: series 3 (t1_mprage_sag, 96 x 100 x 34, 2 x 2 x 4 mm)" in printed
    assert "sub-7: passed over: series 1 (localizer, 96 x 100 x 3, 2 x 2 x 4 mm): localizer" in printed
    image = nib.load(next(out.glob("sub-7/anat/*_desc-preproc_T1w.nii.gz")))
    assert image.shape == FRAME_SHAPE
    values = np.asarray(image.dataobj)
    assert values.min() == 0 and values.max() == 1 and 0.001 < (values > 0).mean() < 0.5
    # a block is no brain: the numbers say so, and nobody predicts from it
    assert "sub-7: fail" in printed


def test_missing_weights_are_told_once_before_any_scan(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("MONAI_CAE_DEEPBET", str(tmp_path))
    for number in range(3):
        volume(tmp_path / "in" / f"S{number}.nii.gz")
    assert "deepbet==1.0.2; or give a --mask" in refused(capsys, tmp_path / "in", tmp_path / "out")
    assert not (tmp_path / "out").exists()
