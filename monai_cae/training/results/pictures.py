"""Small pictures of the test images and their reconstructions, for pages that show who was misjudged."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from ignite.engine import Engine, Events
from numpy.typing import NDArray
from PIL import Image

from monai_cae.files import replacing
from monai_cae.training.results.figures import Pictures

PICTURES = "pictures.npz"
_HEIGHT = 96  # pixels; of wider pictures than high ones no more either
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
            self._pictures.append(np.stack([_small(self.extraction.picture(one)) for one in pair]))

    def _write(self, engine: Engine) -> None:
        if self._pictures:
            with replacing(self.path) as temporary, temporary.open("wb") as file:
                np.savez_compressed(file, subjects=np.array(self._subjects), pictures=np.stack(self._pictures))


def read_pictures(folder: Path) -> dict[str, NDArray[np.uint8]]:
    """Subject -> pictures of its first scan and of the reconstruction; none where the run has not left any.

    Args:
        folder: that the evaluation was written to.
    """
    try:
        with np.load(folder / PICTURES, allow_pickle=False) as found:
            subjects, pictures = found["subjects"], found["pictures"]
    except (OSError, ValueError, KeyError, EOFError, BadZipFile):
        return {}
    return {str(subject): pair for subject, pair in zip(subjects[::-1], pictures[::-1], strict=False)}


def _small(picture: NDArray[Any]) -> NDArray[np.uint8]:
    """Of a picture of 0 to 1, its first axis to the right and its second up."""
    grey = Image.fromarray((np.clip(np.nan_to_num(picture), 0, 1) * 255).astype(np.uint8).T[::-1])
    scale = min(1.0, _HEIGHT / grey.height)
    return np.asarray(grey.resize((max(1, round(grey.width * scale)), max(1, round(grey.height * scale)))))
