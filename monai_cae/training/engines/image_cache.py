"""Images that are preprocessed once: kept in memory, in as few bytes as give them back, or on disk if they are many."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock
from monai.data import Dataset
from monai.transforms import Compose, RandomizableTrait
from monai.utils import ensure_tuple

from monai_cae.errors import MonaiCaeError
from monai_cae.files import replacing
from monai_cae.machine import host_memory
from monai_cae.networks import read_checkpoint
from monai_cae.training.engines.disk_rows import DiskRows, checksum, row_bytes, take
from monai_cae.training.engines.memory import return_freed_memory
from monai_cae.training.engines.packing import CACHES, Packed, pack, repacked, unpack, widest

FOLDER = "cache"  # in an output_dir
_Put = Callable[[int, torch.Tensor], Any]
_Room = Callable[[Sequence[int], torch.dtype], _Put | None]


class ImageCache(Dataset):
    """MONAI's CacheDataset for images of one size, which are kept in one or two bytes a number where that gives them
    back bit for bit (see `pack`), and on disk where they would take too much of the memory.

    On disk they are one file, of which batches are read; MONAI's PersistentDataset has a file of float32 for each, and
    writes it by way of the system's temporary folder. The file is written when the first image is asked for, under
    another name until it is complete. A run that is resumed reads it again, once the checksum of every image has been
    compared; whatever is not as it was written is made anew.

    Args:
        data: the items.
        transform: makes of an item one with `image`, which loses its metadata; nothing in it may be random.
        cache: "exact", or "compact" for two bytes also where that rounds; see `pack`.
        share: of the memory that is free, what the images may take; with 0 they go to the disk, and none is read here.
        folder: where the file goes.
        resume: use a file that was made of the same items before.

    Attributes:
        rest: the items without their images; complete once `rows` were asked for.
        steps: of each image, as `unpack` takes it; likewise.

    Raises:
        MonaiCaeError: a wrong setting, or a random transform; when images are read: several sizes, or no space.
    """

    def __init__(
        self,
        data: Sequence[Mapping[str, Any]],
        transform: Callable[..., Any],
        cache: str = "exact",
        share: float = 0.5,
        folder: str | Path = FOLDER,
        resume: bool = False,
    ) -> None:
        super().__init__(data, transform)
        if cache not in CACHES:
            raise MonaiCaeError(f"cache must be {' or '.join(CACHES)}, not {cache!r}")
        refuse_random(transform)
        self.cache, self.folder, self.resume = cache, Path(folder), resume
        self.share = check_share(share)
        self.limit = memory_for_images(share)
        self.rest: list[dict[str, Any]] = []
        self.steps = torch.ones(len(data))
        self._rows: torch.Tensor | DiskRows | None = None
        self._shape: Sequence[int] = ()
        self._dtype = torch.uint8  # the widest so far
        self._lock = threading.Lock()
        if share:
            self._keep_in_memory()

    def __getitem__(self, index: Any) -> Any:
        """The item of a number as the transform gives it; of a slice or list of numbers, the Subset of MONAI's."""
        if not isinstance(index, int):
            return super().__getitem__(index)
        rows, number = self.rows, range(len(self))[index]
        codes = take(rows, torch.tensor([number]))
        return {**self.rest[number], "image": unpack(Packed(codes, self.steps[number : number + 1]))[0]}

    @property
    def rows(self) -> torch.Tensor | DiskRows:
        """The images as `unpack` takes them, one row each; those for the disk are made or found now."""
        with self._lock:
            if self._rows is None:
                self._rows = self._on_disk()
            return self._rows

    def _keep_in_memory(self) -> None:
        """Unless they are too many, as the first tells, or the first that takes more bytes."""
        rows = torch.empty(0)

        def room(shape: Sequence[int], dtype: torch.dtype) -> _Put | None:
            nonlocal rows
            if len(self) * row_bytes(shape, dtype) > self.limit:
                return None
            rows = torch.empty((len(self), *shape), dtype=dtype)
            return lambda number, codes: rows[number].copy_(codes)

        if self._filled(room):
            self._rows = rows
        return_freed_memory()

    def _on_disk(self) -> DiskRows:
        name = self._name()
        with writable(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            with FileLock(name.with_suffix(".lock")):  # of several processes that train together, one writes
                return self._found(name) or self._written(name)

    def _written(self, name: Path) -> DiskRows:
        path, told = _files(name)
        told.unlink(missing_ok=True)  # it vouches for the rows
        sums: list[int] = []
        with replacing(path) as temporary, temporary.open("wb") as file:

            def room(shape: Sequence[int], dtype: torch.dtype) -> _Put:
                file.truncate(0)
                file.seek(0)
                sums.clear()
                self._tell(len(self) * row_bytes(shape, dtype))
                return put

            def put(number: int, codes: torch.Tensor) -> None:
                sums.append(checksum(codes.contiguous()))
                file.write(codes.contiguous().numpy().data)

            self._filled(room)
        rows = DiskRows(path, (len(self), *self._shape), self._dtype)
        content = {"shape": list(self._shape), "dtype": str(self._dtype), "sums": sums, "steps": self.steps}
        with replacing(told) as temporary:
            torch.save({**content, "rest": self.rest}, temporary)
        return rows

    def _found(self, name: Path) -> DiskRows | None:
        """The rows that were written before, if they are as they were."""
        path, told = _files(name)
        if not (self.resume and told.is_file()):
            return None
        try:
            content = read_checkpoint(told)
            shape, dtype = content["shape"], getattr(torch, content["dtype"].removeprefix("torch."))
            rows = DiskRows(path, (len(self), *shape), dtype)
            if not rows.is_whole(content["sums"]):
                raise MonaiCaeError(f"{path} has changed")
        except (MonaiCaeError, OSError, LookupError, TypeError, AttributeError):
            print(f"{path} is not as it was written: made anew", flush=True)
            return None
        self._shape, self._dtype, self.steps, self.rest = shape, dtype, content["steps"], content["rest"]
        print(f"{len(self)} images are read from {path}, as before ({_size(rows.nbytes)})", flush=True)
        return rows

    def _filled(self, room: _Room) -> bool:
        """Make every item, and put its image where there is room; begin anew where one takes more bytes than those
        before. False where there is no room."""
        self.rest.clear()
        put: _Put | None = None
        for number in range(len(self)):
            item = dict(self._transform(number))
            packed = pack(torch.as_tensor(item.pop("image")), self.cache)
            dtype = widest(self._dtype, packed.codes.dtype)
            if put is not None and dtype != self._dtype:
                self._dtype = dtype
                return self._filled(room)
            if put is None:
                self._shape, self._dtype = packed.codes.shape, dtype
                put = room(self._shape, dtype)
                if put is None:
                    return False
            if packed.codes.shape != self._shape:
                raise MonaiCaeError(
                    f"image {number + 1} has the shape {tuple(packed.codes.shape)}, the first {tuple(self._shape)}: "
                    "images of one set must have one size"
                )
            put(number, repacked(packed, dtype))
            self.steps[number] = packed.steps
            self.rest.append(item)
        return True

    def _tell(self, size: int) -> None:
        """Say what goes to the disk and why; MonaiCaeError where it has no space for it."""
        sizes = " x ".join(map(str, self._shape))
        why = f"{len(self)} images of {sizes} take {_size(size)}, and cache_share {self.share:g} of the free"
        left = shutil.disk_usage(self.folder).free
        if size > left:
            raise MonaiCaeError(
                f"{why} memory is {_size(self.limit)}; {self.folder} has {_size(left)} left: free some space, choose "
                "another --cache_dir, or raise --cache_share"
            )
        print(f"{why} memory is {_size(self.limit)}: they are read from {self.folder} batch by batch", flush=True)

    def _name(self) -> Path:
        """By what the items are and when their images were written."""
        made_of = [[item, [_stamp(str(path)) for path in ensure_tuple(item.get("image"))]] for item in self.data]
        text = json.dumps([self.cache, made_of], sort_keys=True, default=str)
        return self.folder / hashlib.sha256(text.encode()).hexdigest()[:16]


def memory_for_images(share: float) -> float:
    """Bytes that this process's images of one set may take.

    Args:
        share: of the memory that is free; processes that torchrun has started divide it.
    """
    return share * host_memory()[0] / int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def check_share(share: Any) -> float:
    """The setting `cache_share`; MonaiCaeError where it is none."""
    if isinstance(share, bool) or not isinstance(share, (int, float)) or not 0 <= share <= 1:
        raise MonaiCaeError(f"cache_share must be a number from 0 to 1, not {share!r}")
    return share


def refuse_random(transform: Any) -> None:
    """MonaiCaeError where a transform that is computed once draws anything."""
    steps = transform.flatten().transforms if isinstance(transform, Compose) else (transform,)
    for step in steps:
        if isinstance(step, RandomizableTrait):
            raise MonaiCaeError(
                f"{type(step).__name__} is random, and the transforms before training are computed once: "
                "put it in augmentation, which sees every batch"
            )


def cache_folder(output_dir: str | Path, cache_dir: str) -> Path:
    """Where images go that take too much of the memory: each output folder has its own, as several steps may run on one
    machine.

    Args:
        output_dir: of the run.
        cache_dir: the setting; if empty, a folder of `output_dir`.
    """
    if not cache_dir:
        return Path(output_dir, FOLDER)
    name = hashlib.sha256(str(Path(output_dir).absolute()).encode()).hexdigest()[:16]
    return Path(cache_dir, f"monai-cae-{name}")


def remove_cache(folder: Path) -> None:
    """Of a stage that has ended, or that begins anew. Args: folder: see `cache_folder`."""
    shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def writable(folder: Path) -> Iterator[None]:
    """Tell in one line that a folder can't be written, whatever the block does there."""
    try:
        yield
    except OSError as error:
        raise MonaiCaeError(
            f"can't write {folder} ({error.strerror or error}): choose another --cache_dir or --output_dir"
        ) from error


def _files(name: Path) -> tuple[Path, Path]:
    return name.with_suffix(".rows"), name.with_suffix(".pt")


def _stamp(path: str) -> list[tuple[int, int]]:
    """Sizes and times of an image's file, and of the other of a pair."""
    pair = {".hdr": ".img", ".img": ".hdr"}
    files = [Path(path), *(Path(path).with_suffix(other) for end, other in pair.items() if path.endswith(end))]
    return [(found.st_size, found.st_mtime_ns) for found in (file.stat() for file in files if file.exists())]


def _size(size: float) -> str:
    return f"{size / 2**30:.1f} GiB" if size >= 2**30 else f"{size / 2**20:.0f} MiB"
