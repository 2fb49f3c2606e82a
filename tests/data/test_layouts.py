"""Folders as people have them: OASIS-1's discs, plain folders with a table, a table alone; and those that don't fit."""

from __future__ import annotations

import shutil

import nibabel as nib
import numpy as np
import pytest

from monai_cae.data import Scan, find_images, read_scans

T88 = "PROCESSED/MPRAGE/T88_111"
ROWS = [("OAS1_0001_MR1", "F", 74, 0), ("OAS1_0002_MR1", "M", 80, 0.5), ("OAS1_0002_MR2", "M", 80, 0.5)]
COVARIATES = {"Educ": 2, "MMSE": 29, "eTIV": 1344, "nWBV": 0.743, "ASF": 1.306}


@pytest.fixture
def discs(tmp_path, write_discs):
    return write_discs(tmp_path / "discs", ROWS)


@pytest.fixture
def plain(tmp_path):
    root = tmp_path / "plain"
    root.mkdir()
    (root / "participants.tsv").write_text("participant_id\tCDR\nsub-01\t0\nsub-02\t1\n")
    return root


def t88(root, disc, name, n=4):
    return root / disc / name / T88 / f"{name}_mpr_n{n}_anon_111_t88_masked_gfc.hdr"


def touch(*paths):
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def images(scans):
    return {scan.name: scan.image for scan in scans}


def test_discs_with_the_table_in_their_folder(discs):
    assert read_scans(discs) == [
        Scan("OAS1_0001", "MR1", t88(discs, "disc1", "OAS1_0001_MR1", 3), 0, 74, "F", COVARIATES),
        Scan("OAS1_0002", "MR1", t88(discs, "disc1", "OAS1_0002_MR1", 4), 0.5, 80, "M", COVARIATES),
        Scan("OAS1_0002", "MR2", t88(discs, "disc1", "OAS1_0002_MR2", 5), 0.5, 80, "M", COVARIATES),
    ]


def test_discs_at_any_depth_below_names_with_spaces_and_umlauts(tmp_path, write_pair, write_table):
    root = tmp_path / "Gehirne – für später" / "日本"
    write_table(root / "oasis_cross-sectional.csv", [(f"OAS1_000{n}_MR1", "F", 70, 0) for n in (3, 4, 5, 6)])
    expected = {}
    for n, folder in ((3, "."), (4, "a b/c/d/disc 1"), (5, "disc1"), (6, "disc2/deeper")):
        name = f"OAS1_000{n}_MR1"
        expected[name] = write_pair(t88(root / folder, ".", name, n))
    assert images(read_scans(root)) == expected
    assert find_images(root) == sorted(expected.values())


def test_other_files_of_a_session_are_no_input(discs):
    session = discs / "disc1" / "OAS1_0001_MR1"
    name = "OAS1_0001_MR1_mpr_n4_anon"
    for suffix in (".hdr", ".img"):
        touch(
            session / "RAW" / f"OAS1_0001_MR1_mpr-1_anon{suffix}",
            session / "PROCESSED/MPRAGE/SUBJ_111" / f"{name}_sbj_111{suffix}",
            session / T88 / f"{name}_111_t88_gfc{suffix}",
            session / T88 / f"._{name}_111_t88_masked_gfc{suffix}",
            session / "FSL_SEG" / f"{name}_111_t88_masked_gfc_fseg{suffix}",
        )
    touch(session / T88 / f"{name}_111_t88_masked_gfc_tra_90.gif", session / "OAS1_0001_MR1.xml")
    expected = [scan.image for scan in read_scans(discs)]
    assert expected == [t88(discs, "disc1", row[0], 3 + number) for number, row in enumerate(ROWS)]
    assert find_images(discs) == expected
    assert find_images(session) == expected[:1]


def test_sessions_without_image_or_without_row_are_left_out(discs, write_pair):
    shutil.rmtree(discs / "disc1" / "OAS1_0001_MR1")
    write_pair(t88(discs, "disc1", "OAS1_0999_MR1"))
    assert list(images(read_scans(discs))) == ["OAS1_0002_MR1", "OAS1_0002_MR2"]


def test_table_that_is_given_wins_over_those_in_the_folder(discs, tmp_path, write_table):
    other = write_table(tmp_path / "other.csv", [("OAS1_0001_MR1", "M", 33, 3)])
    (scan,) = read_scans(str(discs), table=str(other))
    assert (scan.name, scan.cdr, scan.age) == ("OAS1_0001_MR1", 3, 33)
    assert scan.image == t88(discs, "disc1", "OAS1_0001_MR1", 3)


@pytest.mark.parametrize("kept", ["Oasis_Cross-Sectional.csv", "participants.csv", "only.csv"])
def test_table_is_known_by_its_name_or_by_being_the_only_one(discs, kept):
    (discs / "oasis_cross-sectional.csv").rename(discs / kept)
    (discs / "folder.csv").mkdir()
    if kept != "only.csv":
        (discs / "notes.csv").write_text("a,b\n")
    assert len(read_scans(discs)) == 3


def test_table_alone_gives_scans_without_images(tmp_path, write_table):
    scans = read_scans(write_table(tmp_path / "any name.csv", ROWS))
    assert images(scans) == {name: None for name, *_ in ROWS}


@pytest.mark.parametrize(
    ("files", "plane", "expected"),
    [
        (["sub-01.nii.gz", "sub-02.NII"], "axial", ["sub-01.nii.gz", "sub-02.NII"]),
        (["sub-01.hdr", "sub-01.img", "sub-03.nii", "notes.txt"], "axial", ["sub-01.hdr"]),
        (["axial/sub-01.nii", "coronal/sub-02.nii"], "axial", ["axial/sub-01.nii"]),
        (["axial/sub-01.nii", "coronal/sub-02.nii"], "coronal", ["coronal/sub-02.nii"]),
        (["sub-01.nii", "axial/sub-02.nii"], "axial", ["axial/sub-02.nii"]),
        (["sub-01.nii", "axial/sub-02.nii"], "sagittal", ["sub-01.nii"]),
    ],
    ids=["beside-the-table", "pair", "axial", "coronal", "subfolder-first", "no-such-subfolder"],
)
def test_plain_folder(plain, files, plane, expected):
    touch(*(plain / file for file in files))
    assert [scan.image for scan in read_scans(plain, plane=plane)] == [plain / file for file in expected]


def test_links_are_followed_once(discs, tmp_path, write_pair):
    away = tmp_path / "another disk"
    name = "OAS1_0001_MR1"
    shutil.move(discs / "disc1" / name, away / name)
    (discs / "disc2").symlink_to(away, target_is_directory=True)
    (discs / "disc3").symlink_to(away, target_is_directory=True)  # the same disc again is not a second image
    (discs / "disc1" / "loop").symlink_to(discs, target_is_directory=True)
    (away / "loop").symlink_to(away, target_is_directory=True)
    found = images(read_scans(discs))
    assert list(found) == [row[0] for row in ROWS]
    assert found[name].resolve() == t88(away, ".", name, 3).resolve()


def break_nothing(root):
    pass


def drop_table(root):
    (root / "oasis_cross-sectional.csv").unlink()


def add_tables(root):
    drop_table(root)
    (root / "a.csv").touch()
    (root / "b.xlsx").touch()


def add_second_known_table(root):
    (root / "participants.tsv").touch()


def drop_images(root):
    shutil.rmtree(root / "disc1")


def add_second_image(root):
    touch(t88(root, "disc2", "OAS1_0001_MR1", 6))


def drop_voxels(root):
    t88(root, "disc1", "OAS1_0002_MR1").with_suffix(".img").unlink()


def rename_ids(root):
    (root / "oasis_cross-sectional.csv").write_text("ID,CDR\n1,0\n2,1\n")


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        (drop_table, {}, r"no table in .*discs: put oasis_cross-sectional\.csv .* there, or name one with --table"),
        (add_tables, {}, r"several tables in .*discs \(a\.csv, b\.xlsx\): name one with --table"),
        (add_second_known_table, {}, r"several tables in .*discs \(oasis_cross-sectional\.csv, participants\.tsv\)"),
        (drop_images, {}, r"no images in .*discs: neither OASIS-1's .* nor ID\.nii\.gz"),
        (add_second_image, {}, r"two images for OAS1_0001_MR1: .*_n3_.* and .*_n6_.*: remove one"),
        (drop_voxels, {}, r"OAS1_0002_MR1_mpr_n4_.*\.img is missing beside its \.hdr: copy OAS1_0002_MR1 again"),
        (rename_ids, {}, r"no image in .* named after an ID of the table: the first ID is 1, .*OAS1_0001_MR1_mpr_n3"),
        (break_nothing, {"plane": "transverse"}, "plane must be axial, coronal or sagittal, not 'transverse'"),
        (break_nothing, {"table": "nowhere.csv"}, r"no table at nowhere\.csv: check --table"),
    ],
    ids=[
        "no-table",
        "several-tables",
        "two-known-tables",
        "no-images",
        "two-images",
        "no-img",
        "other-ids",
        "plane",
        "table-missing",
    ],
)
def test_discs_that_do_not_fit_are_refused(discs, refused, change, options, message):
    change(discs)
    with refused(message):
        read_scans(discs, **options)


def test_two_formats_of_one_image_are_refused(plain, refused):
    touch(plain / "sub-01.nii", plain / "sub-01.nii.gz")
    with refused(r"two images for sub-01: .*sub-01\.nii and .*sub-01\.nii\.gz: remove one"):
        read_scans(plain)


@pytest.mark.parametrize("name", ["nowhere", "image.nii"])
def test_what_is_no_folder_is_refused(tmp_path, refused, name):
    (tmp_path / "image.nii").touch()
    with refused(rf"{name} is not a folder: .*--dataset_dir .*monai-cae phantom OUT"):
        read_scans(tmp_path / name)


@pytest.mark.parametrize(
    ("given", "found"),
    [("b.nii", "b.nii"), ("A.NII.GZ", "A.NII.GZ"), ("c.hdr", "c.hdr"), ("c.img", "c.hdr")],
    ids=["nii", "nii.gz", "hdr", "img"],
)
def test_one_image_for_inference(tmp_path, given, found):
    touch(*(tmp_path / name for name in ("b.nii", "A.NII.GZ", "c.hdr", "c.img")))
    assert find_images(str(tmp_path / given)) == [tmp_path / found]


def test_folder_of_images_for_inference(tmp_path, write_pair, noise):
    root = tmp_path / "scans"
    write_pair(root / "b" / "pair.hdr")
    nib.Nifti1Image(noise(), np.eye(4)).to_filename(root / "z.nii.gz")
    nib.Nifti1Image(noise(), np.eye(4)).to_filename(root / "a.nii")
    touch(root / "participants.tsv")
    assert find_images(root) == [root / "a.nii", root / "b" / "pair.hdr", root / "z.nii.gz"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nowhere.nii", r"no image at .*nowhere\.nii: give a volume or a folder with --dataset_dir"),
        ("photo.png", r"photo\.png is not a \.nii, \.nii\.gz or \.hdr/\.img image"),
        ("lonely.img", r"lonely\.hdr is not a \.nii, \.nii\.gz or \.hdr/\.img image"),
        ("empty", r"no \.nii, \.nii\.gz or \.hdr/\.img image in .*empty"),
    ],
    ids=["missing", "picture", "img-without-hdr", "empty-folder"],
)
def test_no_image_for_inference(tmp_path, refused, name, message):
    touch(tmp_path / "photo.png", tmp_path / "lonely.img", tmp_path / "empty" / "notes.txt")
    with refused(message):
        find_images(tmp_path / name)
