"""Many scans: each whole or not at all, none in the way of the others, and a derivative that the cohort reads."""

from __future__ import annotations

import gzip
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import dicoms
import fake_preparation
import nibabel as nib
import numpy as np
import pytest
import SimpleITK
from fake_preparation import CRASH, FAIL, RAISE, REFUSE, REVIEW, WAIT, fake

from monai_cae.cli import main
from monai_cae.data import find_images, is_synthetic, load_cohort, read_scans
from monai_cae.data.layouts import Asked
from monai_cae.data.template import FRAME_SHAPE, frame_affine
from monai_cae.errors import MonaiCaeError
from monai_cae.prepare import PrepareSettings
from monai_cae.prepare.cohort import prepare_cohort
from monai_cae.prepare.masks import read_mask
from monai_cae.prepare.sources import Wanted, find_sources

TESTS = Path(fake_preparation.__file__).parent


def write_scans(root: Path, *brightest: int) -> Path:
    """S00, S01 ... with what `fake` is to do, and a table: 70, 71 ... years, CDR 0 and 1 in turn."""
    root.mkdir(parents=True, exist_ok=True)
    for number, value in enumerate(brightest):
        volume = np.zeros((6, 7, 8), np.int16)
        volume[2:4, 2:5, 2:5] = 100
        volume[0, 0, 0] = value
        nib.save(nib.Nifti1Image(volume, np.diag([20.0, 20, 20, 1])), root / f"S{number:02d}.nii.gz")
    rows = [f"S{number:02d},{70 + number},{'FM'[number % 2]},{number % 2}" for number in range(len(brightest))]
    (root / "table.csv").write_text("\n".join(["ID,Age,Sex,CDR", *rows]) + "\n")
    return root


def verdicts(out: Path) -> dict[str, str]:
    lines = [line.split("\t") for line in (out / "qc.tsv").read_text().splitlines()]
    return {row[0]: row[1] for row in lines[1:]}


def decide(out: Path, **decisions: str) -> None:
    """As somebody does on the page: put words into the column of qc.tsv."""
    lines = [line.split("\t") for line in (out / "qc.tsv").read_text().splitlines()]
    for row in lines[1:]:
        row[2] = decisions.get(row[0].removeprefix("sub-"), row[2])
    (out / "qc.tsv").write_text("\n".join("\t".join(row) for row in lines) + "\n")


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight scans, of which one fails its QC, one is to be reviewed, and three can't be prepared."""
    root = tmp_path_factory.mktemp("prepared")
    scans = write_scans(root / "in", 500, 500, REVIEW, FAIL, REFUSE, CRASH, RAISE, 500)
    prepare_cohort(find_sources(scans), root / "out", jobs=2, prepare=fake)
    return root / "out"


@pytest.mark.slow
def test_workers_prepare_as_this_machine_does(prepared, tmp_path):
    pytest.importorskip("distributed")
    out = tmp_path / "out"
    prepare_cohort(find_sources(prepared.parent / "in"), out, cluster="local:1", prepare=fake)
    assert verdicts(out) == verdicts(prepared)
    images = [path.relative_to(prepared) for path in prepared.rglob("*.nii.gz")]
    assert images and all((out / path).read_bytes() == (prepared / path).read_bytes() for path in images)
    assert {path.name for path in out.iterdir()} == {path.name for path in prepared.iterdir()}


def test_one_bad_scan_does_not_stop_the_rest(prepared):
    assert verdicts(prepared) == {
        "sub-S00": "pass", "sub-S01": "pass", "sub-S02": "review", "sub-S03": "fail", "sub-S04": "error",
        "sub-S05": "error", "sub-S06": "error", "sub-S07": "pass",
    }  # fmt: skip
    table = (prepared / "qc.tsv").read_text()
    assert "has no brain in it" in table and "its process ended with -9" in table
    assert "ZeroDivisionError: division by zero" in table
    assert list(verdicts(prepared).values())[:5] == ["error"] * 3 + ["fail", "review"]  # the worst first


def test_a_scan_has_image_mask_transform_and_sidecar(prepared):
    folder = prepared / "sub-S00" / "anat"
    assert not (prepared / "sub-S04").exists()
    image = nib.load(folder / "sub-S00_space-T88like_desc-preproc_T1w.nii.gz")
    mask = nib.load(folder / "sub-S00_space-T88like_desc-brain_mask.nii.gz")
    assert image.shape == mask.shape == FRAME_SHAPE and image.get_data_dtype() == np.float32
    np.testing.assert_allclose(image.affine, frame_affine(), atol=1e-4)
    np.testing.assert_array_equal(np.asarray(mask.dataobj) > 0, np.asarray(image.dataobj) > 0)
    xfm = SimpleITK.ReadTransform(str(folder / "sub-S00_from-T1w_to-T88like_mode-image_xfm.tfm"))
    assert xfm.TransformPoint((1.0, 2.0, 3.0)) == (1, 2, 3)
    told = json.loads((folder / "sub-S00_space-T88like_desc-preproc_T1w.json").read_text())
    assert told["SkullStripped"] is True and told["Sources"] == ["S00.nii.gz"] and told["RawShape"] == [6, 7, 8]
    assert told["QC"]["dice"] == 0.95 and told["Verdict"] == {"status": "pass", "reasons": []}
    assert told["Recipe"]["bias_spline_mm"] == PrepareSettings().bias_spline_mm
    assert {"monai_cae", "SimpleITK", "numpy"} <= told["Versions"].keys()
    description = json.loads((prepared / "dataset_description.json").read_text())
    assert description["DatasetType"] == "derivative" and description["GeneratedBy"][0]["Name"] == "monai-cae prepare"


def test_the_cohort_reads_the_derivative_with_its_table(prepared):
    found = read_scans(prepared)
    assert found.layout == "BIDS derivative"
    assert [(scan.name, scan.age, scan.sex, scan.cdr) for scan in found.scans] == [
        ("sub-S00", 70, "F", 0), ("sub-S01", 71, "M", 1), ("sub-S02", 72, "F", 0), ("sub-S07", 77, "M", 1),
    ]  # fmt: skip
    assert all(scan.image.name.endswith("_desc-preproc_T1w.nii.gz") for scan in found.scans)
    assert found.left_out == {
        "scans that could not be prepared": 3,
        "scans that failed their QC, and are not marked keep in qc.tsv": 1,
    }
    cohort = load_cohort(prepared)
    assert (len(cohort.patients), len(cohort.controls)) == (2, 2)


def test_decisions_in_qc_tsv_are_obeyed(prepared):
    before = (prepared / "qc.tsv").read_text()
    try:
        decide(prepared, S03="keep", S01="drop")
        found = read_scans(prepared)
        assert [scan.subject for scan in found.scans] == ["sub-S00", "sub-S02", "sub-S03", "sub-S07"]
        assert found.left_out == {"scans that could not be prepared": 3, "scans dropped in qc.tsv": 1}
        assert [path.name[:7] for path in find_images(prepared)] == ["sub-S00", "sub-S02", "sub-S03", "sub-S07"]
        decide(prepared, S03="maybe")
        with pytest.raises(MonaiCaeError, match=r"qc.tsv, row \d: 'maybe' is none of keep, drop"):
            read_scans(prepared)
    finally:
        (prepared / "qc.tsv").write_text(before)


def test_all_scans_dropped_is_told(prepared):
    before = (prepared / "qc.tsv").read_text()
    try:
        decide(prepared, S00="drop", S01="drop", S02="drop", S07="drop")
        with pytest.raises(MonaiCaeError, match=r"no image .* takes part \(.*4 scans dropped in qc.tsv.*qc.html"):
            read_scans(prepared)
    finally:
        (prepared / "qc.tsv").write_text(before)


def test_check_and_cohort_take_the_derivative(prepared, tmp_path, capsys):
    assert main(["cohort", str(prepared)]) == 0
    printed = capsys.readouterr().out
    assert "BIDS derivative" in printed and "left out:    3 scans that could not be prepared" in printed
    assert "raw BIDS" not in printed
    main(["check", str(prepared), "--out", str(tmp_path / "check")])
    assert "4 scans" in capsys.readouterr().out


def test_finished_scans_are_kept_and_the_rest_is_done(tmp_path):
    scans = write_scans(tmp_path / "in", 500, REFUSE)
    out = tmp_path / "out"
    prepare_cohort(find_sources(scans), out, prepare=fake)
    with pytest.raises(MonaiCaeError, match="has scans already: continue with --resume"):
        prepare_cohort(find_sources(scans), out, prepare=fake)
    image = next(out.glob("sub-S00/anat/*_T1w.nii.gz"))
    before = image.stat()
    decide(out, S00="drop")
    write_scans(tmp_path / "new", 500, 500)
    (scans / "S01.nii.gz").write_bytes((tmp_path / "new" / "S01.nii.gz").read_bytes())  # repaired
    outcomes = prepare_cohort(find_sources(scans), out, resume=True, prepare=fake)
    assert [(one.name, one.verdict) for one in outcomes] == [("sub-S00", "pass"), ("sub-S01", "pass")]
    assert (image.stat().st_ino, image.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert (out / "qc.tsv").read_text().splitlines()[1].startswith(("sub-S00\tpass\tdrop", "sub-S01\tpass\t\t"))
    assert "sub-S00\tpass\tdrop" in (out / "qc.tsv").read_text()


@pytest.mark.parametrize("change", ["settings", "input", "mask"])
def test_scans_of_other_settings_or_input_are_refused_unless_overwritten(tmp_path, change):
    scans, out = write_scans(tmp_path / "in", 500), tmp_path / "out"
    prepare_cohort(find_sources(scans), out, prepare=fake)
    settings, wanted = PrepareSettings(), Wanted()
    if change == "settings":
        settings = PrepareSettings(bias_spline_mm=70.0)
    elif change == "input":
        write_scans(scans, 501)
    else:
        wanted = Wanted(mask=scans / "S00.nii.gz")
    sources = find_sources(scans / "S00.nii.gz" if change == "mask" else scans, wanted)
    with pytest.raises(MonaiCaeError, match=r"1 scans in .* other settings.*such as sub-S00.*--overwrite"):
        prepare_cohort(sources, out, settings, resume=True, prepare=fake)
    prepare_cohort(sources, out, settings, overwrite=True, prepare=fake)
    told = json.loads(next(out.glob("sub-S00/anat/*_T1w.json")).read_text())
    assert (told["Recipe"]["bias_spline_mm"] == 70) == (change == "settings")
    image = np.asarray(nib.load(next(out.glob("sub-S00/anat/*_T1w.nii.gz"))).dataobj)
    assert image.max() == (0.75 if change == "mask" else 0.5)  # `fake` is brighter with a mask


def test_a_second_input_joins_the_first(tmp_path):
    first, second = write_scans(tmp_path / "a", 500), tmp_path / "b"
    write_scans(second, 500, 500)
    (second / "S00.nii.gz").unlink()
    prepare_cohort(find_sources(first), tmp_path / "out", prepare=fake)
    prepare_cohort(find_sources(second), tmp_path / "out", resume=True, prepare=fake)
    assert [scan.age for scan in read_scans(tmp_path / "out").scans] == [70, 71]
    assert verdicts(tmp_path / "out") == {"sub-S00": "pass", "sub-S01": "pass"}


def test_a_folder_with_something_else_is_refused(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.tex").write_text("")
    sources = find_sources(write_scans(tmp_path / "in", 500))
    with pytest.raises(MonaiCaeError, match="is not empty, and monai-cae prepare has not written it"):
        prepare_cohort(sources, tmp_path / "out", resume=True, prepare=fake)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["thesis.tex"]


_RUN = """
import signal
import sys
from fake_preparation import fake
from monai_cae.prepare.cohort import prepare_cohort
from monai_cae.prepare.sources import find_sources
if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell has its background jobs ignore it
    prepare_cohort(find_sources(sys.argv[1]), sys.argv[2], jobs=2, resume=True, prepare=fake)
"""


@pytest.fixture
def short_folder():
    """Python has sockets of its processes in the temporary folder; their paths have 107 letters at most."""
    with tempfile.TemporaryDirectory(prefix="t-") as folder:
        yield Path(folder)


SLOW = [pytest.param(number, marks=pytest.mark.slow) for number in (signal.SIGTERM, signal.SIGINT)]


@pytest.mark.parametrize("number", [signal.SIGKILL, *SLOW])
def test_killing_loses_the_scan_in_work_and_nothing_else(tmp_path, short_folder, number):
    scans, out, go = write_scans(tmp_path / "in", 500, WAIT, 500), tmp_path / "out", tmp_path / "go"
    (tmp_path / "run.py").write_text(_RUN)
    environment = {
        **os.environ,
        "MAY_GO_ON": str(go),
        "PYTHONPATH": f"{TESTS}{os.pathsep}{TESTS.parent}",
        "TMPDIR": str(short_folder),
    }
    command = [sys.executable, str(tmp_path / "run.py"), str(scans), str(out)]
    log = tmp_path / "log"
    with log.open("w") as stderr:
        process = subprocess.Popen(command, env=environment, stderr=stderr)
    waiting = Path(f"{go}.pid")
    while not (waiting.exists() and waiting.read_text() and len(list(out.glob("sub-*/anat"))) == 2):
        assert process.poll() is None, log.read_text()
        time.sleep(0.02)
    process.send_signal(number)
    process.wait(60)
    worker = int(waiting.read_text())
    while Path(f"/proc/{worker}/cmdline").exists() and Path(f"/proc/{worker}/cmdline").read_bytes():
        time.sleep(0.02)  # it ends with its parent
    assert sorted(path.parent.name for path in out.glob("sub-*/anat")) == ["sub-S00", "sub-S02"]
    if number != signal.SIGKILL:  # what is done is on the page
        assert verdicts(out) == {"sub-S00": "pass", "sub-S02": "pass"}
    go.touch()
    assert subprocess.run(command, env=environment, check=False).returncode == 0
    assert verdicts(out) == {"sub-S00": "pass", "sub-S01": "pass", "sub-S02": "pass"}
    assert not list(out.rglob(".*-unfinished-*")) and not (out / ".brain.lock").exists()
    assert not list(short_folder.glob("monai-cae-*"))


def test_a_temporary_folder_of_too_long_a_path_is_one_line(tmp_path):
    (tmp_path / "run.py").write_text(_RUN)
    folder = tmp_path / ("x" * 100)
    folder.mkdir()
    environment = {**os.environ, "PYTHONPATH": f"{TESTS}{os.pathsep}{TESTS.parent}", "TMPDIR": str(folder)}
    command = [sys.executable, tmp_path / "run.py", write_scans(tmp_path / "in", 500), tmp_path / "out"]
    run = subprocess.run(command, env=environment, check=False, capture_output=True, text=True)
    assert run.returncode == 1
    assert "set TMPDIR to another folder, with a shorter path than" in run.stderr.splitlines()[-1]


def test_a_mask_lies_on_the_axes_that_were_said_of_its_scan(tmp_path):
    """Scan and mask record the same wrong axes; --orientation puts both right, and no other mask fits."""
    scans = write_scans(tmp_path / "in", 500)
    (path,) = scans.glob("*.nii.gz")
    shutil.copy(path, tmp_path / "mask.nii.gz")
    wanted = Wanted(mask=tmp_path / "mask.nii.gz", orientation="PIR")
    scan = find_sources(scans, wanted).scans[0]
    mask = read_mask(scan.mask, scan.name, scan.path, scan.orientation)
    np.testing.assert_array_equal(mask.affine, scan.read().affine)
    image = nib.load(path)
    nib.save(nib.Nifti1Image(image.dataobj[::-1], image.affine @ np.diag([-1, 1, 1, 1])), tmp_path / "mask.nii.gz")
    with pytest.raises(MonaiCaeError, match="the mask of sub-S00 has another grid than the scan, whose axes were said"):
        read_mask(scan.mask, scan.name, scan.path, scan.orientation)
    assert read_mask(scan.mask, scan.name, scan.path).affine[0, 0] < 0  # without it each file says where it lies


def test_bids_sessions_keep_their_rows(tmp_path):
    raw = tmp_path / "raw"
    for session in ("1", "2"):
        path = raw / "sub-01" / f"ses-{session}" / "anat" / f"sub-01_ses-{session}_T1w.nii.gz"
        path.parent.mkdir(parents=True)
        (write_scans(tmp_path / session, 500) / "S00.nii.gz").rename(path)
    (raw / "participants.tsv").write_text("participant_id\tsex\tsite\nsub-01\tF\tX\n")
    (raw / "sub-01" / "sub-01_sessions.tsv").write_text("session_id\tage\tcdr\nses-1\t70\t0\nses-2\t73.5\t0.5\n")
    (raw / "dataset_description.json").write_text('{"Name": "Mine", "BIDSVersion": "1.9.0"}')
    prepare_cohort(find_sources(raw), tmp_path / "out", prepare=fake)
    scans = read_scans(tmp_path / "out").scans
    assert [(one.name, one.sex, one.age, one.cdr, one.row["site"]) for one in scans] == [
        ("sub-01_ses-1", "F", 70, 0, "X"), ("sub-01_ses-2", "F", 73.5, 0.5, "X"),
    ]  # fmt: skip
    source = json.loads((tmp_path / "out" / "dataset_description.json").read_text())["SourceDatasets"]
    assert source == [{"Description": "BIDS", "Name": "Mine"}]


@pytest.mark.parametrize("synthetic", [True, False, "true"])
def test_what_is_made_of_synthetic_scans_is_synthetic(tmp_path, synthetic):
    about = json.dumps({"Name": "Mine", "synthetic": synthetic})
    (write_scans(tmp_path / "in", 500) / "dataset_description.json").write_text(about)
    prepare_cohort(find_sources(tmp_path / "in"), tmp_path / "out", prepare=fake)
    assert is_synthetic(tmp_path / "out") == (synthetic is True)


def everything(out: Path) -> bytes:
    """All names and contents below a folder, compressed images unpacked."""
    parts = []
    for path in sorted(out.rglob("*")):
        parts.append(str(path.relative_to(out)).encode())
        if path.suffix == ".gz":
            parts.append(gzip.decompress(path.read_bytes()))
        elif path.is_file():
            parts.append(path.read_bytes())
    return b"\n".join(parts)


@pytest.mark.parametrize("subject", ["", "7"])
def test_nothing_that_names_a_dicom_patient_gets_out(tmp_path, monkeypatch, capfd, subject):
    monkeypatch.setenv("MONAI_CAE_ID_KEY", "a key for this test")
    folder = tmp_path / "Featherstone_Wilhelmina_19400102"
    dicoms.write_series(folder / "HOSP4711" / "s3", study="1.2.3", SeriesDescription="t1_mprage Wilhelmina")
    dicoms.write_series(folder / "HOSP4711" / "s1", dicoms.head()[:3], study="1.2.3", SeriesNumber=1)
    table = tmp_path / "patients.csv"
    table.write_text("ID,name,accession,Age\nHOSP4711,HOSP4711 Wilhelmina Featherstone,ACC998877-HOSP4711,79\n")
    found = find_sources(folder, Wanted(asked=Asked(run="", table=str(table)), subject=subject))
    told = [*(line for scan in found.scans for line in scan.lines), *(note.line() for note in found.notes)]
    outcomes = prepare_cohort(found, tmp_path / "out", prepare=fake)
    assert [one.verdict for one in outcomes] == ["pass"]
    assert [scan.age for scan in read_scans(tmp_path / "out").scans] == [79]
    written = everything(tmp_path / "out") + "\n".join([*told, *map(repr, outcomes), *capfd.readouterr()]).encode()
    assert b"series 3" in written and b"SkullStripped" in written
    for secret in (*dicoms.SECRETS, "20200102", "1.2.3"):
        assert secret.lower().encode() not in written.lower(), secret


def test_an_error_does_not_name_the_file(tmp_path):
    scans = write_scans(tmp_path / "in", 500, 500)
    (scans / "S01.nii.gz").write_bytes((scans / "S01.nii.gz").read_bytes()[:60])
    prepare_cohort(find_sources(scans), tmp_path / "out", prepare=fake)
    row = next(line for line in (tmp_path / "out" / "qc.tsv").read_text().splitlines() if line.startswith("sub-S01"))
    assert row.split("\t")[1] == "error" and "the image" in row and str(tmp_path) not in row


def test_what_was_recognised_or_guessed_is_told_once_on_the_line_the_page_and_in_the_sidecar(tmp_path, in_browser):
    scans, out = write_scans(tmp_path / "in", 500), tmp_path / "out"
    told = ("read as RAS, as asked", "nothing was done")
    (outcome,) = prepare_cohort(find_sources(scans, Wanted(orientation="RAS")), out, prepare=fake)
    assert outcome.line == "sub-S00: pass (read as RAS, as asked; nothing was done)"
    (kept,) = prepare_cohort(find_sources(scans, Wanted(orientation="RAS")), out, resume=True, prepare=fake)
    assert kept.notes == told
    page = (out / "qc.html").read_text()
    in_browser(out / "qc.html")
    assert all(f'<p class="note">{note}</p>' in page for note in told)
    assert tuple(json.loads(next(out.glob("sub-S00/anat/*_T1w.json")).read_text())["Notes"]) == told


def test_hashed_ids_leave_out_columns_that_name_somebody(tmp_path, monkeypatch):
    monkeypatch.setenv("MONAI_CAE_ID_KEY", "a key for this test")
    scans = write_scans(tmp_path / "in", 500)
    personal = {
        "Name": "Roe, Jane", "surname": "Roe", "Date of birth": "1940-01-02", "PTDOB": "1940", "DOB": "1940",
        "Accession Number": "ACC9", "MRN": "77", "e-mail": "roe@example.org", "Home_Address": "Elm 1",
    }  # fmt: skip
    kept = {"Age": "79", "CDR": "0.5", "Birth weight": "3100", "adobe": "x"}
    row = {"ID": "S00", **personal, **kept}
    (scans / "table.csv").unlink()
    (tmp_path / "t.csv").write_text(",".join(row) + "\n" + ",".join(f'"{text}"' for text in row.values()) + "\n")
    wanted = Wanted(asked=Asked(table=tmp_path / "t.csv", run=""), hash_ids=True)
    prepare_cohort(find_sources(scans, wanted), tmp_path / "out", prepare=fake)
    names = (tmp_path / "out" / "participants.tsv").read_text().splitlines()[0].split("\t")
    assert names == ["participant_id", *kept]


def test_hashed_ids_hide_the_subjects_of_files_too(tmp_path, monkeypatch):
    monkeypatch.setenv("MONAI_CAE_ID_KEY", "a key for this test")
    scans = write_scans(tmp_path / "in", 500, 500)
    prepare_cohort(find_sources(scans, Wanted(hash_ids=True)), tmp_path / "out", prepare=fake)
    written = everything(tmp_path / "out")
    assert b"S00" not in written and b"S01" not in written
    assert sorted(scan.age for scan in read_scans(tmp_path / "out").scans) == [70, 71]
