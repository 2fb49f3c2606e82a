"""Preprocessed images take few bytes, or lie on disk, and are the same: see `ImageCache`."""

from __future__ import annotations

import errno
import gc
import os
import threading
import weakref

import numpy as np
import pytest
import torch
from monai.data import CacheDataset, DataLoader
from monai.transforms import Compose, Lambdad, RandFlipd, ScaleIntensity

from monai_cae.errors import MonaiCaeError
from monai_cae.training import EncodedDataset, ImageCache, ResidentLoader, cache_folder
from monai_cae.training.engines import image_cache
from monai_cae.training.engines.packing import pack, unpack

SHAPE = (1, 6, 8)


def scaled(values) -> torch.Tensor:
    return ScaleIntensity()(torch.as_tensor(np.asarray(values, np.float32))).as_subclass(torch.Tensor)


def whole(steps: int, seed: int = 0) -> torch.Tensor:
    """An image with this range of whole numbers, not from 0 on, and two neighbours among them."""
    values = np.random.default_rng(seed).integers(30, 30 + steps, SHAPE)
    values.flat[:3] = 30, 30 + steps, 31
    return scaled(values)


@pytest.mark.parametrize(
    ("image", "dtype"),
    [
        (whole(200), torch.uint8),
        (whole(255), torch.uint8),
        (whole(256), torch.int16),
        (whole(3000), torch.int16),
        (whole(65535), torch.int16),
        (scaled(np.random.default_rng(1).integers(0, 8 * 4096, (1, 20, 20, 20)) / 8), torch.int16),  # means of 8 voxels
        (whole(65536), torch.float32),
        (torch.rand(SHAPE), torch.float32),
        (2 * whole(200), torch.float32),  # not within [0, 1]
        (torch.full(SHAPE, torch.nan), torch.float32),
        (torch.zeros(SHAPE), torch.uint8),
        (whole(200).double(), torch.float64),
    ],
)
def test_images_come_back_bit_for_bit_from_the_fewest_bytes(image, dtype):
    packed = pack(image)
    assert packed.codes.dtype == dtype
    torch.testing.assert_close(unpack(packed), image, rtol=0, atol=0, equal_nan=True)


def test_compact_rounds_to_less_than_a_step_of_any_scanner():
    image = torch.rand(1, 30, 30, 30)
    packed = pack(image, "compact")
    assert packed.codes.dtype == torch.int16
    assert 0 < (unpack(packed) - image).abs().max() <= 0.51 / 65535  # 16-bit files have 65,535 steps at most
    assert torch.equal(unpack(pack(whole(300), "compact")), whole(300))


@pytest.fixture
def files(tmp_path):
    """Names of a folder's images, of 200, 200, 3000, 200 ... steps; written where the transform looks."""
    for number in range(9):
        torch.save(whole(3000 if number == 2 else 200, number), tmp_path / f"{number}.img")
    return [str(tmp_path / f"{number}.img") for number in range(9)]


class Reading:
    """A transform that counts what it reads."""

    def __init__(self) -> None:
        self.read: list[str] = []

    def __call__(self, item: dict) -> dict:
        self.read.append(item["image"])
        return {**item, "image": torch.load(item["image"])}


def items(files):
    return [{"image": file, "label": torch.tensor([n % 2.0]), "subject": f"S{n}"} for n, file in enumerate(files)]


def batches(dataset, kind=ResidentLoader, **options):
    loader = kind(dataset, batch_size=4, shuffle=True, generator=torch.Generator().manual_seed(3), **options)
    return [
        [
            {key: value.clone() if isinstance(value, torch.Tensor) else list(value) for key, value in batch.items()}
            for batch in loader
        ]
        for _ in range(2)
    ]


def same(first, second) -> bool:
    pairs = [pair for epochs in zip(first, second, strict=True) for pair in zip(*epochs, strict=True)]
    return all(
        one.keys() == other.keys()
        and torch.equal(one["image"], other["image"])
        and torch.equal(one["label"], other["label"])
        and one["subject"] == other["subject"]
        for one, other in pairs
    )


@pytest.mark.parametrize("share", [0.5, 0])
@pytest.mark.parametrize("count", [9, 2])
def test_batches_are_those_of_a_cache_of_float32(files, tmp_path, share, count):
    data = items(files[:count])
    plain = CacheDataset(data, Reading(), progress=False, num_workers=0)
    cached = ImageCache(data, Reading(), share=share, folder=tmp_path / "cache")
    found = batches(cached)
    assert same(found, batches(plain, DataLoader))
    assert cached.rows.dtype == (torch.int16 if count == 9 else torch.uint8)
    for number in (0, count - 1, -1):
        assert torch.equal(cached[number]["image"], plain[number]["image"])
        assert cached[number]["subject"] == plain[number]["subject"]
    assert len(cached[:2]) == 2
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("reading")]


def test_what_would_take_too_much_memory_is_on_disk_and_said(files, tmp_path, monkeypatch, capsys):
    size = 6 * 8
    monkeypatch.setattr(image_cache, "host_memory", lambda: (2 * 9 * size * 2 - 1, 2**30))
    few = ImageCache(items(files), Reading(), folder=tmp_path / "cache")
    assert not (tmp_path / "cache").exists()  # a run that is refused leaves nothing
    few[0]
    printed = capsys.readouterr().out
    assert "9 images of 1 x 6 x 8" in printed and str(tmp_path / "cache") in printed and "cache_share 0.5" in printed
    (rows,) = (tmp_path / "cache").glob("*.rows")
    assert rows.stat().st_size == 9 * size * 2
    monkeypatch.setattr(image_cache, "host_memory", lambda: (2 * 9 * size * 2, 2**30))
    ImageCache(items(files), Reading(), folder=tmp_path / "other")[0]
    assert not (tmp_path / "other").exists() and not capsys.readouterr().out


def test_few_batches_of_images_on_disk_are_in_memory_at_a_time(files, tmp_path):
    big = Compose([Reading(), Lambdad("image", lambda image: image.repeat(1, 40, 40))])
    cached = ImageCache(items(files), big, share=0, folder=tmp_path / "cache")
    before = {id(one) for one in _tensors()}
    alive: list[weakref.ref] = []
    for batch in ResidentLoader(cached, batch_size=1):
        alive.append(weakref.ref(batch["image"]))
        del batch
        assert sum(one() is not None for one in alive) <= 1
    sizes = [one.numel() for one in _tensors() if id(one) not in before]
    assert not [size for size in sizes if size >= 6 * 8 * 1600]


def _tensors() -> list[torch.Tensor]:
    return [one for one in gc.get_objects() if type(one) is torch.Tensor]


def test_codes_of_images_on_disk_are_those_of_images_in_memory(files, tmp_path):
    network = torch.nn.Conv2d(1, 1, 3)
    found = []
    for share in (0.5, 0):
        cached = ImageCache(items(files), Reading(), share=share, folder=tmp_path / "cache")
        found.append(batches(EncodedDataset(cached, network, lambda images, network: network(images), batch_size=4)))
    assert same(*found)


def resumed(files, tmp_path) -> tuple[list[str], ImageCache]:
    reading = Reading()
    cached = ImageCache(items(files), reading, share=0, folder=tmp_path / "cache", resume=True)
    assert torch.equal(cached[2]["image"], whole(3000, 2)) and cached[2]["subject"] == "S2"
    assert same(batches(cached), batches(ImageCache(items(files), Reading())))
    return reading.read, cached


def cut(path):
    os.truncate(path, path.stat().st_size - 1)


def change(path):
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("suffix", [".rows", ".pt"])
@pytest.mark.parametrize("damage", [cut, change, lambda path: path.unlink(), lambda path: path.write_bytes(b"")])
def test_a_resumed_run_reads_what_is_whole_and_makes_the_rest_anew(files, tmp_path, capsys, suffix, damage):
    ImageCache(items(files), Reading(), share=0, folder=tmp_path / "cache")[0]
    assert resumed(files, tmp_path)[0] == []
    assert "as before" in capsys.readouterr().out
    (path,) = (tmp_path / "cache").glob(f"*{suffix}")
    damage(path)
    read, _ = resumed(files, tmp_path)
    if damage is not change or suffix == ".rows":  # a byte of a zip's padding may be any
        assert set(read) == set(files)
    assert resumed(files, tmp_path)[0] == []


def test_a_resumed_run_notices_other_scans_and_a_new_one_looks_at_nothing(files, tmp_path):
    ImageCache(items(files), Reading(), share=0, folder=tmp_path / "cache")[0]
    torch.save(whole(200, 50), files[4])
    os.utime(files[4], ns=(1, 1))
    read, cached = resumed(files, tmp_path)
    assert set(read) == set(files) and torch.equal(cached[4]["image"], whole(200, 50))
    anew = Reading()
    ImageCache(items(files), anew, share=0, folder=tmp_path / "cache")[0]
    assert set(anew.read) == set(files)


def test_a_full_disk_is_one_line_and_leaves_nothing(files, tmp_path, monkeypatch):
    folder = tmp_path / "cache"
    monkeypatch.setattr(image_cache.shutil, "disk_usage", lambda path: type("Usage", (), {"free": 10})())
    with pytest.raises(MonaiCaeError, match=r"cache has 0 MiB left: free some space, choose another --cache_dir"):
        ImageCache(items(files), Reading(), share=0, folder=folder)[0]
    assert not [*folder.glob("*.rows"), *folder.glob(".*")]
    monkeypatch.undo()

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("monai_cae.files.os.fsync", full)
    with pytest.raises(MonaiCaeError, match=r"rows \(No space left on device\): free some space"):
        ImageCache(items(files), Reading(), share=0, folder=folder)[0]
    assert not [*folder.glob("*.rows"), *folder.glob(".*"), *folder.glob("*.pt")]


def test_rows_that_vanish_during_a_run_are_one_line(files, tmp_path):
    cached = ImageCache(items(files), Reading(), share=0, folder=tmp_path / "cache")
    loader = ResidentLoader(cached, batch_size=4)
    next(iter(loader))
    os.truncate(cached.rows.path, 10)
    with pytest.raises(MonaiCaeError, match=r"\.rows can't be read any more \(it is cut off\)"):
        list(loader)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"cache": "float16"}, "cache must be exact or compact, not 'float16'"),
        ({"share": 1.5}, "cache_share must be a number from 0 to 1, not 1.5"),
        ({"share": True}, "cache_share must be a number from 0 to 1, not True"),
        ({"transform": Compose([RandFlipd("image")])}, "RandFlipd is random"),
    ],
)
def test_wrong_settings_are_one_line(files, settings, message):
    with pytest.raises(MonaiCaeError, match=message):
        ImageCache(items(files), **{"transform": Reading(), **settings})


def test_images_of_two_sizes_are_one_line(files):
    torch.save(torch.zeros(1, 6, 9), files[3])
    with pytest.raises(MonaiCaeError, match=r"image 4 has the shape \(1, 6, 9\), the first \(1, 6, 8\)"):
        ImageCache(items(files), Reading())


def test_each_output_folder_has_its_own_images_where_several_share_a_disk(tmp_path):
    first, second = (cache_folder(tmp_path / name, str(tmp_path / "disk")) for name in ("one", "two"))
    assert first.parent == second.parent == tmp_path / "disk" and first != second
    assert first == cache_folder(str(tmp_path / "one"), str(tmp_path / "disk"))
    assert cache_folder(tmp_path / "one", "") == tmp_path / "one" / "cache"
