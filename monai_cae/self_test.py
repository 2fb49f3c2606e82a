"""Whether this installation works: a network's step, an image, known values, a figure and a database; seconds.

Packages are imported where they are used, so that one that is missing or broken fails its own check alone.
"""

from __future__ import annotations

import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

STEPS = 30  # of the tiny training
_SMALLEST = 0.5  # of its first loss, that the last must be below; it is 0.11 on a CPU
_ROUNDING = 0.05  # of a reconstruction between 0 and 1, bfloat16 against float32; it is 0.008 on a CPU


@dataclass(frozen=True)
class Check:
    """One check of the self-test.

    Attributes:
        name: what was tried.
        problem: what went wrong; "" if nothing did.
        advice: what to do about it.
        seconds: that it took.
    """

    name: str
    problem: str
    advice: str
    seconds: float

    @property
    def passed(self) -> bool:
        """Whether nothing went wrong."""
        return not self.problem


class _Wrong(Exception):
    """A result that is not what it must be."""


def run_checks(device: str, precision: str) -> Iterator[Check]:
    """Try the parts that every run needs, one after the other; nothing is kept, and no random state is changed.

    Args:
        device: "cpu", "cuda" and the like.
        precision: as a training's setting: "auto", "bfloat16" or "float32".
    """
    given: list[tuple[str, Callable[[], None], str]] = [
        ("known values", lambda: _known_values(device), "reinstall torch and scikit-learn in a new environment"),
        ("network", lambda: _network(device, "float32"), _ADVICE_OF_NETWORK),
        (f"network, {precision}", lambda: _network(device, precision), f"{_ADVICE_OF_NETWORK}, or --precision float32"),
        ("image", _image, "reinstall nibabel and monai; see whether the temporary folder can be written"),
        ("figure", _figure, "reinstall matplotlib and pillow"),
        ("database", _database, "use a Python with sqlite3; see whether the temporary folder can be written"),
    ]
    for name, check, advice in given:
        started = time.perf_counter()
        problem = ""
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                check()
        except _Wrong as error:
            problem = str(error)
        except Exception as error:  # whatever a broken library raises
            problem = described(error)
        yield Check(name, problem, advice if problem else "", time.perf_counter() - started)


_ADVICE_OF_NETWORK = "reinstall torch for this machine (https://pytorch.org); on a GPU, try --device cpu"


def described(error: BaseException) -> str:
    """An exception in one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:300]


def _require(found: float, wanted: float, what: str) -> None:
    if not abs(found - wanted) <= 1e-6 * abs(wanted):
        raise _Wrong(f"{what} is {found!r}, not {wanted!r}")


def _known_values(device: str) -> None:
    import torch

    from monai_cae.evaluation import classification_metrics, psnr
    from monai_cae.networks import ConvAutoencoder, ConvDecoder, ConvEncoder

    counted = torch.nn.functional.conv2d(torch.ones(1, 3, 5, 5, device=device), torch.ones(2, 3, 3, 3, device=device))
    _require(float(counted[0, 1, 1, 1]), 27.0, "a convolution of 3 x 3 x 3 ones")
    _require(float(psnr([[[0.0, 1.0]]], [[[0.1, 0.9]]])[0]), 20.0, "the PSNR of errors of 0.1")
    scores = classification_metrics([0, 0, 1, 1], [0.1, 0.4, 0.35, 0.8])
    _require(scores["auc"], 0.75, "the AUC of four known probabilities")
    state = ConvAutoencoder(encoder=ConvEncoder(), decoder=ConvDecoder()).state_dict()
    weights = sum(tensor.numel() for name, tensor in state.items() if not name.endswith("num_batches_tracked"))
    _require(weights, 723905, "the number of the paper's autoencoder's parameters")


def _network(device: str, precision: str) -> None:
    """A tiny autoencoder learns four synthetic slices; its gradients are finite, and rounding stays small."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # those of a busy machine would wait for each other
    try:
        _learn(device, precision)
    finally:
        torch.set_num_threads(threads)


def _learn(device: str, precision: str) -> None:
    import torch

    from monai_cae.networks import ConvAutoencoder, ConvDecoder, ConvEncoder
    from monai_cae.training import PrecisionInferer

    cards = [torch.cuda.current_device()] if torch.device(device).type == "cuda" else []
    with torch.random.fork_rng(devices=cards):
        torch.manual_seed(0)
        network = ConvAutoencoder(encoder=ConvEncoder(channels=(4, 8)), decoder=ConvDecoder(channels=(4, 8))).to(device)
        images = torch.rand(4, 1, 4, 4).repeat_interleave(8, 2).repeat_interleave(8, 3).to(device)
    infer, losses = PrecisionInferer(precision), []
    optimizer = torch.optim.Adam(network.parameters(), lr=0.01)
    for _ in range(STEPS):
        optimizer.zero_grad()
        loss = (infer(images, network) - images).square().mean()
        loss.backward()
        if not all(bool(weight.grad.isfinite().all()) for weight in network.parameters() if weight.grad is not None):
            raise _Wrong("a gradient is not finite")
        optimizer.step()
        losses.append(float(loss.detach()))
    if not losses[-1] < _SMALLEST * losses[0]:
        raise _Wrong(f"the loss went from {losses[0]:.4g} to {losses[-1]:.4g} in {STEPS} steps; it should have fallen")
    network.eval()
    with torch.no_grad():
        rounded = (infer(images, network) - PrecisionInferer("float32")(images, network)).abs().max()
    if not float(rounded) <= _ROUNDING:
        raise _Wrong(f"the output differs from float32's by {float(rounded):.3g}")


def _image() -> None:
    """A volume that is stored from right to left is written, and a slice of it read as the configs read it."""
    import nibabel as nib
    import numpy as np
    from monai.transforms import LoadImage

    from monai_cae.data import SliceReader

    volume = np.arange(6 * 7 * 8, dtype=np.int16).reshape(6, 7, 8)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "synthetic.nii.gz")
        nib.save(nib.Nifti1Image(volume, np.diag([-1.0, 1.0, 1.0, 1.0])), path)
        read = np.asarray(LoadImage(reader=SliceReader("axial", 5), image_only=True)(path))
    if not np.array_equal(read[..., 0], volume[::-1, :, 4]):
        raise _Wrong("slice 5 of a volume is not what was written")


def _figure() -> None:
    from matplotlib.figure import Figure

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "synthetic.png")
        figure = Figure()
        figure.add_subplot(title="±").plot([0, 1])
        figure.savefig(path)
        if not path.read_bytes().startswith(b"\x89PNG"):
            raise _Wrong("what was drawn is not a PNG file")


def _database() -> None:
    """As MLflow's store is one."""
    import sqlite3
    from contextlib import closing

    with tempfile.TemporaryDirectory() as folder, closing(sqlite3.connect(Path(folder, "synthetic.db"))) as database:
        database.execute("CREATE TABLE metrics (value REAL)")
        database.execute("INSERT INTO metrics VALUES (0.75)")
        database.commit()
        if database.execute("SELECT value FROM metrics").fetchall() != [(0.75,)]:
            raise _Wrong("what was written to a database is not there")
