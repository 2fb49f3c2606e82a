"""DICOM: the right series, its voxels where they belong, and nobody's name."""

from __future__ import annotations

import os
import re
import signal
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import dicoms
import numpy as np
import pytest
from dicoms import head, world, write_series
from pydicom import dcmread
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    JPEG2000Lossless,
    MediaStorageDirectoryStorage,
    RLELossless,
    generate_uid,
)

from monai_cae.errors import MonaiCaeError
from monai_cae.prepare import RawScan
from monai_cae.prepare.conversion import convert, private_folder
from monai_cae.prepare.dicom import Series, is_dicom, read_series
from monai_cae.prepare.series import choose_series, not_t1w


def files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def series_of(folder: Path) -> list[Series]:
    return read_series(files(folder))[0]


def converted(folder: Path) -> RawScan:
    return convert(choose_series(series_of(folder)).series, "sub-01")


def assert_in_place(scan: RawScan, volume: np.ndarray) -> None:
    """Every voxel of some lies where its slice's header says, by the affine of the scan."""
    rng = np.random.default_rng(1)
    for k, row, column in [(0, 0, 0), (9, 35, 25), *(rng.integers(0, volume.shape) for _ in range(50))]:
        index = np.linalg.inv(scan.affine) @ np.append(world(k, row, column), 1)
        nearest = np.rint(index[:3]).astype(int)
        np.testing.assert_allclose(index[:3], nearest, atol=0.01)
        assert scan.voxels[tuple(nearest)] == volume[k, row, column]


@pytest.mark.parametrize(
    ("multi_frame", "syntax"),
    [(False, "1.2.840.10008.1.2.1"), (True, "1.2.840.10008.1.2.1"), (False, RLELossless), (False, JPEG2000Lossless)],
)
def test_every_voxel_lies_where_its_header_says(tmp_path, multi_frame, syntax):
    scan = converted(write_series(tmp_path, multi_frame=multi_frame, syntax=syntax))
    assert scan.oriented and scan.source == "" and scan.name == "sub-01"
    assert_in_place(scan, head())


@contextmanager
def suppress_refusal(message: str) -> Iterator[None]:
    try:
        yield
    except MonaiCaeError as error:
        if not re.search(message, str(error)):
            raise


def test_a_compressed_multi_frame_file_is_right_or_refused(tmp_path):
    folder = write_series(tmp_path, multi_frame=True, syntax=JPEG2000Lossless)
    with suppress_refusal("JPEG 2000.*store it uncompressed"):
        assert_in_place(converted(folder), head())


def test_a_transfer_syntax_that_dcm2niix_does_not_know_is_refused(tmp_path):
    folder = write_series(tmp_path, syntax=DeflatedExplicitVRLittleEndian)
    with pytest.raises(MonaiCaeError, match=r"Deflated Explicit VR Little Endian.*uncompressed"):
        converted(folder)


@pytest.mark.parametrize("multi_frame", [False, True])
def test_missing_slices_are_refused(tmp_path, multi_frame):
    write_series(tmp_path, leave_out=(12, 13), multi_frame=multi_frame)
    with pytest.raises(MonaiCaeError, match="has 2 missing slices between the others"):
        choose_series(series_of(tmp_path))


def test_slices_that_may_be_missing_at_one_end_are_told(tmp_path):
    write_series(tmp_path, leave_out=(0, 1))
    assert converted(tmp_path).notes == ("its slices are numbered from 3 on: slices may be missing at one end",)


def test_a_series_that_is_there_twice_is_refused(tmp_path):
    uid = generate_uid()
    write_series(tmp_path / "a", series=uid, study="1.2.3")
    for path in files(tmp_path / "a"):
        (tmp_path / f"copy of {path.name}").write_bytes(path.read_bytes())
    with pytest.raises(MonaiCaeError, match=r"several volumes \(4D\)|twice"):
        choose_series(series_of(tmp_path))


def test_several_volumes_of_one_series_are_refused(tmp_path):
    uid = generate_uid()
    write_series(tmp_path / "a", series=uid, study="1.2.3")
    write_series(tmp_path / "b", head(1), series=uid, study="1.2.3")
    with pytest.raises(MonaiCaeError, match=r"68 slices at 34 places: several volumes \(4D\)"):
        choose_series(series_of(tmp_path))


OTHERS = [
    ({"SeriesDescription": "3-plane loc"}, "localizer"),
    ({"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}, "localizer"),
    ({"ImageType": ["DERIVED", "SECONDARY", "MPR"]}, "derived from other images"),
    ({"ImageType": ["ORIGINAL", "PRIMARY", "P", "ND"]}, "phase, real or imaginary part"),
    ({"ContrastBolusAgent": "Gadovist"}, "post-contrast"),
    ({"SeriesDescription": "T1 MPRAGE +C"}, "post-contrast"),
    ({"SeriesDescription": "t1_mprage_post_gd"}, "post-contrast"),
    ({"SeriesDescription": "TOF_3D", "InversionTime": None, "RepetitionTime": 22, "EchoTime": 3.7, "FlipAngle": 20},
     "angiography or susceptibility"),
    ({"SeriesDescription": "t2_tse", "EchoTime": 95, "RepetitionTime": 4000, "InversionTime": None,
      "ScanningSequence": ["SE"]}, "not T1w by its name"),
    ({"SeriesDescription": "ax", "EchoTime": 95, "RepetitionTime": 4000, "InversionTime": None,
      "ScanningSequence": ["SE"]}, "not T1w (TE 95 ms)"),
    ({"SeriesDescription": "ax", "EchoTime": 9, "RepetitionTime": 3000, "InversionTime": None,
      "ScanningSequence": ["SE"]}, "not T1w (TR 3000, TE 9 ms)"),
    ({"SeriesDescription": "dark fluid", "EchoTime": 20, "InversionTime": 2500}, "not T1w (TI 2500 ms)"),
    ({"SeriesDescription": "pdw", "InversionTime": None, "RepetitionTime": 24, "FlipAngle": 6},
     "not T1w (TR 24, TE 2.98 ms, 6 degrees)"),
    ({"SeriesDescription": "bold", "ScanningSequence": ["EP"]}, "echo-planar"),
    ({"Modality": "CT"}, "not MR but CT"),
]  # fmt: skip
T1W = [
    {},
    {"ContrastBolusAgent": "NONE", "ImageType": ["ORIGINAL", "PRIMARY", "M", "NORM", "DIS2D"]},
    {"SeriesDescription": "FSPGR", "InversionTime": None, "RepetitionTime": 8.2, "EchoTime": 3.2, "FlipAngle": 12},
    {"SeriesDescription": "Accelerated Sag IR-FSPGR", "InversionTime": 400, "RepetitionTime": 7.3, "FlipAngle": 11},
    {"SeriesDescription": "MPRAGE SENSE2", "InversionTime": None, "RepetitionTime": 2300, "EchoTime": 3.1},
    {"SeriesDescription": "T1 SE", "ScanningSequence": ["SE"], "InversionTime": None, "RepetitionTime": 500,
     "EchoTime": 14},
]  # fmt: skip


@pytest.mark.parametrize(("tags", "why"), OTHERS)
def test_what_is_no_t1w_scan_is_told_by_its_header(tmp_path, tags, why):
    write_series(tmp_path, head()[:2], **tags)
    (one,) = series_of(tmp_path)
    assert not_t1w(one) == why


@pytest.mark.parametrize("tags", T1W)
def test_t1w_scans_of_every_maker_are_taken(tmp_path, tags):
    write_series(tmp_path, **tags)
    (one,) = series_of(tmp_path)
    assert not_t1w(one) == ""


@pytest.mark.parametrize(("shape", "why"), [((20, 100, 96), "20 slices"), ((34, 64, 64), "64 x 64 pixels")])
def test_a_volume_that_is_too_small_is_passed_over(tmp_path, shape, why):
    write_series(tmp_path, np.ones(shape, np.uint16))
    (one,) = series_of(tmp_path)
    assert not_t1w(one) == why


def visit(root: Path) -> Path:
    """A localizer, two MPRAGEs, one after contrast agent; mixed in one folder."""
    for number, (name, tags) in enumerate(
        [("loc", {}), ("t1_mprage", {}), ("t1_mprage_rpt", {}), ("t1_post", {"ContrastBolusAgent": "Gd"})], start=1
    ):
        write_series(root / "s", head(number), study="1.2.3", SeriesNumber=number, SeriesDescription=name, **tags)
        for path in files(root / "s"):
            path.rename(root / f"{number}_{path.name}")
    (root / "s").rmdir()
    return root


def test_several_t1w_series_are_refused_with_a_list_and_an_option(tmp_path):
    series = series_of(visit(tmp_path))
    with pytest.raises(
        MonaiCaeError, match=r"2 T1w series \(series 2 \(t1_mprage, .*series 3 \(t1_mprage_rpt.*--series"
    ):
        choose_series(series)


@pytest.mark.parametrize("wanted", ["3", "RPT"])
def test_series_says_which_one_and_dcm2niix_converts_that_alone(tmp_path, wanted):
    choice = choose_series(series_of(visit(tmp_path)), wanted)
    assert [line.partition(",")[0] for line in choice.lines] == [
        "taken: series 3 (t1_mprage_rpt",
        "passed over: series 1 (loc",
        "passed over: series 2 (t1_mprage",
        "passed over: series 4 (t1_post",
    ]
    assert "localizer" in choice.lines[1] and "post-contrast" in choice.lines[3]
    assert_in_place(convert(choice.series, "sub-01"), head(3))


def test_no_t1w_series_is_told_with_what_there_is(tmp_path):
    write_series(tmp_path, ContrastBolusAgent="Gd")
    with pytest.raises(MonaiCaeError, match=r"no T1w series among 1 \(series 3 .*post-contrast\).*--series"):
        choose_series(series_of(tmp_path))


def test_files_without_all_their_pixels_are_refused(tmp_path):
    write_series(tmp_path)
    path = files(tmp_path)[7]
    path.write_bytes(path.read_bytes()[:-5000])
    with pytest.raises(MonaiCaeError, match="files without all their pixel data"):
        choose_series(series_of(tmp_path))


def test_two_patients_in_one_series_are_refused_and_not_named(tmp_path):
    uid = generate_uid()
    write_series(tmp_path / "a", series=uid, study="1.2.3")
    write_series(tmp_path / "b", series=uid, study="1.2.3", patient={"PatientID": "X77"})
    with pytest.raises(MonaiCaeError, match="series 3 has files of 2 patients") as error:
        series_of(tmp_path)
    assert "X77" not in str(error.value) and "HOSP" not in str(error.value)


def test_one_patient_id_with_two_names_is_refused(tmp_path):
    write_series(tmp_path / "a")
    write_series(tmp_path / "b", patient={"PatientName": "Roe^Richard"})
    with pytest.raises(MonaiCaeError, match="several names or dates of birth") as error:
        series_of(tmp_path)
    assert "Roe" not in str(error.value)


def test_a_description_does_not_show_the_patient(tmp_path):
    write_series(tmp_path, SeriesDescription="t1 featherstone WILHELMINA hosp4711 mprage")
    (one,) = series_of(tmp_path)
    assert one.description == "t1 * * * mprage"
    assert not any(secret.casefold() in repr(one).casefold() for secret in dicoms.SECRETS)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("t1 Li mprage", "t1 * mprage"),  # a name of two letters
        ("t1_FEATHERSTONEW_ax", "t1_*_ax"),  # a name with an initial
        ("t1 Dr Who for Secret Clinic", "t1 * * for * *"),  # others' names
        ("t1 1940-01-02 2.1.1940 20200102", "t1 * * *"),  # dates
        ("t1_mprage_sag_p2_iso_1.0mm", "t1_mprage_sag_p2_iso_1.0mm"),
    ],
)
def test_a_description_does_not_show_what_may_name_somebody(tmp_path, text, shown):
    write_series(tmp_path, SeriesDescription=text, ProtocolName=text, OtherPatientNames="Li^Bo")
    (one,) = series_of(tmp_path)
    assert one.description == shown
    assert text == shown or text.casefold() not in repr(one).casefold()


def test_a_name_that_is_a_word_of_the_rules_does_not_hide_what_a_series_is(tmp_path):
    write_series(tmp_path, SeriesDescription="t1_mprage_post", patient={"PatientName": "Post^Emily"})
    (one,) = series_of(tmp_path)
    assert (one.description, not_t1w(one)) == ("t1_mprage_*", "post-contrast")


def test_damaged_values_are_not_quoted_in_warnings(tmp_path):
    write_series(tmp_path)
    for path in files(tmp_path):
        content = path.read_bytes()
        start = content.index(b"\x20\x00\x11\x00IS\x02\x00") + 8  # the series' number
        path.write_bytes(content[:start] + b"Fe" + content[start + 2 :])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        series_of(tmp_path)


def test_a_list_of_files_is_not_called_broken(tmp_path):
    write_series(tmp_path)
    listed = dcmread(files(tmp_path)[0])
    listed.file_meta.MediaStorageSOPClassUID = MediaStorageDirectoryStorage
    listed.save_as(tmp_path / "DICOMDIR")
    found, left_out = read_series(files(tmp_path))
    assert (len(found), left_out) == (1, {"lists of files (DICOMDIR)": 1})


@pytest.mark.parametrize("damage", [b"", b"\0" * 132, b"\0" * 128 + b"DICM", b"\0" * 128 + b"DICM" + b"\xff" * 400])
def test_damaged_files_are_counted(tmp_path, damage):
    write_series(tmp_path)
    (tmp_path / "broken").write_bytes(damage)
    found, left_out = read_series([path for path in files(tmp_path) if is_dicom(path)])
    assert len(found) == 1
    assert left_out == ({"broken DICOM files": 1} if damage[128:132] == b"DICM" else {})


def test_temporary_files_are_private_and_go_with_the_block():
    with private_folder(1 << 20) as folder:
        assert folder.stat().st_mode & 0o777 == 0o700
        (folder / "volume.nii").write_bytes(b"0")
    assert not folder.exists()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_temporary_files_of_a_killed_process_go(tmp_path, number):
    ready = tmp_path / "ready"
    child = os.fork()
    if child == 0:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        try:
            with private_folder(1 << 20) as folder:
                (folder / "volume.nii").write_bytes(b"0")
                (tmp_path / "writing").write_text(str(folder))
                (tmp_path / "writing").rename(ready)
                while True:
                    time.sleep(0.01)
        finally:
            os._exit(1)
    while not ready.exists():
        time.sleep(0.01)
    os.kill(child, number)
    os.waitpid(child, 0)
    left = Path(ready.read_text())
    assert left.exists() == (number == signal.SIGKILL)
    with private_folder(1 << 20):
        assert not left.exists()
