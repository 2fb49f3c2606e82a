"""What a checkpoint records of its network's input, to refuse other input."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import fields
from typing import Any, TypeGuard

from monai.transforms import Compose
from monai.transforms.intensity import array as intensity

from monai_cae.data.cohort.tables import COVARIATES
from monai_cae.data.images.extraction import (
    PAPER_SLICE,
    Extraction,
    SlabExtraction,
    SliceExtraction,
    VolumeExtraction,
)
from monai_cae.data.images.frames import Frame, common_frame, frames_of, from_record
from monai_cae.data.images.samples import PatchesExtraction, PlanesExtraction, SlicesExtraction
from monai_cae.data.texts import shown
from monai_cae.errors import MonaiCaeError

_SHOWN = 200  # characters of a value
_KINDS = (SlabExtraction, VolumeExtraction, SlicesExtraction, PlanesExtraction, PatchesExtraction)


class NetworkInput:
    """What a network is fed with, and what it makes of it.

    Args:
        extraction: what of a volume it sees.
        image_size: pixels of a side, or of each.
        preprocessing: its intensity transforms are what scales the slices.
        covariates: name -> (centre, scale); None for a network that takes none.
        target: what is predicted, whose `repr` tells its settings; None for a network that predicts nothing.
    """

    def __init__(
        self,
        extraction: Extraction,
        image_size: int | Sequence[int],
        preprocessing: Callable[..., Any],
        covariates: Mapping[str, Sequence[float]] | None = None,
        target: object = None,
    ) -> None:
        self.extraction = extraction
        own = _plain(extraction.settings)
        first = {"extraction": own["extraction"], "image_size": image_size}  # in this order they are compared
        self.settings = {**first, **own}
        self.settings["intensity"] = ", ".join(_scaling(preprocessing))
        if covariates is not None:
            self.settings["covariates"] = _plain(covariates)  # checked by `with_covariates`
        if target is not None:
            self.settings["target"] = repr(target)

    def record(self, items: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Plain values for a checkpoint: the settings, the frame that most images of the training's items share, and
        `ranges`: the lowest and the highest age in whole years, and of other numbers of the table the same."""
        frames = frames_of((str(item["image"]) for item in items), self.extraction)
        frame = common_frame(frames)._asdict() if frames else None
        numbers = {name: [n for item in items if _is_number(n := item.get(name))] for name in ("age", *COVARIATES)}
        ranges = {name: [min(found), max(found)] for name, found in numbers.items() if found}
        if "age" in ranges:
            ranges["age"] = [math.floor(ranges["age"][0]), math.ceil(ranges["age"][1])]
        return _plain({**self.settings, "frame": frame, "ranges": ranges})

    def training_of(self, records: Mapping[str, Mapping[str, Any]]) -> Frame | None:
        """The frame that the checkpoints record; None where none does.

        Args:
            records: checkpoint -> what it carries, see `monai_cae.networks.trained_with`.

        Raises:
            MonaiCaeError: a checkpoint was trained with another setting.
        """
        frames = []
        for checkpoint, recorded in records.items():
            for name, now in self.settings.items():
                before = recorded.get(name, now)
                if before != now:
                    own = name in self.extraction.settings.keys() - PAPER_SLICE.settings.keys()
                    raise MonaiCaeError(_refusal(checkpoint, f"extraction#{name}" if own else name, before, now))
            frames.append(from_record(recorded.get("frame")))
        return next((frame for frame in frames if frame is not None), None)


def out_of_range(record: Mapping[str, Any], given: Mapping[str, Any]) -> list[str]:
    """Which numbers of a subject the training has none like, a line each.

    Args:
        record: what a checkpoint carries, see `NetworkInput.record`.
        given: name -> number, or None.
    """
    ranges = record.get("ranges")
    lines = []
    for name, limits in ranges.items() if isinstance(ranges, Mapping) else ():
        value = given.get(name)
        if not (
            _is_number(value) and isinstance(limits, Sequence) and len(limits) == 2 and all(map(_is_number, limits))
        ):
            continue
        if not limits[0] <= value <= limits[1]:
            lines.append(f"{name} {value:g} is outside the training's {limits[0]:g} to {limits[1]:g}")
    return lines


def recorded_extraction(record: Mapping[str, Any]) -> Extraction | None:
    """What a checkpoint's network sees of a volume; an extraction of somebody's own is taken for a slice, if it is
    recorded as one is, or else is None.

    Args:
        record: what a checkpoint carries, see `NetworkInput.record`.

    Raises:
        MonaiCaeError: settings that make no sense.
    """
    kind = next((kind for kind in _KINDS if kind.__name__ == record.get("extraction")), SliceExtraction)
    names = [field.name for field in fields(kind)]
    return kind(**{name: record[name] for name in names}) if record.keys() >= set(names) else None


def _is_number(value: Any) -> TypeGuard[float]:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _plain(settings: Mapping[str, Any]) -> dict[str, Any]:
    return json.loads(json.dumps(settings))


def _refusal(checkpoint: str, name: str, before: Any, now: Any) -> str:
    was = before if isinstance(before, str) and before.isidentifier() else shown(before, _SHOWN)
    told = f"{checkpoint} was trained with {name} {was}, not {now}: "
    if name in ("intensity", "extraction", "target"):
        part = "preprocessing" if name == "intensity" else name
        return f"{told}take the {part} that it was trained with"
    given = f'"{was}"' if isinstance(before, Mapping) else was
    return told + f"give --{name} {given}, or another checkpoint"


def _scaling(preprocessing: Callable[..., Any]) -> Iterator[str]:
    """Its intensity transforms with their numbers, such as "ScaleIntensity minv 0, maxv 1"."""
    transforms = Compose(preprocessing).flatten().transforms
    for transform in transforms:
        for part in (transform, *vars(transform).values()):  # a dictionary transform holds an array transform
            if type(part).__module__ == intensity.__name__:
                numbers = {name: value for name, value in vars(part).items() if type(value) in (int, float)}
                yield " ".join([type(part).__name__, *(f"{name} {value:g}" for name, value in numbers.items())])
