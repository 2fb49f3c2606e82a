"""The loader that reads ahead gives what MONAI's DataLoader gives, and stops as it stops."""

from __future__ import annotations

import threading
import time

import pytest
import torch
from monai.data import DataLoader, Dataset

from monai_cae.errors import MonaiCaeError
from monai_cae.training import ReadAheadLoader


def scans(count: int, read=lambda index: None) -> Dataset:
    """Items 0 to count - 1; `read` is called with the number of each when it is read."""

    def load(item: dict) -> dict:
        read(item["number"])
        return {"image": torch.full((1, 2, 2), float(item["number"])), "file": f"scan {item['number']}"}

    return Dataset([{"number": number} for number in range(count)], load)


def reading_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("reading")]


@pytest.mark.parametrize("num_workers", [0, 1, 3])
def test_batches_are_those_of_a_data_loader_in_their_order(num_workers):
    slow_first = scans(11, lambda index: time.sleep(0.002 * (4 - index % 4)))
    loader = ReadAheadLoader(slow_first, batch_size=4, num_workers=num_workers)
    for _ in range(2):
        ours, plain = list(loader), list(DataLoader(scans(11), batch_size=4))
        assert [batch["file"] for batch in ours] == [batch["file"] for batch in plain]
        assert [batch["image"].shape[0] for batch in ours] == [4, 4, 3] and len(loader) == 3
        assert all(torch.equal(one["image"], other["image"]) for one, other in zip(ours, plain, strict=True))
    assert not reading_threads()


def test_next_batch_is_read_while_the_first_is_in_use():
    read = threading.Event()
    loader = ReadAheadLoader(scans(4, lambda index: read.set() if index == 3 else None), batch_size=2, num_workers=1)
    batches = iter(loader)
    next(batches)
    assert read.wait(timeout=10)
    batches.close()


def test_reading_goes_no_further_than_two_batches_ahead_and_ends_with_who_asked():
    seen: list[int] = []
    batches = iter(ReadAheadLoader(scans(100, seen.append), batch_size=5, num_workers=2))
    next(batches)
    deadline = time.monotonic() + 10
    while len(seen) < 15 and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.05)
    assert set(seen) == set(range(15))
    batches.close()
    assert not reading_threads() and len(seen) == 15


def test_scan_that_can_not_be_read_ends_the_reading_with_its_own_error():
    mistake = MonaiCaeError("scan 7 is broken")

    def read(index: int) -> None:
        if index == 7:
            raise mistake

    with pytest.raises(RuntimeError, match="applying transform") as error:
        list(ReadAheadLoader(scans(40, read), batch_size=3, num_workers=2))
    assert error.value.__cause__ is mistake
    assert not reading_threads()


def test_whole_batches_before_a_broken_scan_are_given():
    def read(index: int) -> None:
        if index == 7:
            raise MonaiCaeError("scan 7 is broken")

    batches = iter(ReadAheadLoader(scans(40, read), batch_size=3, num_workers=2))
    assert [next(batches)["file"][0] for _ in range(2)] == ["scan 0", "scan 3"]
    with pytest.raises(RuntimeError):
        next(batches)


def test_the_networks_threads_are_left_alone():
    before = torch.get_num_threads()
    seen = []
    list(ReadAheadLoader(scans(3, lambda _: seen.append(torch.get_num_threads())), num_workers=1))
    assert seen == [1, 1, 1] and torch.get_num_threads() == before


@pytest.mark.parametrize("num_workers", [-1, 1.5, True, "two"])
def test_impossible_number_of_threads(num_workers):
    with pytest.raises(MonaiCaeError, match=f"num_workers must be a whole number, 0 or more, not {num_workers!r}"):
        ReadAheadLoader(scans(1), num_workers=num_workers)
