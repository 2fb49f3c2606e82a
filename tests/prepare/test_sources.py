"""Which scans are found in what people have, under which name, and what is refused."""

from __future__ import annotations

import errno
import json
import os
import traceback
import unicodedata
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import pytest
from dicoms import head, write_series
from tiny import write_pair

from monai_cae.data.cohort.pseudonyms import pseudonym
from monai_cae.data.layouts import Asked
from monai_cae.data.layouts.reading import find_images
from monai_cae.errors import MonaiCaeError
from monai_cae.prepare import PrepareSettings
from monai_cae.prepare.derivative import recipe_of
from monai_cae.prepare.sources import Sources, Wanted, find_sources


def nifti(path: Path, brightest: int = 500, shape: tuple[int, ...] = (6, 7, 8)) -> Path:
    """A small volume, oriented."""
    volume = np.zeros(shape, np.int16)
    volume[2:4, 2:5, 2:5] = 100
    volume.flat[0] = brightest
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(volume, np.diag([20.0, 20, 20, 1])), path)
    return path


def names(found: Sources) -> list[str]:
    return [scan.name for scan in found.scans]


def asked(**options: str) -> Wanted:
    return Wanted(asked=Asked(**{"run": "", **options}))


def test_one_file_is_named_after_itself_or_as_asked(tmp_path):
    path = nifti(tmp_path / "Head_1.nii.gz")
    assert names(find_sources(path)) == ["sub-Head1"]
    assert names(find_sources(path, Wanted(subject="sub-7"))) == ["sub-7"]


@pytest.mark.parametrize(("header", "voxels"), [("A.HDR", "A.IMG"), ("a.hdr", "a.img")])
def test_either_file_of_a_pair_is_the_scan(tmp_path, header, voxels):
    nib.save(nib.Nifti1Pair(np.ones((6, 7, 8), np.int16), np.eye(4)), tmp_path / "a.hdr")
    (tmp_path / "a.img").rename(tmp_path / voxels)
    (tmp_path / "a.hdr").rename(tmp_path / header)
    for given in (header, voxels):
        (scan,) = find_sources(tmp_path / given).scans
        assert scan.path == tmp_path / header and scan.shown == header and scan.read().voxels.max() == 1
        assert find_images(tmp_path / given) == [tmp_path / header]
    (tmp_path / header).unlink()
    with pytest.raises(MonaiCaeError, match=f"{header} is missing next to {voxels}: copy the scan again"):
        find_sources(tmp_path / voxels)


def test_a_folder_is_named_after_its_files_and_sessions_are_found(tmp_path):
    for name in ("P01_visit1", "P01_visit2", "P02_visit1", "P03_visit1"):
        nifti(tmp_path / f"{name}.nii.gz")
    found = find_sources(tmp_path)
    assert names(found) == ["sub-P01_ses-visit1", "sub-P01_ses-visit2", "sub-P02_ses-visit1", "sub-P03_ses-visit1"]
    assert "subjects without the session in their ID" in found.notes[0].text
    assert found.scans[0].read().voxels.max() == 500


def test_files_of_one_name_are_named_after_their_folders(tmp_path):
    for name in ("A1", "B2"):
        nifti(tmp_path / name / "T1.nii.gz")
    found = find_sources(tmp_path)
    assert names(found) == ["sub-A1", "sub-B2"] and found.notes[0].text == "scans are named after their folders"


def test_subjects_that_may_be_one_person_are_asked_about(tmp_path):
    for name in ("S01a", "S01b", "S02a", "S03a"):
        nifti(tmp_path / f"{name}.nii.gz")
    with pytest.raises(MonaiCaeError, match=r"are S01a and S01b one subject or two.*--subject-pattern"):
        find_sources(tmp_path)
    found = find_sources(tmp_path, asked(subject_pattern=r"(S\d+)"))
    assert names(found) == ["sub-S01_ses-a", "sub-S01_ses-b", "sub-S02_ses-a", "sub-S03_ses-a"]


@pytest.mark.parametrize("form", ["NFC", "NFD"])  # macOS writes ü as two characters
def test_umlauts_become_the_letters_that_bids_has(tmp_path, form):
    for name in ("Jörg", "Jürg", "Weiß", "Øst"):
        nifti(tmp_path / f"{unicodedata.normalize(form, name)}.nii.gz")
    found = find_sources(tmp_path)
    assert names(found) == ["sub-Jorg", "sub-Jurg", "sub-Ost", "sub-Weiss"]
    (note,) = (note for note in found.notes if note.text == "labels of BIDS have no umlauts and accents")
    assert "Jörg -> sub-Jorg" in unicodedata.normalize("NFC", note.line())


def test_two_persons_whose_labels_would_be_one_are_refused(tmp_path):
    for name in ("Müller", "Muller"):
        nifti(tmp_path / f"{name}.nii.gz")
    with pytest.raises(MonaiCaeError, match=r"M.ller and M.ller would both be sub-Muller: rename one"):
        find_sources(tmp_path)


def test_names_in_other_letters_need_a_pattern(tmp_path):
    for name in ("Иван1", "Пётр2"):
        nifti(tmp_path / f"{name}.nii.gz")
    with pytest.raises(MonaiCaeError, match=r"letters that a BIDS label can't have.*--subject-pattern"):
        find_sources(tmp_path)
    assert names(find_sources(tmp_path, asked(subject_pattern=r"(\d+)"))) == ["sub-1", "sub-2"]


def test_a_pipe_is_not_waited_for(tmp_path):
    nifti(tmp_path / "a.nii")
    os.mkfifo(tmp_path / "b.nii")
    os.mkfifo(tmp_path / "notes")
    found = find_sources(tmp_path)
    assert names(found) == ["sub-a", "sub-b"]
    assert recipe_of(found.scans[0], PrepareSettings())["input_sha256"]
    with pytest.raises(MonaiCaeError, match="sub-b is a folder, a pipe or a device: give an image file"):
        recipe_of(found.scans[1], PrepareSettings())


def test_masks_beside_the_scans_are_no_scans(tmp_path):
    for name in ("P1", "P1_mask", "P2", "P2_brain_mask"):
        nifti(tmp_path / f"{name}.nii.gz")
    found = find_sources(tmp_path, Wanted(mask=tmp_path))
    assert names(found) == ["sub-P1", "sub-P2"] and found.notes[0].text == "2 images are masks by their names"
    assert [scan.mask.name for scan in found.scans] == ["P1_mask.nii.gz", "P2_brain_mask.nii.gz"]


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        (["P1_T1w", "P1_T2w", "P1_FLAIR", "P2_T1w", "P3_T2w"], ["sub-P1", "sub-P2"]),
        (["P1", "P1_seg", "P2"], ["sub-P1", "sub-P2"]),
        (["A/T1", "A/flair", "B/T1", "B/t1ce"], ["sub-A", "sub-B"]),
        ([f"P{n}_t{time}" for n in (1, 2, 3) for time in (1, 2, 3)], []),  # points in time
        (["site_pd", "other_T2"], ["sub-otherT2", "sub-sitepd"]),  # nothing says what else they are
    ],
)
def test_other_contrasts_beside_the_t1w_scans_are_passed_over(tmp_path, files, expected):
    for name in files:
        nifti(tmp_path / f"{name}.nii.gz")
    if not expected:
        with pytest.raises(MonaiCaeError, match="one subject or two"):
            find_sources(tmp_path)
        return
    found = find_sources(tmp_path)
    assert names(found) == expected
    notes = [note.text for note in found.notes if "no T1w scans by their names" in note.text]
    assert notes == [f"{len(files) - len(expected)} images are no T1w scans by their names"] * (
        len(files) > len(expected)
    )


def test_masks_and_rows_may_have_the_name_with_the_contrast_or_without(tmp_path):
    for name in ("P1_T1w", "P1_T1w_mask", "P2_T1w", "P2_mask"):
        nifti(tmp_path / f"{name}.nii.gz")
    (tmp_path / "t.csv").write_text("ID,Age\nP1_T1w,70\nP2,71\n")
    found = find_sources(tmp_path, Wanted(mask=tmp_path))
    assert [scan.mask.name for scan in found.scans] == ["P1_T1w_mask.nii.gz", "P2_mask.nii.gz"]
    assert [scan.row.age for scan in found.scans] == [70, 71]


def test_bids_gives_one_image_a_session_and_its_rows(tmp_path):
    for session, run in (("1", "1"), ("1", "2"), ("2", "1")):
        nifti(tmp_path / "sub-01" / f"ses-{session}" / "anat" / f"sub-01_ses-{session}_run-{run}_T1w.nii.gz", int(run))
    nifti(tmp_path / "sub-02" / "ses-1" / "anat" / "sub-02_ses-1_T1w.nii.gz")
    (tmp_path / "participants.tsv").write_text("participant_id\tage\tsex\nsub-01\t70\tF\nsub-02\t71\tM\n")
    (tmp_path / "sub-01" / "sub-01_sessions.tsv").write_text("session_id\tage\nses-1\t70\nses-2\t73\n")
    found = find_sources(tmp_path)
    assert found.layout == "BIDS" and names(found) == ["sub-01_ses-1", "sub-01_ses-2", "sub-02_ses-1"]
    assert [scan.row.age for scan in found.scans] == [70, 73, 71]
    assert found.scans[0].path.name == "sub-01_ses-1_run-2_T1w.nii.gz"
    first = find_sources(tmp_path, asked(run="first"))
    assert first.scans[0].path.name == "sub-01_ses-1_run-1_T1w.nii.gz"


def test_bids_without_t1w_is_told(tmp_path):
    nifti(tmp_path / "sub-01" / "anat" / "sub-01_T2w.nii.gz")
    with pytest.raises(MonaiCaeError, match=r"no T1w image in .*BIDS has them at"):
        find_sources(tmp_path)


def oasis(root: Path) -> Path:
    for name, runs in (("OAS1_0001_MR1", 3), ("OAS1_0002_MR1", 2), ("OAS1_0002_MR2", 1)):
        for run in range(1, runs + 1):
            path = root / "disc1" / name / "RAW" / f"{name}_mpr-{run}_anon.img"
            write_pair(path, np.full((5, 6, 7), 10 * run))
        write_pair(root / "disc1" / name / "PROCESSED" / "MPRAGE" / "SUBJ_111" / f"{name}_mpr_n4_anon_sbj_111.img",
                   np.ones((4, 4, 4)))  # fmt: skip
    (root / "oasis_cross-sectional.csv").write_text(
        "ID,M/F,Hand,Age,CDR\nOAS1_0001_MR1,F,R,74,0\nOAS1_0002_MR1,M,R,55,0.5\nOAS1_0002_MR2,M,R,56,0.5\n"
        "OAS1_0003_MR1,M,R,50,\n"
    )
    return root


def test_raw_oasis_sessions_give_their_first_acquisition_and_say_so(tmp_path):
    found = find_sources(oasis(tmp_path))
    assert names(found) == ["sub-OAS10001_ses-MR1", "sub-OAS10002_ses-MR1", "sub-OAS10002_ses-MR2"]
    scan = found.scans[0].read()
    assert scan.voxels.max() == 10 and scan.oriented
    # sagittal, as Analyze 7.5 has it: the first axis runs to the front, the second upwards, the third to the left
    np.testing.assert_array_equal(np.sign(scan.affine[:3, :3]), [[0, 0, -1], [1, 0, 0], [0, 1, 0]])
    told = " ".join(note.text for note in found.notes)
    assert "2 sessions have several T1w images" in told and "the first run are taken" in told
    assert "raw OASIS-1 sessions record no orientation: read as ASL" in told and "1 rows of the table have no" in told
    assert [scan.row.age for scan in found.scans] == [74, 55, 56]


def test_another_acquisition_of_oasis_can_be_asked_for(tmp_path):
    found = find_sources(oasis(tmp_path), asked(run="2"))
    assert names(found) == ["sub-OAS10001_ses-MR1", "sub-OAS10002_ses-MR1", "sub-OAS10002_ses-MR2"]
    assert [scan.read().voxels.max() for scan in found.scans] == [20, 20, 10]  # the last session has one alone
    assert not any("orientation" in note.text for note in find_sources(tmp_path, Wanted(orientation="RAS")).notes)


def test_dicom_patients_get_pseudonyms_and_studies_are_sessions(tmp_path, monkeypatch):
    monkeypatch.setenv("MONAI_CAE_ID_KEY", "a key for this test")
    write_series(tmp_path / "Doe" / "later", study="1.2.4", StudyDate="20210505")
    write_series(tmp_path / "Doe" / "earlier" / "deep", head(1), study="1.2.9", StudyDate="20190505")
    write_series(tmp_path / "Roe", patient={"PatientName": "Roe", "PatientID": "X1"}, study="1.2.5")
    found = find_sources(tmp_path)
    doe, roe = pseudonym("HOSP4711"), pseudonym("X1")
    assert set(names(found)) == {f"sub-{doe}_ses-1", f"sub-{doe}_ses-2", f"sub-{roe}"}
    first = next(scan for scan in found.scans if scan.name == f"sub-{doe}_ses-1")
    np.testing.assert_array_equal(np.sort(first.read().voxels, axis=None), np.sort(head(1), axis=None))
    assert found.private and not any(scan.shown for scan in found.scans)


def test_a_table_of_dicom_patients_is_matched_before_their_ids_go(tmp_path, monkeypatch):
    monkeypatch.setenv("MONAI_CAE_ID_KEY", "a key for this test")
    write_series(tmp_path / "a")
    table = tmp_path / "ages.csv"
    table.write_text("PatientID,Age\nHOSP4711,80\nX9,70\n".replace("PatientID", "ID"))
    (scan,) = find_sources(tmp_path / "a", asked(table=str(table))).scans
    assert scan.row.age == 80 and scan.subject == pseudonym("HOSP4711")


def test_a_pattern_finds_dicom_subjects_in_their_paths(tmp_path):
    write_series(tmp_path / "002_S_0413" / "MP-RAGE" / "2006" / "I1")
    write_series(tmp_path / "002_S_0500" / "MP-RAGE" / "2006" / "I2", patient={"PatientID": "Z", "PatientName": "Z"})
    found = find_sources(tmp_path, asked(subject_pattern=r"\d{3}_S_\d{4}"))
    assert names(found) == ["sub-002S0413", "sub-002S0500"]


def test_a_visit_without_t1w_scan_does_not_hide_the_others(tmp_path, monkeypatch):
    monkeypatch.setenv("MONAI_CAE_ID_KEY", "a key for this test")
    write_series(tmp_path / "a")
    write_series(tmp_path / "b", patient={"PatientID": "X1", "PatientName": "X"}, ContrastBolusAgent="Gd")
    found = find_sources(tmp_path)
    assert sorted(bool(scan.error) for scan in found.scans) == [False, True]
    with pytest.raises(MonaiCaeError, match="no T1w series among 1"):
        find_sources(tmp_path / "b")


def test_a_mask_file_belongs_to_one_scan_and_a_folder_to_scans_by_name(tmp_path):
    images, masks = tmp_path / "images", tmp_path / "masks"
    for name in ("P1", "P2"):
        nifti(images / f"{name}.nii.gz")
        nifti(masks / f"{name}_brain_mask.nii.gz")
    found = find_sources(images, Wanted(mask=masks))
    assert [scan.mask.name for scan in found.scans] == ["P1_brain_mask.nii.gz", "P2_brain_mask.nii.gz"]
    one = Wanted(mask=masks / "P1_brain_mask.nii.gz")
    assert find_sources(images / "P1.nii.gz", one).scans[0].mask == one.mask
    with pytest.raises(MonaiCaeError, match="--mask is one file, and there are 2 scans"):
        find_sources(images, one)
    (masks / "P2_brain_mask.nii.gz").unlink()
    with pytest.raises(MonaiCaeError, match="no masks for sub-P2"):
        find_sources(images, Wanted(mask=masks))


def test_masks_of_a_bids_derivative_are_found(tmp_path):
    nifti(tmp_path / "raw" / "sub-01" / "ses-2" / "anat" / "sub-01_ses-2_T1w.nii.gz")
    mask = nifti(tmp_path / "d" / "sub-01" / "ses-2" / "anat" / "sub-01_ses-2_space-orig_desc-brain_mask.nii.gz")
    nifti(mask.with_name("sub-01_ses-2_desc-preproc_T1w.nii.gz"))
    assert find_sources(tmp_path / "raw", Wanted(mask=tmp_path / "d")).scans[0].mask == mask


def empty(root: Path) -> Path:
    return root


def notes_only(root: Path) -> Path:
    (root / "scan.mgz").write_text("x")
    return root


def mixed(root: Path) -> Path:
    write_series(root / "dicom")
    nifti(root / "x.nii.gz")
    return root


def prepared_already(root: Path) -> Path:
    (root / "dataset_description.json").write_text(json.dumps({"GeneratedBy": [{"Name": "monai-cae prepare"}]}))
    return root


def same_label(root: Path) -> Path:
    nifti(root / "A1.nii.gz")
    nifti(root / "Á1.nii.gz")
    return root


def two_in_one_folder(root: Path) -> Path:
    for name in ("a/x/T1.nii.gz", "b/T1.nii.gz", "b/T1.nii"):
        nifti(root / name)
    return root


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (empty, "no scan in .*: neither DICOM nor .nii"),
        (notes_only, "no scan in .*mri_convert"),
        (mixed, "34 DICOM files and 1 NIfTI or Analyze images are mixed"),
        (prepared_already, "has been prepared already: monai-cae cohort"),
        (same_label, "A1 and Á1 would both be sub-A1"),
        (two_in_one_folder, "several images in .*: leave one scan in each folder"),
        (lambda root: root / "nothing", "nothing at .*: give a scan or a folder of scans"),
        (
            lambda root: notes_only(root) / "scan.mgz",
            "scan.mgz is no DICOM, .nii, .nii.gz or .hdr/.img file.*mri_convert",
        ),
    ],
)
def test_what_is_no_input_is_refused_in_one_line(tmp_path, make, message):
    with pytest.raises(MonaiCaeError, match=message) as error:
        find_sources(make(tmp_path))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        (Wanted(subject="7"), "--subject names one subject, and there are 2"),
        (Wanted(mask=Path("/no/such/mask")), "no mask at /no/such/mask"),
        (asked(table="/no/such/table.csv"), "no table at /no/such/table.csv"),
    ],
)
def test_options_that_do_not_fit_are_refused(tmp_path, wanted, message):
    nifti(tmp_path / "a.nii.gz")
    nifti(tmp_path / "b.nii.gz")
    with pytest.raises(MonaiCaeError, match=message):
        find_sources(tmp_path, wanted)


def test_a_series_of_volumes_is_refused(tmp_path):
    with pytest.raises(MonaiCaeError, match="not a 3D volume"):
        find_sources(nifti(tmp_path / "bold.nii.gz", shape=(6, 7, 8, 3))).scans[0].read()


def test_a_folder_that_can_t_be_read_is_told_without_its_name(tmp_path, monkeypatch):
    write_series(tmp_path / "scans" / "Featherstone" / "t1")
    scandir = os.scandir

    def closed(path):
        if Path(path).name == "Featherstone":
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", closed)
    with pytest.raises(MonaiCaeError, match=r"can't read a folder in .*scans \(Permission denied\)") as told:
        find_sources(tmp_path / "scans")
    shown = "".join(traceback.format_exception(told.value))
    assert "Featherstone'" not in shown.replace('"', "'") and "Featherstone" not in str(told.value)


def test_a_file_that_vanishes_while_headers_are_read_breaks_its_series_alone(tmp_path, monkeypatch):
    monkeypatch.setenv("MONAI_CAE_ID_KEY", "a key for this test")
    write_series(tmp_path / "a")
    write_series(tmp_path / "b", patient={"PatientID": "X1", "PatientName": "X"})
    read = pydicom.dcmread

    def vanishing(path, **options):
        content = read(path, **options)
        if path.parent.name == "a" and path.name == "IM0003":
            path.unlink()
        return content

    monkeypatch.setattr(pydicom, "dcmread", vanishing)
    broken, whole = sorted(find_sources(tmp_path).scans, key=lambda scan: not scan.error)
    assert "has files that have gone since their headers were read" in broken.error and not whole.error
