"""The stages that the benchmarks time: the bundle's own configs on random slices that are in memory."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import torch
from monai.bundle import ConfigWorkflow

import monai_cae
from monai_cae.training import ImageCache

SLICES, VALIDATION, BATCH, SIZE = 112, 28, 32, 176
GFLOP_PER_IMAGE = 20.6  # forward 6.9, backward twice that; convolutions alone
UNVALIDATED = {"val_interval": 10**6, "max_epochs": 10**6}  # a GPU's host does not know when a validation begins
VOLUME, VOLUME_BATCH, VOLUME_CHANNELS = (88, 104, 88), 4, (8, 16, 32)  # with_volume.yaml's
THREE = {  # what with_volume.yaml changes
    "image_size": list(VOLUME),
    "extraction": {"_target_": "monai_cae.data.VolumeExtraction", "size": "@image_size", "axes": "@axes"},
    "channels": list(VOLUME_CHANNELS),
    "batch_size": VOLUME_BATCH,
}
Items = list[dict[str, torch.Tensor]]


def random_items(count: int = SLICES, size: int = SIZE) -> Items:
    """Slices of noise with labels that take turns: what they show makes no difference to the time."""
    return [{"image": torch.rand(1, size, size), "label": torch.tensor([float(n % 2)])} for n in range(count)]


def volume(number: int) -> torch.Tensor:
    """Noise of 12 bits, averaged over eight voxels each and scaled, as a scan at 2 mm is."""
    values = torch.randint(0, 8 * 4095, VOLUME, generator=torch.Generator().manual_seed(number))
    values.view(-1)[:2] = torch.tensor([0, 8 * 4095])
    return values[None] / torch.tensor(8 * 4095.0)


def volume_cache(count: int, share: float = 1, folder: str | Path = "") -> ImageCache:
    """Such volumes as a training keeps them.

    Args:
        count: of volumes.
        share: `cache_share`; with 0 they lie in the folder.
        folder: for the cache.
    """
    items = [{"image": number, "label": torch.zeros(1)} for number in range(count)]
    return ImageCache(items, lambda item: {**item, "image": volume(item["image"])}, share=share, folder=folder)


class Stage:
    """A trainer of a config, one epoch at a time inside one open MLflow run.

    Args:
        config: "pretrain.json" or "train.json".
        items: training slices or volumes; the first 28 are also what is validated on.
        output_dir: where the run writes.
        trainer: the config's item.
        options: settings, as on the command line.

    Attributes:
        validation: seconds of the evaluator in the last epoch.
        mlflow: seconds of logging, of all epochs.
    """

    def __init__(
        self, config: str, items: Items | ImageCache, output_dir: str, trainer: str = "train#trainer", **options: Any
    ) -> None:
        path = Path(monai_cae.__file__).parents[1] / "bundle" / "configs" / config
        given = {"output_dir": output_dir, "tracking_uri": f"sqlite:///{output_dir}/mlruns.db"}
        given |= {"best#trained_on": [], "best#labels_of": [], "best#network_input": None}  # of nobody, and of no file
        if config == "train.json":
            given["train#target"] = "@target"  # that of a datalist would be fitted to its labels
        self.workflow = ConfigWorkflow(str(path), **{**given, "max_epochs": 1, **options})
        for name, chosen in (("train", items), ("validate", items[:VALIDATION])):
            self.workflow.parser[f"{name}#dataset"] = chosen
        handlers = f"{trainer.split('#')[0]}#handlers"
        kept = [one for one in self.workflow.parser[handlers] if not one["_target_"].endswith("EpochProgress")]
        subjects = [str(number) for number in range(len(items))]  # nobody's: there is no datalist
        kept = [{**one, "subjects": subjects} if one["_target_"].endswith("LossWatch") else one for one in kept]
        self.workflow.parser[handlers] = kept
        self.workflow.initialize()
        self.get = self.workflow.parser.get_parsed_content
        self.trainer, self.run = self.get(trainer), self.get("tracked_run")
        self.validation = self.mlflow = 0.0
        evaluator = self.get(f"{trainer.split('#')[0].replace('train', 'validate')}#evaluator")
        self._time(evaluator, "run", "validation")
        self._time(self.run, "log_metrics", "mlflow")

    def __enter__(self) -> Stage:
        self.run.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self.run.__exit__(*error)

    def epochs(self, count: int) -> float:
        """Seconds of some epochs and of what is logged of them, validation included."""
        self.validation = 0.0
        self.trainer.state.epoch = self.trainer.state.iteration = 0
        self.trainer.state.max_epochs = count
        started = time.perf_counter()
        self.trainer.run()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        return time.perf_counter() - started

    def epoch(self) -> float:
        """Seconds of one epoch and of what is logged of it, validation included."""
        return self.epochs(1)

    def training_epoch(self) -> float:
        """Seconds of one epoch, less its validation."""
        seconds = self.epoch()
        return seconds - self.validation

    def _time(self, owner: object, method: str, figure: str) -> None:
        original = getattr(owner, method)

        def timed(*args: Any, **kwargs: Any) -> Any:
            started = time.perf_counter()
            try:
                return original(*args, **kwargs)
            finally:
                setattr(self, figure, getattr(self, figure) + time.perf_counter() - started)

        setattr(owner, method, timed)


def matmul_rate(device: str, half: bool) -> float:
    """GFLOP/s of a large matrix product: what this processor reaches when nothing waits for memory."""
    size = 4096 if device == "cpu" else 16384
    a = torch.rand(size, size, device=device).to(torch.bfloat16 if half else torch.float32)
    a @ a
    best = 0.0
    for _ in range(3):
        started = time.perf_counter()
        (a @ a)[0, 0].item()
        best = max(best, 2 * size**3 / (time.perf_counter() - started) / 1e9)
    return best
