"""Small pictures of the test images and their reconstructions, for pages that show who was misjudged."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from ignite.engine import Engine, Events
from numpy.typing import NDArray

from monai_cae.evaluation.image_figures import thumbnail
from monai_cae.files import replacing
from monai_cae.training.results.figures import Pictures

PICTURES = "pictures.npz"
MAPS = "figures/evaluate_explanations_maps.npz"
_MOST = 2000  # scans, 40 MB in memory


class KeptPictures:
    """Keep a small picture of each scan and of its reconstruction: a handler of the autoencoder's evaluator.

    It runs nothing again: the evaluator has both. Scans after the first 2,000 have no picture.

    Args:
        output_dir: pictures.npz is written there: `subjects`, and `pictures` of shape `(n, 2, height, width)`, 0 to
            255, upright, the image first.
        extraction: makes the pictures.
    """

    def __init__(self, output_dir: str, extraction: Pictures) -> None:
        self.path = Path(output_dir, PICTURES)
        self.extraction = extraction
        self._subjects: list[str] = []
        self._pictures: list[NDArray[np.uint8]] = []

    def attach(self, engine: Engine) -> None:
        """Args: engine: the evaluator, with `image` and `pred` of one shape in its output."""
        engine.add_event_handler(Events.STARTED, self._start)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self)
        engine.add_event_handler(Events.COMPLETED, self._write)

    def _start(self, engine: Engine) -> None:
        self._subjects.clear()
        self._pictures.clear()

    def __call__(self, engine: Engine) -> None:
        """Add the pictures of one batch."""
        output: Any = engine.state.output
        batch: Any = engine.state.batch
        room = max(0, _MOST - len(self._pictures))
        images, outputs = (output[name][:room].detach().float().cpu().numpy() for name in ("image", "pred"))
        for subject, *pair in zip(batch["subject"], images, outputs, strict=False):
            self._subjects.append(str(subject))
            self._pictures.append(np.stack([_grey(self.extraction.picture(one)) for one in pair]))

    def _write(self, engine: Engine) -> None:
        if self._pictures:
            with replacing(self.path) as temporary, temporary.open("wb") as file:
                np.savez_compressed(file, subjects=np.array(self._subjects), pictures=np.stack(self._pictures))


def read_pictures(folder: Path) -> dict[str, NDArray[np.uint8]]:
    """Subject -> pictures of its first scan and of the reconstruction; none where the run has not left any.

    Args:
        folder: that the evaluation was written to.
    """
    return _by_subject(_arrays(folder / PICTURES))


def read_maps(folder: Path) -> tuple[dict[str, NDArray[np.uint8]], str]:
    """Subject -> picture of the first of its scans that are explained, with its map, and which tests the maps have
    failed; none where the run has not left any.

    Args:
        folder: that the evaluation was written to.
    """
    found = _arrays(folder / MAPS)
    return _by_subject(found), str(found.get("failed", ""))


def read_difference(folder: Path) -> NDArray[np.float32] | None:
    """The mean map of the upper group less that of the lower as a picture, shape `(H, W)`; None where there is none.

    Args:
        folder: that the evaluation was written to.
    """
    found = _arrays(folder / MAPS).get("difference")
    return None if found is None or found.ndim != 2 else found.astype(np.float32)


def _arrays(path: Path) -> dict[str, NDArray[Any]]:
    try:
        with np.load(path, allow_pickle=False) as found:
            return {name: found[name] for name in found}
    except (OSError, ValueError, KeyError, EOFError, BadZipFile):
        return {}


def _by_subject(found: dict[str, NDArray[Any]]) -> dict[str, NDArray[np.uint8]]:
    if not {"subjects", "pictures"} <= found.keys():
        return {}
    return {str(one): picture for one, picture in zip(found["subjects"][::-1], found["pictures"][::-1], strict=False)}


def _grey(picture: NDArray[Any]) -> NDArray[np.uint8]:
    """Of a picture of 0 to 1."""
    return thumbnail((np.clip(np.nan_to_num(picture), 0, 1) * 255).astype(np.uint8))
