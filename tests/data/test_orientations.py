"""Planes are those of the body however a file is stored: every way is compared with nibabel's closest canonical."""

from __future__ import annotations

import itertools

import nibabel as nib
import numpy as np
import pytest
from monai.data import MetaTensor, NibabelReader
from monai.transforms import Compose, EnsureChannelFirstd, LoadImaged

from monai_cae.cli import main
from monai_cae.data import SelectSlice, SelectSliced, SliceExtraction, SliceReader, leakage_demo
from monai_cae.data.images.volumes import find_volume

ALL = ["".join(codes) for order in itertools.permutations(("LR", "PA", "IS")) for codes in itertools.product(*order)]
AXES = {"sagittal": 0, "coronal": 1, "axial": 2}
CANONICAL = np.array([[1.5, 0.2, 0.1, 40], [0.3, 2.0, -0.4, -55.5], [0.05, 0.6, 3.0, 12.25], [0, 0, 0, 1]])


def stored(codes, voxels, affine=CANONICAL, image_class=nib.Nifti1Image):
    """The image as a file of that orientation holds it."""
    image = image_class(voxels, affine)
    wanted = nib.orientations.axcodes2ornt(codes)
    return image.as_reoriented(nib.orientations.ornt_transform(nib.io_orientation(affine), wanted))


def read(path, plane, slice_index=3, **options):
    reader = SliceReader(plane, slice_index, **options)
    return reader.get_data(reader.read(path))


@pytest.mark.parametrize("codes", ALL)
@pytest.mark.parametrize(
    ("name", "image_class"),
    [("a.nii", nib.Nifti1Image), ("a.nii.gz", nib.Nifti1Image), ("a.hdr", nib.Nifti1Pair), ("b.nii", nib.Nifti2Image)],
)
def test_a_slice_is_that_of_the_closest_canonical_volume(tmp_path, noise, codes, name, image_class):
    stored(codes, noise((5, 6, 7)), image_class=image_class).to_filename(tmp_path / name)
    canonical = nib.as_closest_canonical(nib.load(tmp_path / name))
    assert nib.aff2axcodes(nib.load(tmp_path / name).affine) == tuple(codes)
    volume = np.asarray(canonical.dataobj)
    for plane, axis in AXES.items():
        for index in (0, 2, volume.shape[axis] - 1):
            cut = [slice(None)] * 3
            cut[axis] = slice(index, index + 1)
            array, meta = read(tmp_path / name, plane, index + 1)
            assert (array.dtype, array.tobytes()) == (volume.dtype, volume[tuple(cut)].tobytes())
            np.testing.assert_allclose(meta["affine"], canonical.slicer[tuple(cut)].affine, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("codes", ALL)
def test_the_same_slice_comes_from_a_volume_in_memory(tmp_path, noise, codes):
    stored(codes, noise((5, 6, 7)).astype(np.float32)).to_filename(tmp_path / "a.nii")
    canonical = nib.as_closest_canonical(nib.load(tmp_path / "a.nii"))
    for plane, axis in AXES.items():
        steps = [EnsureChannelFirstd("image"), SelectSliced("image", plane, 3)]
        whole, cut = (
            Compose([LoadImaged("image", reader=reader), *steps])({"image": tmp_path / "a.nii"})["image"]
            for reader in (NibabelReader(), SliceReader(plane, 3))
        )
        expected = np.take(np.asarray(canonical.dataobj), 2, axis)
        np.testing.assert_array_equal(whole.numpy(), expected[None])
        np.testing.assert_array_equal(cut.numpy(), expected[None])
        np.testing.assert_allclose(whole.affine, cut.affine, rtol=1e-6, atol=1e-6)
        kept = [other for other in range(3) if other != axis]
        point = np.insert([1.0, 2.0], axis, 2.0)
        assert kept == sorted(kept)
        there = canonical.affine @ [*point, 1]
        np.testing.assert_allclose(whole.affine.numpy() @ [1, 2, 0, 1], there, rtol=1e-5, atol=1e-5)


def test_oblique_volumes_are_turned_to_the_closest_axes(tmp_path, noise):
    angle = np.radians(30)
    turn = np.array([[1, 0, 0], [0, np.cos(angle), -np.sin(angle)], [0, np.sin(angle), np.cos(angle)]])
    affine = np.eye(4)
    affine[:3, :3] = turn @ np.diag([-1, 2, -1.2])
    nib.Nifti1Image(noise((5, 6, 7)), affine).to_filename(tmp_path / "a.nii")
    volume = np.asarray(nib.as_closest_canonical(nib.load(tmp_path / "a.nii")).dataobj)
    assert not np.array_equal(volume, noise((5, 6, 7)))
    for plane, axis in AXES.items():
        np.testing.assert_array_equal(read(tmp_path / "a.nii", plane)[0].squeeze(axis), volume.take(2, axis))


@pytest.mark.parametrize("codes", ["PSR", "LAS", "ASL"])
def test_stored_takes_the_axes_of_the_file(tmp_path, noise, codes):
    image = stored(codes, noise((5, 6, 7)))
    image.to_filename(tmp_path / "a.nii.gz")
    volume = np.asarray(image.dataobj)
    for plane, axis in AXES.items():
        read_as_stored, meta = read(tmp_path / "a.nii.gz", plane, axes="stored")
        np.testing.assert_array_equal(read_as_stored.squeeze(axis), volume.take(2, axis))
        tensor = MetaTensor(volume[None].astype(np.float32), affine=image.affine)
        np.testing.assert_array_equal(SelectSlice(plane, 3, "stored")(tensor), volume.take(2, axis)[None])
        shifted = image.affine[:3, 3] + 2 * image.affine[:3, axis]
        np.testing.assert_allclose(meta["affine"][:3, 3], shifted, rtol=1e-6)


def without_codes(path, noise):
    image = stored("PSR", noise((5, 6, 7)))
    image.set_sform(None, 0)
    image.set_qform(None, 0)
    image.to_filename(path)


def as_analyze(path, noise):
    nib.AnalyzeImage(noise((6, 7, 5)), np.diag([-1, 1, 1, 1])).to_filename(path)


def with_affine(rows):
    def write(path, noise):
        image = nib.Nifti1Image(noise((6, 7, 5)), None)
        image.to_filename(path)
        content = bytearray(path.read_bytes())
        content[254:256] = np.int16(1).tobytes()  # sform_code
        content[280:328] = np.array(rows, np.float32).tobytes()  # srow_x, srow_y, srow_z
        path.write_bytes(content)

    return write


UNRECORDED = {
    "codes": ("a.nii", without_codes),
    "codes-gz": ("a.nii.gz", without_codes),
    "analyze": ("a.hdr", as_analyze),
    "not-finite": ("a.nii", with_affine([[0, -1, 0, np.nan], [1, 0, 0, 0], [0, 0, 1, 0]])),
    "infinite": ("a.nii", with_affine([[0, np.inf, 0, 0], [1, 0, 0, 0], [0, 0, 1, 0]])),
    "singular": ("a.nii", with_affine([[0, -1, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0]])),
    "zero": ("a.nii", with_affine([[0, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]])),
}


@pytest.mark.parametrize(("name", "write"), UNRECORDED.values(), ids=UNRECORDED)
def test_a_file_that_records_no_orientation_is_taken_as_stored(tmp_path, noise, name, write):
    write(tmp_path / name, noise)
    assert find_volume(str(tmp_path / name)).layout.codes == ""
    volume = np.asarray(nib.load(tmp_path / name).dataobj).reshape((6, 7, 5))
    steps = [EnsureChannelFirstd("image"), SelectSliced("image", "axial", 3)]
    for plane, axis in AXES.items():
        np.testing.assert_array_equal(read(tmp_path / name, plane)[0].squeeze(axis), volume.take(2, axis))
    for reader in (SliceReader("axial", 3), NibabelReader()):
        if "a.hdr" not in name or isinstance(reader, SliceReader):
            chain = Compose([LoadImaged("image", reader=reader), *steps])
            np.testing.assert_array_equal(chain({"image": tmp_path / name})["image"][0], volume[..., 2])


def test_an_analyze_volume_in_memory_is_taken_as_stored(tmp_path, noise):
    """Its affine is nibabel's guess, which turns the first axis round."""
    as_analyze(tmp_path / "a.hdr", noise)
    image = nib.load(tmp_path / "a.hdr")
    assert nib.aff2axcodes(image.affine) == ("L", "A", "S")
    reader = NibabelReader()
    _, meta = reader.get_data(reader.read(tmp_path / "a.hdr"))
    tensor = MetaTensor(np.asarray(image.dataobj, np.float32)[None], meta=meta)
    np.testing.assert_array_equal(SelectSlice("axial", 3)(tensor)[0], image.dataobj[..., 2])


def test_a_header_that_was_turned_is_read_anew(tmp_path, noise):
    path = tmp_path / "a.hdr"
    for codes in ("RAS", "LPS", "PSR"):
        stored(codes, noise((6, 6, 6)), np.eye(4), nib.Nifti1Pair).to_filename(path)
        np.testing.assert_array_equal(read(path, "axial")[0][..., 0], noise((6, 6, 6))[..., 2])


@pytest.mark.parametrize("make", [SliceReader, SelectSlice, lambda **options: SelectSliced("image", **options)])
def test_axes_are_one_of_two_words(make, refused):
    with refused("axes must be anatomical or stored, not 'RAS'"):
        make(axes="RAS")


@pytest.fixture
def cohorts(tmp_path, noise):
    """The same ten subjects as BIDS, stored alike and stored in ten ways."""
    table = "participant_id\tage\tCDR\n" + "".join(f"sub-{n:02d}\t{70 + n}\t{0.5 * (n % 2)}\n" for n in range(10))
    for root in ("alike", "mixed"):
        for number in range(10):
            path = tmp_path / root / f"sub-{number:02d}" / "anat" / f"sub-{number:02d}_T1w.nii.gz"
            path.parent.mkdir(parents=True)
            voxels = 500 + noise((20, 24, 22), seed=number) // 200
            voxels[:, :3] = 0
            affine = np.diag([2.0, 2, 2, 1])
            stored("RAS" if root == "alike" else ALL[number * 5 - 1], voxels, affine).to_filename(path)
        (tmp_path / root / "participants.tsv").write_text(table)
    return tmp_path / "alike", tmp_path / "mixed"


def test_a_folder_of_mixed_orientations_is_alike_to_every_command(cohorts, tmp_path, capsys):
    said = {}
    for root in cohorts:
        out = tmp_path / f"out-{root.name}"
        common = ["--slice-index", "11"]
        split = ["--controls", "all", "--test-fraction", "0.4"]
        assert main(["check", str(root), "--out", str(out), *common]) == 0
        assert main(["datalist", str(root), "--out", str(out), *split, *common]) == 0
        assert main(["audit", str(out / "datalist.json"), *common]) == 0
        said[root.name] = capsys.readouterr().out
    mixed = "the scans are stored in 10 orientations ("
    assert mixed in said["mixed"] and mixed not in said["alike"]
    assert "0 suspicious" in said["mixed"] and "turned to one orientation by their affines" in said["mixed"]
    demos = [
        leakage_demo(root, extraction=SliceExtraction("axial", 11), neighbours=2, controls="all") for root in cohorts
    ]
    assert demos[0] == demos[1]


def test_stored_axes_of_a_sagittal_acquisition_are_told(tmp_path, noise, capsys):
    for number in range(3):
        stored("PSR", noise((16, 20, 18), seed=number), np.eye(4)).to_filename(tmp_path / f"{number}.nii")
    assert main(["check", str(tmp_path), "--out", str(tmp_path / "out"), "--slice-index", "5", "--axes", "stored"]) == 0
    assert "stored as PSR 3, and with axes stored the planes are not those of the body" in capsys.readouterr().out
    assert main(["check", str(tmp_path), "--out", str(tmp_path / "out"), "--slice-index", "5"]) == 0
    said = capsys.readouterr().out
    assert "the volumes have 16 x 20 x 18 voxels of 1 mm (stored as PSR)" in said and "axes stored" not in said
