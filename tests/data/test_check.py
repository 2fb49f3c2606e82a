"""A clean cohort is clean, and each defect planted in it is found, in that scan alone, and named."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from monai_cae.data import SliceExtraction
from monai_cae.data.images.check import ScanCheck, check_cohort

AFFINE = np.eye(4)
SHAPE = (36, 44, 5)
INDEX = 3  # 1-based, the slice that is looked at
WRONG = "s05"


def brain(seed: int) -> np.ndarray:
    """Symmetric left to right; a bright front, a dark spot behind, darker upwards, and noise."""
    x, y, z = np.meshgrid(*(np.arange(size) for size in SHAPE), indexing="ij")
    inside = ((x - 17.5) / 14) ** 2 + ((y - 21.5) / 19) ** 2 < 1
    tissue = 600.0 + 10 * (y - 22) - 20 * z
    tissue[((x - 17.5) / 6) ** 2 + ((y - 12) / 5) ** 2 < 1] = 150
    noise = np.random.default_rng(seed).normal(0, 25, SHAPE)
    return np.where(inside, (tissue + noise).round(), 0).astype(np.int16)


def save(path: Path, volume: np.ndarray, affine: np.ndarray = AFFINE) -> Path:
    nib.save(nib.Nifti1Image(volume, affine), path)
    return path


@pytest.fixture
def images(tmp_path: Path) -> list[tuple[str, Path]]:
    return [(f"s{i:02d}", save(tmp_path / f"s{i:02d}.nii", brain(i))) for i in range(12)]


def check(images: list[tuple[str, Path]], **options: Any) -> Any:
    seen = {name: options.pop(name) for name in ("plane", "slice_index", "axes") if name in options}
    return check_cohort(images, extraction=SliceExtraction(**{"slice_index": INDEX, **seen}), **options)


def plant(images: list[tuple[str, Path]], change: Callable[[np.ndarray], np.ndarray], **options: Any) -> ScanCheck:
    """Change the scan WRONG, and return what is found; nobody else may be suspected."""
    path = dict(images)[WRONG]
    save(path, np.ascontiguousarray(change(np.asarray(nib.load(path).dataobj).copy())), **options)
    found = check(images).suspicious
    assert [scan.name for scan in found] == [WRONG]
    return found[0]


def test_a_clean_cohort_is_clean(images):
    seen = []
    result = check(images, progress=lambda pairs: (seen.append(pair[0]) or pair for pair in pairs))
    assert result.suspicious == [] and seen == [name for name, _ in images]
    assert (result.shape, result.spacing) == (SHAPE, (1.0, 1.0, 1.0))
    assert [scan.name for scan in result.scans] == seen
    assert np.array_equal(result.scans[4].views[0].pixels, brain(4)[:, :, INDEX - 1])
    assert result.notes == (
        "left and right can't be told from one axial slice: not judged",
        "the volumes have 36 x 44 x 5 voxels of 1 mm (stored as RAS), the template's 176 x 208 x 176 voxels of 1 mm; "
        "axial slice 3 lies +0 mm from the middle, not -85.5 mm: register the scans to a template, or choose another "
        "--slice_index",
    )
    assert json.loads(json.dumps(result.to_dict()))["suspicious"] == []


def poke(value: float) -> Callable[[np.ndarray], np.ndarray]:
    def change(volume: np.ndarray) -> np.ndarray:
        volume = volume.astype(np.float64)
        volume[18, 30, INDEX - 1] = value
        return volume

    return change


def on_a_square(turns: int) -> Callable[[np.ndarray], np.ndarray]:
    """Turn the brain and keep the volume's shape, as the brain is small enough for."""

    def change(volume: np.ndarray) -> np.ndarray:
        return np.rot90(np.pad(volume, ((4, 4), (0, 0), (0, 0))), turns)[4:-4]

    return change


@pytest.mark.parametrize(
    ("label", "change"),
    [
        ("upside down", lambda v: v[:, ::-1]),
        ("upside down", lambda v: v[::-1, ::-1]),
        ("turned anticlockwise", on_a_square(1)),
        ("turned clockwise", on_a_square(3)),
        ("different shape, turned clockwise", lambda v: v.swapaxes(0, 1)),
        ("different shape", lambda v: v[:, :, :-1]),
        ("brightness", lambda v: v * 2),
        ("brightness", lambda v: v // 2),
        ("bright spot", poke(3000)),
        ("no usable slice", poke(np.nan)),
        ("no usable slice", lambda v: np.where(np.arange(SHAPE[2]) == INDEX - 1, 0, v).astype(np.int16)),
        (
            "unlike the others",
            lambda v: np.where(v > 0, np.random.default_rng(0).integers(400, 800, SHAPE), 0).astype("i2"),
        ),
        ("brightness, bright spot, unlike the others", poke(1e14)),
        ("no usable slice", poke(1e300)),  # as a wrong byte order gives
        ("non-zero share", lambda v: np.where(np.arange(44)[:, None] < 20, 0, v).astype(np.int16)),
    ],
)
def test_pixels_that_are_wrong(images, label, change):
    assert plant(images, change).label == label


def test_something_else_in_the_outline_of_a_turned_brain_is_not_called_turned(images):
    def change(volume: np.ndarray) -> np.ndarray:
        noise = np.random.default_rng(0).integers(400, 800, SHAPE)
        return on_a_square(1)(np.where(volume > 0, noise, 0).astype(np.int16))

    assert plant(images, change).label == "unlike the others"


def test_a_slice_that_hardly_fits_better_upside_down_is_not_called_so(images):
    mixed = plant(images, lambda volume: (volume * 0.465 + volume[:, ::-1] * 0.535).astype(np.int16))
    assert mixed.label == "unlike the others"


def test_what_is_usual_depends_on_the_cohort(images):
    """Brightness doubles or halves within it: three times as bright is nothing, a hundred times is."""
    for number, (_, path) in enumerate(images):
        save(path, (brain(number) * 2.0 ** np.linspace(-1, 1, 12)[number]).astype(np.float32))
    for factor, labels in ((3, []), (100, ["brightness"])):
        save(dict(images)[WRONG], (brain(5) * float(factor)).astype(np.float32))
        assert [scan.label for scan in check(images).suspicious] == labels


def test_a_better_fit_than_usual_is_no_problem(images):
    for number, (_, path) in enumerate(images):
        noise = np.random.default_rng(number).normal(0, 0 if number == 5 else 500, SHAPE)
        save(path, np.where(brain(0) > 0, brain(0) + noise, 0).astype(np.float32))
    assert "unlike" not in str(check(images).suspicious)


@pytest.mark.parametrize(
    "change",
    [
        lambda v: v[::-1],
        lambda v: (v * 1.2).astype(np.int16),
        poke(900),
    ],
)
def test_what_cannot_be_told_or_does_no_harm_is_not_flagged(images, change):
    path = dict(images)[WRONG]
    save(path, np.ascontiguousarray(change(brain(5))))
    assert check(images).suspicious == []


@pytest.mark.parametrize(
    ("problem", "affine"),
    [
        ("different voxel size: 1 x 1 x 1.5 mm, usually 1 x 1 x 1 mm", np.diag([1.0, 1, 1.5, 1])),
        ("no orientation: the header records none, though most others do: it is taken as stored", None),
        # 3, 4 and 12 mm along the axes are 13 mm
        (
            "different place: the header puts the volume up to 13 mm from where the others lie (limit 0.1 mm)",
            AFFINE + np.outer([3, 4, 12, 0], [0, 0, 0, 1]),
        ),
    ],
)
def test_headers_that_differ(images, problem, affine):
    assert plant(images, lambda volume: volume, affine=affine).problems == [problem]


def test_a_header_whose_affine_is_not_finite(images):
    path = dict(images)[WRONG]
    raw = bytearray(path.read_bytes())
    raw[280:284] = np.float32(np.nan).tobytes()  # srow_x[0]
    path.write_bytes(raw)
    assert [(s.name, s.label) for s in check(images).suspicious] == [(WRONG, "no orientation")]


def test_places_are_not_compared_where_every_scan_has_its_own(images):
    for number, (_, path) in enumerate(images):
        save(path, brain(number), AFFINE + np.outer([number, 0, 0, 0], [0, 0, 0, 1]))
    result = check(images)
    assert result.suspicious == [] and "most headers place the volume differently: not compared" in result.notes


def test_broken_files_are_collected(images, tmp_path):
    paths = dict(images)
    paths["s01"].unlink()
    paths["s02"].write_bytes(paths["s02"].read_bytes()[:-100])
    paths["s03"].write_bytes(b"not an image")
    short = save(tmp_path / "short.nii.gz", brain(20))
    short.write_bytes(short.read_bytes()[:3000])
    result = check([*images, ("s12", short)])
    labels = {scan.name: scan.label for scan in result.suspicious}
    assert labels == {"s01": "not readable", "s02": "not readable", "s03": "not readable", "s12": "no usable slice"}
    texts = [scan.problems[0] for scan in result.suspicious]
    for text, words in zip(texts, ("no image at", "truncated", "not a readable image", "broken"), strict=True):
        assert words in text and "\n" not in text
    assert all(not scan.views for scan in result.suspicious)
    assert result.to_dict()["suspicious"][0]["path"] == str(paths["s01"])


def test_a_slice_outside_and_one_cut_off(images):
    path = dict(images)[WRONG]
    save(path, brain(5)[:, :, : INDEX - 1])
    (scan,) = check(images).suspicious
    assert scan.label == "no usable slice, different shape" and "its axial slices are 1 to 2" in scan.problems[0]
    assert len(check(images, slice_index=99).suspicious) == 12


def test_the_same_slice_under_two_names_names_the_other(images):
    paths = dict(images)
    paths["s07"].write_bytes(paths["s05"].read_bytes())
    found = {scan.name: scan.problems for scan in check(images).suspicious}
    assert found == {
        "s05": ["same slice twice: every pixel equals that of s07"],
        "s07": ["same slice twice: every pixel equals that of s05"],
    }


def test_messages_say_what_was_measured_and_what_is_usual(images):
    factor = 3
    mean, high = plant(images, lambda volume: volume * factor).problems
    pixels = [brain(i)[:, :, INDEX - 1] for i in range(12)]
    means = [float(p[p > 0].mean()) * (factor if i == 5 else 1) for i, p in enumerate(pixels)]
    # the robust spread of this cohort is small, so that the limit is the factor 1.5 either way
    usual = float(np.median(means))
    assert mean == (
        f"brightness: mean of the non-zero pixels {means[5]:.3g}, usually {usual:.3g} "
        f"(limit {usual / 1.5:.3g} to {usual * 1.5:.3g})"
    )
    assert high.startswith("brightness: 99th percentile")


def test_five_of_twelve_upside_down_do_not_hide_each_other(tmp_path):
    """Their share blurs the first median slice; the second is of those alone that lie as usual."""
    x, y = np.mgrid[:36, :44]
    tissue = np.where(((x - 17.5) / 14) ** 2 + ((y - 21.5) / 19) ** 2 < 1, 600 + 8 * (y - 22), 0)
    named = []
    for number in range(12):
        image = np.where(tissue > 0, tissue + np.random.default_rng(number).normal(0, 100, tissue.shape), 0)
        image = np.ascontiguousarray(image[:, ::-1]) if number < 5 else image
        named.append((f"s{number:02d}", save(tmp_path / f"s{number:02d}.nii", image[..., None])))
    found = check(named).suspicious
    assert [(scan.name, scan.label) for scan in found] == [(f"s{number:02d}", "upside down") for number in range(5)]


@pytest.mark.parametrize(
    ("label", "turn"),
    [
        ("mirrored", lambda image: image[::-1]),
        ("upside down", lambda image: image[:, ::-1]),
        ("turned by 180 degrees", lambda image: image[::-1, ::-1]),
        ("transposed", lambda image: image.T),
        ("turned anticlockwise", lambda image: np.rot90(image)),  # the first axis points right, the second up
        ("turned clockwise", lambda image: np.rot90(image, 3)),
        ("transposed and turned by 180 degrees", lambda image: image.T[::-1, ::-1]),
    ],
)
def test_a_sagittal_slice_tells_front_from_back(tmp_path, label, turn):
    front, up = np.mgrid[:40, :40]
    named = []
    for number in range(10):
        image = 500 + 20 * front - 600 * ((front - 26) ** 2 + (up - 10) ** 2 < 9)
        image = np.where((front - 20) ** 2 + (up - 20) ** 2 < 300, image, 0)
        image = (image + np.random.default_rng(number).normal(0, 20, image.shape) * (image > 0)).astype(np.int16)
        image = np.ascontiguousarray(turn(image)) if number == 4 else image
        named.append((f"s{number}", save(tmp_path / f"s{number}.nii", image[None])))
    assert [(scan.name, scan.label) for scan in check(named, plane="sagittal").suspicious] == [("s4", label)]


def test_few_slices_are_not_judged_but_their_headers_are(images):
    few = images[:4]
    save(few[1][1], brain(1)[:, ::-1] * 5, np.diag([-1.0, 1, 1, 1]))
    result = check(few, axes="stored")
    assert [scan.problems for scan in result.suspicious] == [
        ["different axis order: the header says LAS, usually RAS"],
    ]
    assert result.notes[0] == "4 slices of one size are too few to tell what is usual: only headers were compared"
    assert (
        result.notes[-1]
        == "the scans are stored in 2 orientations (RAS 3, LAS 1), and not turned: give --axes anatomical"
    )


def test_a_symmetric_cohort_says_that_it_cannot_tell(tmp_path):
    x, y = np.mgrid[:24, :24] - 11.5
    disc = np.where(x**2 + y**2 < 100, 900 - 5 * (x**2 + y**2), 0)[..., None]
    noise = np.random.default_rng(0)
    named = [(f"s{i}", save(tmp_path / f"s{i}.nii", disc + noise.normal(0, 50, disc.shape))) for i in range(10)]
    result = check(named)
    assert result.suspicious == []
    assert "the slices are too symmetric to tell whether one is upside down: not judged" in result.notes


def test_large_slices_are_averaged(tmp_path):
    volume = np.arange(210 * 208, dtype=np.float32).reshape(210, 208, 1)
    (scan,) = check([("a", save(tmp_path / "a.nii", volume))]).scans
    assert scan.views[0].pixels.shape == (70, 69)  # 210 pixels are three times 70
    assert scan.views[0].pixels[0, 0] == volume[:3, :3].mean()
    (thin,) = check([("a", save(tmp_path / "a.nii", volume[:, :2]))]).scans
    assert thin.views[0].pixels[:, 0] == pytest.approx(volume[:, :2, 0].reshape(70, 6).mean(axis=1))


def test_refused(refused, images):
    with refused("no images to check"):
        check([])
    with refused("plane must be"):
        check(images, plane="oblique")
