"""Tiny cohorts in OASIS-1's disk format, and how an error has to look; fixtures give the functions."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from monai_cae.data import Extraction, phantom
from monai_cae.data.images import volumes
from monai_cae.data.images.readers import read_image
from monai_cae.data.images.slice_cache import forget
from monai_cae.errors import MonaiCaeError

HEADER = "ID,M/F,Hand,Age,Educ,SES,MMSE,CDR,eTIV,nWBV,ASF,Delay"
Row = tuple[str, str, object, object]  # ID, sex, age, CDR


def _noise(shape: Sequence[int] = (20, 24, 20), seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(1, 3000, tuple(shape), dtype=np.int16)


def _write_pair(path: Path, voxels: np.ndarray | None = None) -> Path:
    header = nib.AnalyzeHeader(endianness=">")
    header.set_data_dtype(np.int16)
    path.parent.mkdir(parents=True, exist_ok=True)
    voxels = _noise() if voxels is None else voxels
    nib.AnalyzeImage(voxels[..., None], None, header).to_filename(path)
    return path


def _write_table(path: Path, rows: Sequence[Row]) -> Path:
    lines = [f"{name},{sex},R,{age},2,,29,{cdr},1344,0.743,1.306,N/A" for name, sex, age, cdr in rows]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\r\n".join([HEADER, *lines, ""]), encoding="utf-8-sig", newline="")
    return path


def _write_discs(root: Path, rows: Sequence[Row], shape: Sequence[int] = (20, 24, 20)) -> Path:
    _write_table(root / "oasis_cross-sectional.csv", rows)
    for number, (name, *_) in enumerate(rows):
        folder = root / f"disc{1 + number // 8}" / name / "PROCESSED" / "MPRAGE" / "T88_111"
        _write_pair(folder / f"{name}_mpr_n{3 + number % 4}_anon_111_t88_masked_gfc.hdr", _noise(shape, seed=number))
    return root


@contextmanager
def _refused(match: str) -> Iterator[None]:
    with pytest.raises(MonaiCaeError, match=match) as caught:
        yield
    assert "\n" not in str(caught.value)


@pytest.fixture
def noise() -> Callable[..., np.ndarray]:
    """noise(shape, seed): an int16 volume without zeros."""
    return _noise


@pytest.fixture
def write_pair() -> Callable[..., Path]:
    """write_pair(path, voxels): an Analyze pair, big-endian int16, four-dimensional with a trailing 1."""
    return _write_pair


@pytest.fixture
def write_table() -> Callable[..., Path]:
    """write_table(path, rows): OASIS-1's table, with its byte-order mark, N/A and blanks."""
    return _write_table


@pytest.fixture
def write_discs() -> Callable[..., Path]:
    """write_discs(root, rows, shape): discs of eight sessions each, and their table."""
    return _write_discs


@pytest.fixture
def refused() -> Callable[[str], AbstractContextManager[None]]:
    """refused(match): the block raises a MonaiCaeError of one line."""
    return _refused


@pytest.fixture(scope="module")
def anatomy() -> phantom._Anatomy:
    return phantom._load_anatomy(volumes=True)


@pytest.fixture
def read_inflated_once(monkeypatch: pytest.MonkeyPatch) -> Callable[[Extraction, str], None]:
    """Read a packed file several times, and change what was read: it is inflated once, and stays as it was."""

    def check(extraction: Extraction, path: str) -> None:
        opened, inflate = [], volumes.InflatedFile
        monkeypatch.setattr(volumes, "InflatedFile", lambda name: opened.append(name) or inflate(name))
        forget()
        images = [read_image(extraction, path) for _ in range(3)]
        assert len(opened) == 1
        expected = images[0].copy()
        for image in images:
            image[:] = 0  # whoever gets an image may change it
        np.testing.assert_array_equal(read_image(extraction, path), expected)

    return check
