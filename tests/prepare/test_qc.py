"""The QC page and its table: worst first, in one file, with the picture the right way up."""

from __future__ import annotations

import io
import math
import re
from pathlib import Path

import numpy as np
import pytest
import SimpleITK
from PIL import Image

from monai_cae.data.layouts.derivative import read_qc
from monai_cae.data.template import FRAME_SHAPE, frame_affine
from monai_cae.errors import MonaiCaeError
from monai_cae.prepare import QUALITY, Prepared, Quality, RawScan, Verdict
from monai_cae.prepare.batch import Outcome
from monai_cae.prepare.derivative import write_scan
from monai_cae.prepare.montage import PLACES, draw
from monai_cae.prepare.qc import worst_first, write_page
from monai_cae.prepare.sources import Source

DICE = Quality("dice", "", "Dice", (0.9, 1), (0.8, 1))
VOLUME = Quality("brain_ml", "ml", "volume", (1000, 1800), (800, 2200))


def outcome(name: str, verdict: str = "pass", **qc: float) -> Outcome:
    return Outcome(f"sub-{name}", verdict, (), qc)


def test_the_worst_come_first_by_verdict_then_by_the_worst_number():
    outcomes = [
        outcome("good", dice=0.97, brain_ml=1400), outcome("close", dice=0.91, brain_ml=1400),
        outcome("small", "review", dice=0.95, brain_ml=950), outcome("poor", "review", dice=0.82, brain_ml=1400),
        outcome("unmeasured", "fail", dice=math.nan), outcome("lost", "fail", dice=0.2, brain_ml=1400),
        outcome("none", "error"),
    ]  # fmt: skip
    names = [one.name[4:] for one in worst_first(outcomes, (DICE, VOLUME))]
    # of "poor" Dice is 0.8 of the way from passing to failing, of "small" the volume 0.25
    assert names == ["none", "lost", "unmeasured", "poor", "small", "close", "good"]


def write(out: Path, name: str, status: str = "pass", seed: int = 0) -> None:
    """A prepared scan of smooth noise in a ball, on disk."""
    x, y, z = np.ogrid[[slice(size) for size in FRAME_SHAPE]]
    ball = ((x - 88) / 70) ** 2 + ((y - 104) / 85) ** 2 + ((z - 88) / 65) ** 2 < 1
    coarse = np.random.default_rng(seed).random((22, 26, 22))
    image = np.kron(coarse, np.ones((8, 8, 8))).astype(np.float32) * ball
    prepared = Prepared(
        image, ball, frame_affine(), ball, SimpleITK.AffineTransform(3), dict.fromkeys((q.name for q in QUALITY), 1.0),
        (), Verdict(status, ("<script>alert(1)</script>",) if status != "pass" else ()), {},
    )  # fmt: skip
    raw = RawScan(np.zeros((3, 3, 3), np.float32), np.eye(4), f"sub-{name}")
    write_scan(out, Source(name), raw, prepared, {"mask": "auto"})


def test_the_page_is_one_file_that_needs_nothing_else(tmp_path):
    write(tmp_path, "A")
    write(tmp_path, "B", "review")
    page = write_page(tmp_path, [outcome("C", "error")]).read_text()
    assert re.findall(r'<article[^>]*data-scan="([^"]+)"', page) == ["sub-C", "sub-B", "sub-A"]
    assert page.count("data:image/jpeg;base64,") == page.count("data:image/png;base64,") == 2
    assert not re.search(r"(?:src|href)=[\"'](?!data:)|https?://|@import|url\(", page)
    assert "<script>alert" not in page and "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert len(page) < 20_000 + 2 * 60_000  # of 200 scans a page of a few MB
    assert [(name, one.verdict, one.decision) for name, one in read_qc(tmp_path / "qc.tsv").items()] == [
        ("sub-C", "error", ""), ("sub-B", "review", ""), ("sub-A", "pass", ""),
    ]  # fmt: skip


def test_decisions_stay_until_the_verdict_changes(tmp_path):
    write(tmp_path, "A")
    write(tmp_path, "B", "review")
    write_page(tmp_path, [])
    table = tmp_path / "qc.tsv"
    table.write_text(
        table.read_text().replace("\tpass\t\t", "\tpass\tdrop\t").replace("\treview\t\t", "\treview\tkeep\t")
    )
    write(tmp_path, "B", "fail")
    page = write_page(tmp_path, []).read_text()
    judged = read_qc(table)
    assert judged["sub-A"].decision == "drop" and judged["sub-B"][:2] == ("fail", "")
    assert re.search(r'data-scan="sub-A"[^>]*data-decision="drop"', page, re.DOTALL)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("scan\tverdict\nsub-A\tpass\n", "has no column decision"),
        ("scan\tverdict\tdecision\nsub-A\tgreat\t\n", "row 2: 'great' is none of pass, review, fail, error"),
        ("scan\tverdict\tdecision\nsub-A\tpass\t\nsub-A\tpass\t\n", "row 3: 'sub-A' is there twice"),
    ],
)
def test_a_damaged_table_is_refused_in_one_line(tmp_path, text, message):
    (tmp_path / "qc.tsv").write_text(text)
    with pytest.raises(MonaiCaeError, match=message):
        read_qc(tmp_path / "qc.tsv")


@pytest.mark.parametrize(
    ("voxel", "where"),
    # axial 176 wide, its left on the left and its front at the top; coronal from 176; sagittal from 352, front left
    [((20, 150, 105), (57, 20)), ((150, 120, 60), (131, 176 + 150)), ((84, 150, 60), (131, 352 + 57))],
)
def test_the_planes_are_the_right_way_up(voxel, where):
    image = np.zeros(FRAME_SHAPE, np.float32)
    x, y, z = voxel
    image[x - 3 : x + 4, y - 3 : y + 4, z - 3 : z + 4] = 1
    picture = np.asarray(Image.open(io.BytesIO(draw(image, image > 0).jpeg)))
    assert picture.shape == (208, 176 + 176 + 208) and PLACES == (84, 120, 105)
    bright = np.argwhere(picture > 200)
    np.testing.assert_allclose(bright.mean(axis=0), where, atol=1)


def test_the_outlines_are_the_masks_and_the_templates():
    mask = np.zeros(FRAME_SHAPE, bool)
    mask[60:116, 80:130, 60:110] = True
    lines = np.asarray(Image.open(io.BytesIO(draw(np.zeros(FRAME_SHAPE, np.float32), mask).outlines)).convert("RGBA"))
    yellow = (lines[..., 0] > 200) & (lines[..., 2] < 100) & (lines[..., 3] > 0)
    rows, columns = np.nonzero(yellow[:, :176])
    # of the axial plane: x from 60 to 115; y from 80 to 129, turned upside down in 208 rows
    assert (columns.min(), columns.max(), rows.min(), rows.max()) == (60, 115, 207 - 129, 207 - 80)
    blue = (lines[..., 2] > 200) & (lines[..., 0] < 100) & (lines[..., 3] > 0)
    assert 200 < blue[:, :176].sum() < 4000
