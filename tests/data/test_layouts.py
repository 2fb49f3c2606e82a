"""Folders as people have them: OASIS-1's discs, BIDS, CAPS, plain folders, tables, datalists; and what fits none."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from monai_cae.data import Found, Scan, find_images, read_scans
from monai_cae.data.scan import Note
from monai_cae.errors import MonaiCaeError
from monai_cae.prediction.listing import list_scans

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
    first, second, third = (t88(discs, "disc1", row[0], 3 + number) for number, row in enumerate(ROWS))
    expected = [
        Scan("OAS1_0001", "MR1", first, cdr=0, age=74, sex="F", covariates=COVARIATES),
        Scan("OAS1_0002", "MR1", second, cdr=0.5, age=80, sex="M", covariates=COVARIATES),
        Scan("OAS1_0002", "MR2", third, cdr=0.5, age=80, sex="M", covariates=COVARIATES),
    ]
    assert read_scans(discs) == Found("OASIS-1 discs", expected, {})


def test_discs_at_any_depth_below_names_with_spaces_and_umlauts(tmp_path, write_pair, write_table):
    root = tmp_path / "Gehirne – für später" / "日本"
    write_table(root / "oasis_cross-sectional.csv", [(f"OAS1_000{n}_MR1", "F", 70, 0) for n in (3, 4, 5, 6)])
    expected = {}
    for n, folder in ((3, "."), (4, "a b/c/d/disc 1"), (5, "disc1"), (6, "disc2/deeper")):
        name = f"OAS1_000{n}_MR1"
        expected[name] = write_pair(t88(root / folder, ".", name, n))
    assert images(read_scans(root).scans) == expected
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
    expected = [scan.image for scan in read_scans(discs).scans]
    assert expected == [t88(discs, "disc1", row[0], 3 + number) for number, row in enumerate(ROWS)]
    assert find_images(discs) == expected
    assert find_images(session) == expected[:1]


def test_sessions_without_image_or_without_row_are_left_out(discs, write_pair):
    shutil.rmtree(discs / "disc1" / "OAS1_0001_MR1")
    write_pair(t88(discs, "disc1", "OAS1_0999_MR1"))
    found = read_scans(discs, allow_unmatched=True)
    assert list(images(found.scans)) == ["OAS1_0002_MR1", "OAS1_0002_MR2"]
    assert found.left_out == {"rows without an image": 1, "images without a row in the table": 1}


def test_table_that_is_given_wins_over_those_in_the_folder(discs, tmp_path, write_table):
    other = write_table(tmp_path / "other.csv", [("OAS1_0001_MR1", "M", 33, 3)])
    (scan,) = read_scans(str(discs), table=str(other), allow_unmatched=True).scans
    assert (scan.name, scan.cdr, scan.age) == ("OAS1_0001_MR1", 3, 33)
    assert scan.image == t88(discs, "disc1", "OAS1_0001_MR1", 3)


@pytest.mark.parametrize("kept", ["Oasis_Cross-Sectional.csv", "participants.csv", "only.csv"])
def test_table_is_known_by_its_name_or_by_being_the_only_one(discs, kept):
    (discs / "oasis_cross-sectional.csv").rename(discs / kept)
    (discs / "folder.csv").mkdir()
    touch(discs / f"._{kept}", discs / "~$only.xlsx")  # macOS's companion, Excel's lock
    if kept != "only.csv":
        (discs / "notes.csv").write_text("a,b\n")
    assert len(read_scans(discs).scans) == 3


def test_table_alone_gives_scans_without_images(tmp_path, write_table):
    found = read_scans(write_table(tmp_path / "any name.csv", ROWS))
    assert (found.layout, found.left_out) == ("table alone", {})
    assert images(found.scans) == {name: None for name, *_ in ROWS}


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
    found = read_scans(plain, plane=plane, allow_unmatched=True)
    assert [scan.image for scan in found.scans] == [plain / file for file in expected]
    assert found.layout == "plain folder"


def test_plain_folder_counts_what_does_not_meet(plain):
    touch(*(plain / f"sub-{n}.nii" for n in ("02", "03", "04", "05")), plain / "._sub-02.nii")
    assert read_scans(plain, allow_unmatched=True).left_out == {
        "rows without an image": 1,
        "images without a row in the table": 3,
    }


def test_the_same_session_in_all_rows_need_not_be_in_the_images_names(plain):
    touch(plain / "7.nii", plain / "8.nii")
    (plain / "participants.tsv").write_text("ID\tvisit\n7\tbaseline\n8\tbaseline\n")
    found = read_scans(plain)
    assert images(found.scans) == {"7": plain / "7.nii", "8": plain / "8.nii"}
    assert [note.text for note in found.notes] == [
        "no image is named after the session, the same in all rows: it is passed over"
    ]


@pytest.mark.parametrize("header", ["image", "Path", "FILENAME"])
def test_plain_folder_whose_table_names_the_images(tmp_path, header):
    root, away = tmp_path / "plain", tmp_path / "another disk" / "c.nii"
    touch(root / "a" / "one.nii", root / "two.hdr", root / "two.img", away, root / "p4.nii", root / "nobody.nii")
    lines = ["p1;a/one.nii", "p2;two.img", f"p3;{away}", "p4;n/a"]
    (root / "t.csv").write_text("\n".join([f"ID;{header}", *lines]))
    found = read_scans(root, allow_outside=True)
    expected = [root / "a" / "one.nii", root / "two.hdr", away, root / "p4.nii"]
    assert [scan.image for scan in found.scans] == expected
    assert (found.layout, found.left_out) == ("plain folder", {"images without a row in the table": 1})
    guessed = "1 rows in which the table names no image matched to images named after their ID"
    assert Note(guessed, ("p4 -> p4.nii",)) in found.notes


def test_columns_reach_the_table(tmp_path):
    touch(tmp_path / "one.nii", tmp_path / "1.nii", tmp_path / "7.nii")
    (tmp_path / "t.csv").write_text("ID,RID,file,scan\n1,7,1.nii,one.nii\n")
    assert images(read_scans(tmp_path).scans) == {"1": tmp_path / "1.nii"}
    columns = {"subject": "RID", "image": "scan"}
    assert images(read_scans(tmp_path, columns=columns).scans) == {"7": tmp_path / "one.nii"}
    assert [scan.subject for scan in read_scans(tmp_path / "t.csv", columns=columns).scans] == ["7"]


@pytest.mark.parametrize(
    ("name", "found"),
    [("gone.nii", "gone.nii"), ("folder", "folder"), ("b.img", "b.hdr")],
    ids=["relative", "folder", "no-img"],
)
def test_image_that_the_table_names_in_vain_is_left_to_the_check_of_all_scans(tmp_path, name, found):
    root = tmp_path / "plain"
    touch(root / "a.nii", root / "b.hdr", root / "folder" / "x.nii")
    (root / "t.csv").write_text(f"ID,image\na,a.nii\nb,{name}\n")
    assert images(read_scans(root).scans) == {"a": root / "a.nii", "b": root / found}


def test_images_that_the_table_names_by_way_of_other_folders_have_a_row(plain):
    touch(*(plain / f"{n}.nii" for n in range(4)))
    (plain / "participants.tsv").write_text("".join(["ID\tpath\n", *(f"{n}\t../plain/{n}.nii\n" for n in range(4))]))
    assert read_scans(plain).left_out == {}


@pytest.mark.fault("table: an image column that leads outside the folder", "refused in one line with the row")
@pytest.mark.parametrize("name", ["/nowhere/gone.nii", "x/../../gone.nii"], ids=["absolute", "upwards"])
def test_image_that_the_table_names_elsewhere_is_refused_unless_allowed(tmp_path, refused, name):
    root = tmp_path / "plain"
    touch(root / "a.nii", root / "b.hdr", root / "folder" / "x.nii")
    (root / "t.csv").write_text(f"ID,image\na,a.nii\nb,{name}\n")
    with refused(rf"^the table's row of b names '{name}', outside .*--allow_outside true"):
        read_scans(root)
    assert images(read_scans(root, allow_outside=True).scans)["b"] == root / name


@pytest.mark.parametrize("second", ["a.nii", "./folder/../a.nii", "link.nii"])
def test_one_image_for_two_subjects_is_refused(plain, refused, second):
    touch(plain / "a.nii", plain / "folder" / "x.nii")
    (plain / "link.nii").symlink_to(plain / "a.nii")
    (plain / "participants.tsv").write_text(f"participant_id\timage\np1\ta.nii\np2\t{second}\n")
    with refused("p1 and p2 share one image, .*: correct the table"):
        read_scans(plain)


def bids(root, *images):
    touch(*(root / subject / session / "anat" / f"{name}_T1w.nii.gz" for subject, session, name in images))
    return root


def at(root, subject, session, name):
    return root / subject / session / "anat" / f"{name}_T1w.nii.gz"


@pytest.mark.parametrize("prefix", ["sub-", ""])
def test_bids_without_sessions(tmp_path, prefix):
    root = bids(tmp_path, ("sub-01", "", "sub-01"), ("sub-02", "", "sub-02"), ("sub-09", "", "sub-09"))
    touch(root / "sub-01" / "anat" / "sub-01_T2w.nii.gz", root / "sub-01" / "anat" / "sub-01_T1w.json")
    touch(root / "sub-02" / "func" / "sub-02_T1w.nii.gz", root / "dataset_description.json", root / "code" / "a.csv")
    touch(root / "sub-01" / "anat" / "._sub-01_T1w.nii.gz", root / "derivatives" / "x" / "sub-01_T1w.nii.gz")
    rows = [f"{prefix}01\t0\t70", f"{prefix}02\t1\t71", f"{prefix}03\t1\t72"]
    (root / "participants.tsv").write_text("\n".join(["participant_id\tCDR\tage", *rows]))
    expected = [
        Scan(f"{prefix}01", image=at(root, "sub-01", "", "sub-01"), cdr=0, age=70),
        Scan(f"{prefix}02", image=at(root, "sub-02", "", "sub-02"), cdr=1, age=71),
    ]
    assert read_scans(root, allow_unmatched=True) == Found(
        "BIDS", expected, {"rows without an image": 1, "images without a row in the table": 1}
    )


def test_bids_with_sessions_gives_a_row_to_each(tmp_path):
    root = bids(tmp_path, ("sub-01", "ses-a", "sub-01_ses-a"), ("sub-01", "ses-b", "sub-01_ses-b"))
    bids(root, ("sub-02", "ses-a", "sub-02_ses-a"), ("sub-03", "", "sub-03"))
    (root / "sub-02" / "ses-pet").mkdir()
    (root / "participants.tsv").write_text("participant_id\tCDR\nsub-01\t0\nsub-02\t1\nsub-03\t2\n")
    found = read_scans(root, allow_unmatched=True)
    assert images(found.scans) == {
        "sub-01_ses-a": at(root, "sub-01", "ses-a", "sub-01_ses-a"),
        "sub-01_ses-b": at(root, "sub-01", "ses-b", "sub-01_ses-b"),
        "sub-02_ses-a": at(root, "sub-02", "ses-a", "sub-02_ses-a"),
        "sub-03": at(root, "sub-03", "", "sub-03"),
    }
    assert [scan.cdr for scan in found.scans] == [0, 0, 1, 2]
    assert [scan.subject for scan in found.scans] == ["sub-01", "sub-01", "sub-02", "sub-03"]
    assert found.left_out == {"rows without an image": 1}


@pytest.mark.parametrize("prefix", ["ses-", ""])
def test_bids_table_of_sessions_comes_before_that_of_participants(tmp_path, prefix):
    sessions = [(f"sub-0{n}", f"ses-{s}", f"sub-0{n}_ses-{s}") for n, s in ((1, "a"), (1, "b"), (1, "c"), (2, "a"))]
    root = bids(tmp_path, *sessions)
    (root / "participants.tsv").write_text(
        "participant_id\tCDR\tage\tsex\tMMSE\nsub-01\t0\t70\tF\t30\nsub-02\t2\t80\tM\t20\n"
    )
    (root / "sub-01" / "sub-01_sessions.tsv").write_text(
        f"session_id\tcdr\tage\tdx\n{prefix}a\t0\t71\tCN\n{prefix}b\t0.5\t73\tMCI\n{prefix}d\t1\t75\tAD\n"
    )
    found = read_scans(root, allow_unmatched=True)
    assert found.scans == [
        Scan("sub-01", "ses-a", at(root, *sessions[0]), cdr=0, age=71, sex="F", covariates={"MMSE": 30}),
        Scan("sub-01", "ses-b", at(root, *sessions[1]), cdr=0.5, age=73, sex="F", covariates={"MMSE": 30}),
        Scan("sub-02", "ses-a", at(root, *sessions[3]), cdr=2, age=80, sex="M", covariates={"MMSE": 20}),
    ]
    rows = [{name: scan.row.get(name) for name in ("CDR", "age", "sex", "dx", "cdr")} for scan in found.scans]
    assert rows == [
        {"CDR": "0", "age": "71", "sex": "F", "dx": "CN", "cdr": None},
        {"CDR": "0.5", "age": "73", "sex": "F", "dx": "MCI", "cdr": None},
        {"CDR": "2", "age": "80", "sex": "M", "dx": None, "cdr": None},
    ]
    assert found.left_out == {"rows without an image": 1, "images without a row in the table": 1}


def test_bids_blank_in_the_table_of_sessions_leaves_what_participants_says(tmp_path):
    root = bids(tmp_path, ("sub-01", "ses-a", "sub-01_ses-a"))
    (root / "participants.tsv").write_text("participant_id\tCDR\tage\tyears\nsub-01\t0.5\t70\t60\n")
    (root / "sub-01" / "sub-01_sessions.tsv").write_text("session_id\tCDR\tage\nses-a\tn/a\tn/a\n")
    (scan,) = read_scans(root).scans
    assert (scan.cdr, scan.row["CDR"], scan.age) == (0.5, "0.5", 70)
    (scan,) = read_scans(root, columns={"age": "years"}).scans  # a column that only participants.tsv has
    assert scan.age == 60


def test_bids_takes_the_last_of_several_runs_and_counts_the_rest(tmp_path):
    runs = [("sub-01", "ses-a", f"sub-01_ses-a_run-{n}") for n in (3, 1, 2)]
    root = bids(tmp_path, *runs, ("sub-02", "ses-a", "sub-02_ses-a_run-1"), ("sub-02", "ses-a", "sub-02_ses-a_run-2"))
    (root / "participants.tsv").write_text("participant_id\nsub-01\nsub-02\n")
    found = read_scans(root)
    assert images(found.scans) == {
        "sub-01_ses-a": at(root, *runs[0]),
        "sub-02_ses-a": at(root, "sub-02", "ses-a", "sub-02_ses-a_run-2"),
    }
    assert found.left_out == {"further images of a session": 3}


def t1_linear(root, subject, session, crop="_desc-Crop"):
    name = f"{subject}_{session}_space-MNI152NLin2009cSym{crop}_res-1x1x1_T1w.nii.gz"
    return root / "subjects" / subject / session / "t1_linear" / name


@pytest.mark.parametrize("whole_only", [False, True], ids=["cropped", "whole"])
def test_caps(tmp_path, whole_only):
    root, table = tmp_path / "caps", tmp_path / "merged.tsv"
    sessions = [("sub-1", "ses-M000"), ("sub-1", "ses-M012"), ("sub-2", "ses-M000")]
    crops = [""] if whole_only else ["", "_desc-Crop"]
    touch(*(t1_linear(root, *session, crop) for session in sessions for crop in crops))
    touch(root / "subjects/sub-1/ses-M000/t1_linear/sub-1_ses-M000_space-MNI152NLin2009cSym_res-1x1x1_affine.mat")
    touch(root / "subjects/sub-1/ses-M000/t1/spm/sub-1_ses-M000_T1w.nii.gz")
    table.write_text("participant_id\tsession_id\tCDR\nsub-1\tses-M000\t0\nsub-1\tses-M012\t0.5\nsub-3\tses-M000\t1\n")
    found = read_scans(root, table=table, allow_unmatched=True)
    assert found.layout == "Clinica CAPS"
    assert found.scans == [
        Scan("sub-1", "ses-M000", t1_linear(root, *sessions[0], crops[-1]), cdr=0),
        Scan("sub-1", "ses-M012", t1_linear(root, *sessions[1], crops[-1]), cdr=0.5),
    ]
    assert found.left_out == {"rows without an image": 1, "images without a row in the table": 1}


def test_caps_without_a_table_asks_for_one(tmp_path, refused):
    touch(t1_linear(tmp_path, "sub-1", "ses-M000"))
    with refused("no table in .* name one with --table"):
        read_scans(tmp_path)


@pytest.mark.parametrize(
    ("folders", "named"),
    [
        (["disc1", "sub-01/anat"], "OASIS-1 discs and BIDS"),
        (["OAS1_0001_MR1", "subjects/sub-1/ses-1/t1_linear"], "OASIS-1 discs and Clinica CAPS"),
        (["sub-01", "subjects/sub-1/ses-1/t1_linear"], "BIDS and Clinica CAPS"),
    ],
)
def test_two_layouts_in_one_folder_are_refused(tmp_path, refused, folders, named):
    for folder in folders:
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "participants.tsv").write_text("participant_id\nsub-01\n")
    with refused(f"mixes {named}: give each its own folder"):
        read_scans(tmp_path)


def test_datalist_is_a_cohort(tmp_path):
    items = [
        {"image": "a.nii.gz", "label": 1, "subject": "p1", "session": "s", "cdr": 0.5, "age": 70.0, "sex": "F"},
        {"image": "b/b.nii.gz", "label": 0, "subject": "p2"},
        {"image": "/away/c.nii.gz", "label": 0, "subject": 3},
    ]
    path = tmp_path / "list.json"
    path.write_text(json.dumps({"training": items[:1], "validation": items[1:2], "test": items[2:], "numTest": 1}))
    with pytest.raises(MonaiCaeError, match=r"list\.json: the item of 3 names '/away/c\.nii\.gz', outside "):
        read_scans(path)
    found = read_scans(path, allow_outside=True)
    assert found.layout == "MONAI datalist"
    assert found.scans == [
        Scan("p1", "s", tmp_path / "a.nii.gz", cdr=0.5, age=70, sex="F"),
        Scan("p2", "", tmp_path / "b/b.nii.gz"),
        Scan("3", "", type(tmp_path)("/away/c.nii.gz")),
    ]
    assert [scan.row["label"] for scan in found.scans] == ["1", "0", "0"]


def test_datalist_of_a_run_knows_where_its_images_are(tmp_path):
    (tmp_path / "run").mkdir()
    path = tmp_path / "run" / "datalist.json"
    items = [{"image": "a.nii.gz", "label": 1, "subject": "p1"}]
    path.write_text(json.dumps({"training": items, "made_from": {"dataset_dir": str(tmp_path / "data")}}))
    assert [scan.image for scan in read_scans(path).scans] == [tmp_path / "data" / "a.nii.gz"]


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        "{}",
        '{"training": []}',
        '{"training": 3}',
        '{"training": ["a.nii"]}',
        '{"test": [{"image": "a.nii"}]}',
    ]
    + [
        json.dumps({"training": [{key: "x" for key in ("image", "label", "subject") if key != missing}]})
        for missing in ("image", "label", "subject")
    ],
)
def test_json_that_is_no_datalist_is_refused(tmp_path, refused, text):
    (tmp_path / "list.json").write_text(text)
    with refused(
        r"list\.json(: an item)? (is not a (usable )?datalist|is not readable JSON|has no image or no subject)"
    ):
        read_scans(tmp_path / "list.json")


@pytest.fixture
def unreadable(monkeypatch):
    """unreadable(folder): listing it fails, as it does without permission (root may read everything)."""

    def refuse(folder):
        scandir, listdir = os.scandir, os.listdir

        def guarded(function):
            def call(path="."):
                if os.fspath(path) == str(folder):
                    raise PermissionError(13, "Permission denied", str(folder))
                return function(path)

            return call

        monkeypatch.setattr(os, "scandir", guarded(scandir))
        monkeypatch.setattr(os, "listdir", guarded(listdir))

    return refuse


@pytest.mark.parametrize("folder", [".", "disc1", f"disc1/OAS1_0002_MR1/{T88}"])
def test_unreadable_folder_of_discs_is_refused(discs, refused, unreadable, folder):
    unreadable(discs / folder)
    with refused(r"can't read .*discs.* \(Permission denied\): check its permissions"):
        read_scans(discs)


@pytest.mark.parametrize("folder", [".", "sub-02", "sub-02/ses-a/anat"])  # anat is asked for by name
def test_unreadable_folder_of_bids_is_refused(tmp_path, refused, unreadable, folder):
    root = bids(tmp_path, ("sub-01", "ses-a", "sub-01_ses-a"), ("sub-02", "ses-a", "sub-02_ses-a"))
    (root / "participants.tsv").write_text("participant_id\nsub-01\nsub-02\n")
    unreadable(root / folder)
    with refused(r"can't read .* \(Permission denied\): check its permissions"):
        read_scans(root)


def test_unreadable_plain_folder_is_refused(plain, refused, unreadable):
    touch(plain / "axial" / "sub-01.nii")
    unreadable(plain / "axial")
    with refused(r"can't read .*axial \(Permission denied\)"):
        read_scans(plain)
    with refused(r"can't read .*axial \(Permission denied\)"):
        find_images(plain)


def test_links_are_followed_once(discs, tmp_path, write_pair):
    away = tmp_path / "another disk"
    name = "OAS1_0001_MR1"
    shutil.move(discs / "disc1" / name, away / name)
    (discs / "disc2").symlink_to(away, target_is_directory=True)
    (discs / "disc3").symlink_to(away, target_is_directory=True)  # the same disc again is not a second image
    (discs / "disc1" / "loop").symlink_to(discs, target_is_directory=True)
    (away / "loop").symlink_to(away, target_is_directory=True)
    found = images(read_scans(discs).scans)
    assert list(found) == [row[0] for row in ROWS]
    assert found[name].resolve() == t88(away, ".", name, 3).resolve()


def test_hidden_files_are_no_images(tmp_path, write_pair):
    """macOS leaves "._NAME" beside NAME on foreign disks."""
    for name in ("a.hdr", "._a.hdr", "sub/b.hdr", "sub/._b.hdr"):
        write_pair(tmp_path / name)
    expected = [tmp_path / "a.hdr", tmp_path / "sub" / "b.hdr"]
    assert find_images(tmp_path) == expected
    for given in (str(tmp_path), f"{tmp_path}/**/*.hdr", f"local://{tmp_path}"):
        assert [Path(one.path.removeprefix("file://")) for one in list_scans(given)] == expected
    with pytest.raises(MonaiCaeError, match="image in"):
        list(list_scans(f"{tmp_path}/.*.hdr"))


@pytest.mark.fault("folder: links that form a loop", "each file is found once")
def test_links_that_lead_round_in_a_circle_end(tmp_path, discs):
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "up").symlink_to(tmp_path / "a", target_is_directory=True)
    (tmp_path / "a" / "self").symlink_to(tmp_path / "a" / "self")
    (discs / "disc0").symlink_to(tmp_path / "a", target_is_directory=True)
    (discs / "disc1" / "broken").symlink_to(tmp_path / "gone")
    assert len(read_scans(discs).scans) == 3
    assert len(find_images(discs)) == 3


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


def test_of_a_derivative_the_prepared_images_in_a_template_are_read(tmp_path):
    kinds = ("desc-preproc", "space-MNI_desc-preproc", "space-MNI_desc-other")
    root = bids(tmp_path, *((f"sub-{one}", "", f"sub-{one}_{kind}") for one in "ab" for kind in kinds))
    (root / "dataset_description.json").write_text('{"DatasetType": "derivative"}')
    (root / "participants.tsv").write_text("participant_id\tage\nsub-a\t70\nsub-b\t71\n")
    found = read_scans(root)
    assert found.layout == "BIDS derivative"
    assert [scan.image for scan in found.scans] == [
        at(root, f"sub-{one}", "", f"sub-{one}_space-MNI_desc-preproc") for one in "ab"
    ]
