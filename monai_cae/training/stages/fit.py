"""The largest batch and the largest image that fit into the memory: behind `monai-cae fit`."""

from __future__ import annotations

import copy
import gc
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from monai.bundle import ConfigParser, ConfigWorkflow

from monai_cae.errors import MonaiCaeError
from monai_cae.machine import host_memory
from monai_cae.training.engines.counting import count_step
from monai_cae.training.engines.image_cache import check_share, memory_for_images
from monai_cae.training.engines.memory import estimated_bytes, filled, is_full, largest
from monai_cae.training.stages.workflow import find_mistake

_STEPS = 6  # more than are computed before a step is recorded as a CUDA graph, which keeps memory of its own
# the values of weights and labels make no difference
_SHARED = {"pretrained": "none", "transfer": "none", "train#target": "@target"}

_Size = int | tuple[int, ...]


@dataclass(frozen=True)
class Fit:
    """What fits.

    Attributes:
        device: with its name.
        free, total: bytes of its memory.
        measured: on a GPU; on a CPU the numbers are estimates.
        image_bytes: of one image in the cache of a training, as float32 and in 16 bits.
        cache: bytes that `cache_share` leaves to the images of one set; more are read from disk, batch by batch.
        rows: what is in a row, batch size, image size (one number, or one for each axis), bytes; None for bytes that
            are too many.
    """

    device: str
    free: int
    total: int
    measured: bool
    image_bytes: tuple[int, int]
    cache: float
    rows: tuple[tuple[str, int, _Size, int | None], ...]


def fit(config: Path, settings: Mapping[str, Any]) -> Fit:
    """Try one training step of a config at one size after another. Reads no data and writes nothing.

    Args:
        config: pretrain.json or train.json, which learns most at once when it fine-tunes.
        settings: override it.

    Raises:
        MonaiCaeError: a wrong setting, or a network that nothing can be told of.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that configs can't be trusted: these are our own
            return _Trials(config, settings).fit()
    except Exception as error:  # MONAI wraps what its expressions raise
        mistake = find_mistake(error)
        if mistake is None:
            raise
        raise mistake from error


class _Trials:
    def __init__(self, config: Path, settings: Mapping[str, Any]) -> None:
        self.config, self.settings = config, dict(settings)
        if config.stem == "train":
            self.settings |= _SHARED
        parser = self._workflow({}).parser
        self.device = torch.device(parser.get_parsed_content("device"))
        size = parser.get_parsed_content("image_size")
        self.given = (parser.get_parsed_content("batch_size"), tuple(size) if isinstance(size, list) else size)
        self.parser = parser
        self.accumulate = parser.get_parsed_content("accumulate") > 1
        self.covariates = len(parser.get("covariates") or {})
        self.cache = memory_for_images(check_share(parser.get_parsed_content("cache_share")))
        self.cuda = _is_cuda(self.device)
        self.free, self.total = torch.cuda.mem_get_info(self.device) if self.cuda else host_memory()
        self._needs: dict[tuple[int, _Size], int | None] = {}

    def fit(self) -> Fit:
        batch, size = self.given
        self.need(batch, size)
        most = largest(lambda number: self.need(number, size) is not None, batch)
        edge = self._largest_size(batch, size) if isinstance(size, int) else 0
        rows: list[tuple[str, int, _Size]] = [("given", batch, size)]
        rows += [("largest batch_size", most, size)] if most else []
        rows += [("largest image_size", batch, edge)] if edge else []
        name = torch.cuda.get_device_name(self.device) if self.cuda else "the CPU"
        numbers = self._items(self.parser, 1, size)["image"].numel()
        return Fit(
            f"{self.device} ({name})" if self.cuda else name,
            self.free,
            self.total,
            self.cuda,
            (numbers * 4, numbers * 2),
            self.cache,
            tuple((what, batch, size, self.need(batch, size)) for what, batch, size in rows),
        )

    def need(self, batch: int, size: _Size) -> int | None:
        """Bytes of a step; None if they are too many."""
        if (batch, size) not in self._needs:
            try:
                self._needs[batch, size] = (self._measure if self.cuda else self._count)(batch, size)
            except (RuntimeError, MonaiCaeError):  # of a size that the network can't take, or its kernels
                if (batch, size) == self.given:
                    raise
                self._needs[batch, size] = None
        return self._needs[batch, size]

    def _largest_size(self, batch: int, size: int) -> int:
        step = self._size_step(size)
        return step * largest(lambda number: self.need(batch, number * step) is not None, size // step)

    def _size_step(self, size: int) -> int:
        """Image sizes are multiples of this; the given one is, or the network refuses it."""
        with torch.device("meta"):
            network = self._workflow({"device": "meta"}).parser.get_parsed_content("network")
        step = int(getattr(network.encoder, "downsampling", 1))
        return step if size % step == 0 else 1

    def _workflow(self, changed: Mapping[str, Any]) -> ConfigWorkflow:
        workflow = ConfigWorkflow(str(self.config), **{**self.settings, **changed})
        workflow.initialize()
        return workflow

    def _items(self, parser: ConfigParser, batch: int, size: _Size) -> dict[str, torch.Tensor]:
        extraction = parser.get_parsed_content("extraction")  # of patches, the size decides how many there are
        image = torch.zeros(batch, extraction.channels, *extraction.sizes(size))
        items = {"image": image, "label": torch.zeros(batch, 1)}
        return items | ({"covariates": torch.zeros(batch, self.covariates)} if self.covariates else {})

    def _count(self, batch: int, size: _Size) -> int | None:
        parser = self._workflow({"device": "meta", "batch_size": batch, "image_size": _setting(size)}).parser
        with torch.device("meta"):
            network = parser.get_parsed_content("network").train()
        loss, inferer = (parser.get_parsed_content(name) for name in ("loss", "train#inferer"))
        prepare_batch = parser.get_parsed_content("train#trainer#prepare_batch")

        def prepared() -> tuple[Any, ...]:
            items = self._items(parser, batch, size)
            return filled(prepare_batch(items, self.device, False))

        try:
            counted = count_step(network, inferer, prepared, loss, self.device, self.accumulate)
        except Exception as error:
            raise MonaiCaeError(
                f"nothing can be told of {type(network).__name__} without computing it: "
                f"{str(error).strip().partition(chr(10))[0]}"
            ) from error
        needed = estimated_bytes(counted, "cpu")
        return needed if needed <= self.free else None

    def _measure(self, batch: int, size: _Size) -> int | None:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(self.device)
        try:
            self._train(batch, size)
            needed = torch.cuda.max_memory_allocated(self.device)
        except Exception as error:
            if not _memory_behind(error):
                raise
            needed = None
        gc.collect()
        torch.cuda.empty_cache()
        return needed

    def _train(self, batch: int, size: _Size) -> None:
        """Some steps of the config's own trainer, with a second copy of the weights, as the best epoch's are kept."""
        workflow = self._workflow(
            {"batch_size": batch, "image_size": _setting(size), "max_epochs": 1, "val_interval": 1}
        )
        parser = workflow.parser
        with torch.device(self.device):
            parser["train#dataloader"] = [self._items(parser, batch, size)] * _STEPS
            parser["train#handlers"] = []
            parser["train#trainer#key_train_metric"] = None
            kept = copy.deepcopy(parser.get_parsed_content("network").state_dict())
            trainer = parser.get_parsed_content("train#trainer")
        trainer.logger.disabled = True
        trainer.run()
        del kept


def _setting(size: _Size) -> int | list[int]:
    return size if isinstance(size, int) else list(size)


def _is_cuda(device: torch.device) -> bool:
    return device.type == "cuda"


def _memory_behind(error: BaseException | None) -> bool:
    while error is not None:
        if is_full(error):
            return True
        error = error.__cause__ or error.__context__
    return False
