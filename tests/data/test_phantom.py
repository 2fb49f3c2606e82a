import csv
import hashlib
import json
from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest

from monai_cae.data import people, phantom, template
from monai_cae.data.people import Atrophy
from monai_cae.data.phantom import is_synthetic, write_phantom
from monai_cae.errors import MonaiCaeError

pytest.importorskip("nilearn")

SEED = 3
HEADER = "ID,M/F,Hand,Age,Educ,eTIV,nWBV,ASF,Delay,MMSE,CDR,SES"


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    return write_phantom(tmp_path_factory.mktemp("phantom") / "parent" / "cohort", subjects=5, seed=SEED)


@pytest.fixture(scope="module")
def shorter(tmp_path_factory):
    return write_phantom(tmp_path_factory.mktemp("shorter"), subjects=4, seed=SEED)


def rows_of(root):
    with (root / "oasis_cross-sectional.csv").open(encoding="utf-8-sig", newline="") as file:
        return list(csv.DictReader(file))


def images_of(root):
    pattern = "disc*/OAS1_????_MR1/PROCESSED/MPRAGE/T88_111/OAS1_????_MR1_mpr_n?_anon_111_t88_masked_gfc.hdr"
    return sorted(root.glob(pattern))


def digests_of(root):
    files = [file for header in images_of(root) for file in (header, header.with_suffix(".img"))]
    return {str(file.relative_to(root)): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def dark_share(volume):
    plane = volume[:, 16:192, 105]
    return np.mean(plane[plane > 0] < 0.33 * np.percentile(plane[plane > 0], 90))


def test_volumes_have_the_format_of_oasis1(cohort):
    headers = images_of(cohort)
    assert [path.name[:13] for path in headers] == [f"OAS1_{number}_MR1" for number in range(9001, 9006)]
    image = nib.load(headers[0])
    assert (image.shape, image.get_data_dtype().str) == ((176, 208, 176, 1), ">i2")
    assert image.header.endianness == ">"
    assert image.header.get_zooms()[:3] == (1, 1, 1)
    assert bytes(image.header["descrip"]).startswith(b"synthetic phantom")
    assert nib.aff2axcodes(image.affine) == ("L", "A", "S")
    assert {path.with_suffix(".img").stat().st_size for path in headers} == {176 * 208 * 176 * 2}


def test_volumes_are_masked_brains_that_the_crop_holds(cohort):
    volume = np.asarray(nib.load(images_of(cohort)[0]).dataobj)[..., 0]
    assert volume.min() == 0
    assert 0.2 < np.mean(volume > 0) < 0.3
    assert not volume[:, :16].any()
    assert not volume[:, 192:].any()
    assert not volume[[0, -1]].any()
    assert not volume[:, :, [0, -1]].any()
    assert 0.10 < dark_share(volume) < 0.45


def test_table_has_the_header_and_cells_of_oasis1(cohort):
    raw = (cohort / "oasis_cross-sectional.csv").read_bytes()
    assert raw.startswith(b"\xef\xbb\xbf" + HEADER.encode() + b"\r\n")
    rows = rows_of(cohort)
    assert [row["ID"] for row in rows] == [path.name[:13] for path in images_of(cohort)]
    assert {row["Delay"] for row in rows} == {"N/A"}
    assert sum(float(row["CDR"]) > 0 for row in rows) == 2  # of an odd number one more is a control


def test_people_resemble_the_real_table():
    drawn = people.draw_people(400, seed=0)
    rows = [person.row for person in drawn]
    patients = np.array([float(row["CDR"]) > 0 for row in rows])
    assert patients.sum() == 200
    assert len({tuple(pair) for pair in patients.reshape(-1, 2)}) == 2  # in shuffled order
    assert {row["CDR"] for row in rows} == {"0", "0.5", "1", "2"}
    for column, patient_mean, control_mean, tolerance in (
        ("Age", 76.8, 75.6, 2),
        ("nWBV", 0.722, 0.753, 0.01),
        ("MMSE", 24.3, 29.0, 1),
    ):
        values = np.array([float(row[column]) for row in rows])
        assert values[patients].mean() == pytest.approx(patient_mean, abs=tolerance)
        assert values[~patients].mean() == pytest.approx(control_mean, abs=tolerance)
    widening = np.array([person.atrophy.ventricle_mm for person in drawn])
    assert np.median(widening[patients]) > np.percentile(widening[~patients], 90)
    assert np.percentile(widening[patients], 5) < np.percentile(widening[~patients], 90)  # some look healthy
    assert drawn[40].folder.parts[:2] == ("disc2", "OAS1_9041_MR1")


def test_same_seed_gives_the_same_bytes_in_a_cohort_of_any_size(cohort, shorter):
    digests = digests_of(cohort)
    assert digests_of(shorter) == {name: digests[name] for name in sorted(digests)[:8]}
    assert rows_of(shorter) == rows_of(cohort)[:4]


def test_the_cohort_stays_as_it_was(cohort):
    """Results that name a seed stand for brains: the table to the byte, images up to a processor's rounding."""
    table = (cohort / "oasis_cross-sectional.csv").read_bytes().splitlines(keepends=True)
    digest = "d1c2fbe96118ab51622e3a12efe047a77eaf7b717ca42af817e14ed56464af42"
    assert hashlib.sha256(b"".join(table[:5])).hexdigest() == digest
    found = []
    for header in images_of(cohort)[:2]:
        volume = np.asarray(nib.load(header).dataobj)[..., 0]
        found.append((volume[volume > 0].mean(), volume[:, :, 105].mean(), volume[:, :, 105].std()))
    np.testing.assert_allclose(found, [(1247.7147, 691.3670, 842.4735), (1158.4316, 604.7641, 759.3323)], rtol=1e-5)
    assert not (cohort / "truth.csv").exists()


def test_another_seed_gives_another_cohort(cohort):
    first, other = (people.draw_people(5, seed) for seed in (SEED, SEED + 1))
    assert [person.row for person in first] == rows_of(cohort)
    assert [person.row for person in other] != rows_of(cohort)
    assert first[0].generator.random() != other[0].generator.random()


@pytest.mark.parametrize("seed", [0, 1])
def test_atrophy_darkens_slice_106_around_the_ventricles_and_in_all(anatomy, seed):
    default = replace(anatomy, medial=None)
    healthy, ill = (
        phantom._render(default, Atrophy(1.4 + mm, 0.7 + 0.4 * mm, 0.0), np.random.default_rng(seed)).volume
        for mm in (0.0, people.CDR_SEVERITY_MM[0.5])
    )
    assert dark_share(ill) > dark_share(healthy) + 0.02
    assert dark_share(ill[60:116]) > dark_share(healthy[60:116]) + 0.02


def test_marker_says_synthetic(cohort):
    description = json.loads((cohort / "dataset_description.json").read_text())
    assert (description["synthetic"], description["seed"], description["subjects"]) == (True, SEED, 5)
    assert is_synthetic(cohort)


@pytest.mark.parametrize("content", [None, '{"Name": "a BIDS dataset", "BIDSVersion": "1.8.0"}', "[]", "not JSON"])
def test_other_folders_are_not_synthetic(tmp_path, content):
    if content is not None:
        (tmp_path / "dataset_description.json").write_text(content)
    assert not is_synthetic(tmp_path)


def test_global_random_state_is_untouched_and_progress_sees_every_subject(tmp_path, monkeypatch):
    volume = np.zeros((176, 208, 176), dtype=np.int16)
    monkeypatch.setattr(phantom, "_render", lambda *_: phantom._Image(volume, 0.0, 0.0, None))
    seen = []
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    write_phantom(tmp_path / "out", subjects=4, progress=lambda people: [seen.append(p) or p for p in people])
    assert np.array_equal(np.random.get_state()[1], before)  # noqa: NPY002
    assert len(seen) == 4


def test_failed_run_leaves_nothing_behind(tmp_path, monkeypatch):
    def fail(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(phantom, "_render", fail)
    with pytest.raises(KeyboardInterrupt):
        write_phantom(tmp_path / "out", subjects=4)
    assert list(tmp_path.iterdir()) == []


def test_folder_in_use_is_refused(tmp_path):
    (tmp_path / "notes.txt").touch()
    with pytest.raises(MonaiCaeError, match="not an empty folder"):
        write_phantom(tmp_path, subjects=4)
    with pytest.raises(MonaiCaeError, match="not an empty folder"):
        write_phantom(tmp_path / "notes.txt", subjects=4)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_unwritable_folder_is_refused(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(MonaiCaeError, match=r"can't write .*choose another folder"):
        write_phantom(tmp_path / "file" / "out", subjects=4)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"subjects": 3}, "subjects must be 4 to 999, not 3"),
        ({"subjects": 1000}, "subjects must be 4 to 999, not 1000"),
        ({"seed": -1}, "seed must be 0 or greater, not -1"),
    ],
)
def test_numbers_out_of_range_are_refused(tmp_path, arguments, message):
    with pytest.raises(MonaiCaeError, match=message):
        write_phantom(tmp_path / "out", **arguments)


def test_missing_nilearn_is_named(monkeypatch):
    monkeypatch.setattr(template.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MonaiCaeError, match=r"pip install 'monai-cae\[phantom\]'"):
        template.load_icbm152("t1", "phantom")
