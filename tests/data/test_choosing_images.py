"""Which of several T1w images of a session is taken, and files that are not what their names say."""

from __future__ import annotations

import gzip

import nibabel as nib
import numpy as np
import pytest

from monai_cae.data import SliceReader, check_cohort, find_images, read_scans
from monai_cae.data.images.volumes import find_volume


def bids(root, **sessions):
    for subject, names in sessions.items():
        for name in names:
            path = root / f"sub-{subject}" / "anat" / f"sub-{subject}_{name}T1w.nii.gz"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
    (root / "participants.tsv").write_text("\n".join(["participant_id", *(f"sub-{one}" for one in sessions), ""]))
    return root


def taken(root, **options):
    found = read_scans(root, **options)
    return {scan.subject[4:]: scan.image.name.split("_", 1)[1][:-10].rstrip("_") for scan in found.scans}


SESSIONS = {
    "a": ["run-01_", "run-02_"],
    "b": ["acq-fspgr_", "acq-mprage_"],
    "c": ["acq-mprage_run-1_", "acq-mprage_run-2_", "acq-mprage_run-10_"],
    "d": ["acq-mprage_", "acq-mprage_ce-gad_", "acq-mprage_rec-norm_"],
}


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, {"a": "run-02", "b": "acq-mprage", "c": "acq-mprage_run-10", "d": "acq-mprage"}),
        ({"run": "first"}, {"a": "run-01", "b": "acq-mprage", "c": "acq-mprage_run-1", "d": "acq-mprage"}),
        ({"run": 2}, {"a": "run-02", "b": "acq-mprage", "c": "acq-mprage_run-2", "d": "acq-mprage"}),
        ({"run": "1"}, {"a": "run-01", "b": "acq-mprage", "c": "acq-mprage_run-1", "d": "acq-mprage"}),
        ({"acquisition": "fspgr", "allow_unmatched": True}, {"b": "acq-fspgr"}),
        ({"acquisition": "none", "allow_unmatched": True}, {"a": "run-02"}),
    ],
)
def test_the_usual_kind_and_the_last_run_are_taken_unless_asked_otherwise(tmp_path, options, expected):
    assert taken(bids(tmp_path, **SESSIONS), **options) == expected


def test_the_choice_is_told(tmp_path):
    found = read_scans(bids(tmp_path, **SESSIONS))
    assert found.left_out == {"further images of a session": 6}
    chosen, mixed = found.notes
    assert chosen.text.startswith(
        "4 sessions have several T1w images: the kind that most sessions have and the last run are taken (acq-mprage "
        "(3), without acq- (1)); --acquisition NAME and --run"
    )
    assert chosen.examples[0] == "sub-a_run-02_T1w.nii.gz"
    assert mixed.text == "images of several kinds are mixed: --acquisition NAME keeps one"


def test_of_kinds_that_as_many_have_one_is_taken_by_its_name_and_told(tmp_path):
    names = ["acq-tse_", "acq-mprage_", "acq-mprage_ce-gd_"]
    root = bids(tmp_path, a=names, b=names, c=["ce-gd_", ""])
    assert taken(root) == {"a": "acq-mprage", "b": "acq-mprage", "c": ""}
    (note,) = (note.line() for note in read_scans(root).notes if note.text.startswith("as many"))
    assert note == "as many sessions have one kind as another: look which is the T1w scan: acq-mprage or acq-tse"


def test_a_contrast_agent_is_passed_over_even_if_most_have_one(tmp_path):
    root = bids(tmp_path, a=["ce-gd_", ""], b=["ce-gd_"], c=["part-mag_", "part-phase_"])
    assert taken(root) == {"a": "", "b": "ce-gd", "c": "part-mag"}


def test_one_image_a_session_needs_no_word(tmp_path):
    assert read_scans(bids(tmp_path, a=["acq-x_"], b=["acq-x_"])).notes == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"run": "best"}, "run must be last, first or a number, not 'best'"),
        ({"acquisition": "spgr"}, "no T1w image has acq-spgr: there are fspgr, mprage, none"),
    ],
)
def test_a_choice_that_is_none_is_refused(tmp_path, refused, options, message):
    with refused(message):
        read_scans(bids(tmp_path, **SESSIONS), **options)


@pytest.fixture
def volume():
    return nib.Nifti1Image(np.random.default_rng(0).integers(1, 999, (8, 9, 10), dtype=np.int16), np.eye(4))


def test_gzip_is_told_by_what_is_in_the_file(tmp_path, volume):
    nib.save(volume, tmp_path / "a.nii.gz")
    packed = (tmp_path / "a.nii.gz").read_bytes()
    (tmp_path / "plain.nii.gz").write_bytes(gzip.decompress(packed))
    (tmp_path / "packed.nii").write_bytes(packed)
    (tmp_path / "LOUD.NII.GZ").write_bytes(packed)
    for name in ("a.nii.gz", "plain.nii.gz", "packed.nii", "LOUD.NII.GZ"):
        array, _ = SliceReader(slice_index=4).get_data((tmp_path / name,))
        assert np.array_equal(array[:, :, 0], np.asarray(volume.dataobj)[:, :, 3])


@pytest.mark.parametrize("suffix", [".nii.gz", ".nii", ".hdr"])
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"/annex/objects/MD5E-s9--0.nii.gz\n", "is a git-annex pointer .* get it with datalad get"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "is a Git LFS pointer .* git lfs pull"),
    ],
)
def test_pointers_are_named(tmp_path, refused, suffix, content, message):
    path = tmp_path / f"a{suffix}"
    path.write_bytes(content)
    with refused(message):
        find_volume(str(path))


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("../.git/annex/objects/aa/b/k.nii.gz", "is a git-annex link .* get it with datalad get"),
        ("gone.nii.gz", r"is a link to gone\.nii\.gz, which does not exist"),
    ],
)
def test_links_that_lead_nowhere_are_named(tmp_path, refused, target, message):
    (tmp_path / "a.nii.gz").symlink_to(target)
    with refused(message):
        find_volume(str(tmp_path / "a.nii.gz"))
    (scan,) = check_cohort([("a", tmp_path / "a.nii.gz")]).scans
    assert "is a" in scan.problems[0]


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("a.mgz", "1 files are FreeSurfer's .mgz: convert them with mri_convert"),
        ("a.nii.zst", "1 files are compressed with zstd: unpack them with unzstd"),
        ("x/IM1.DCM", "1 files are DICOM: convert them to NIfTI"),
    ],
)
def test_other_formats_are_named_by_what_they_are(tmp_path, refused, name, hint):
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.touch()
    (tmp_path / "t.csv").write_text("ID\na\n")
    with refused(hint):
        read_scans(tmp_path)
    with refused(hint):
        find_images(tmp_path)
