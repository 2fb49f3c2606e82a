"""Export networks by MONAI's own `ckpt_export` and `onnx_export`, if they agree with PyTorch."""

from __future__ import annotations

import importlib.util
import json
import logging
import math
import platform
import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any
from zipfile import ZIP_STORED, ZipFile, ZipInfo

import monai.bundle
import torch
from monai.utils.type_conversion import convert_to_tensor

from monai_cae import __version__
from monai_cae.data import find_images
from monai_cae.errors import MonaiCaeError
from monai_cae.files import replacing, sha256_of, write_text
from monai_cae.sharing.bundle import CHECKPOINTS, DEFINITIONS, Bundle, open_bundle
from monai_cae.sharing.definitions import built, load_network
from monai_cae.sharing.parity import TOLERANCES, Network, Parity, largest_differences, write_random_volumes
from monai_cae.sharing.screening import require_screened, screen_executed
from monai_cae.training.stages.workflow import find_mistake

_PACKAGES = {".ts": ("torch", "monai"), ".onnx": ("torch", "monai", "onnx", "onnxscript", "onnxruntime")}
_LARGEST = 4096  # pixels; random volumes of a size that a stranger chose must not fill the memory
_ADVICE = "choose another place for the exported file"
_NOISY = ("monai.bundle.scripts", "torch.onnx._internal.exporter._registration")


def export_network(
    bundle: str | Path,
    out: str | Path,
    *,
    network: str = "classifier",
    checkpoint: str | Path | None = None,
    volumes: str | Path | None = None,
    trust: bool = False,
    progress: Callable[[Iterable[Path]], Iterable[Path]] = iter,
) -> Parity:
    """Write a network as TorchScript or ONNX, and a report of how far it is from PyTorch beside it.

    The exported file takes `(N, 1, H, W)` images of any N and carries the bundle's metadata.json and inference.json:
    as extra files of TorchScript (`monai.data.load_net_with_metadata`), as `metadata_props` of ONNX. The two are
    compared on the CPU in float32, after the preprocessing of inference.json.

    MONAI executes the bundle's inference.json, so it is screened first, see `monai_cae.sharing.screening`.

    Args:
        bundle: the bundle's folder.
        out: file to write, `.ts` or `.onnx`; the report is `out` with `.parity.json` after it.
        network: "classifier" or "autoencoder".
        checkpoint: its weights; without one the bundle's `models/model.pt` or `models/autoencoder.pt`.
        volumes: a volume or a folder of them to compare on; without it random ones, made from a fixed seed.
        trust: execute an inference.json that has more than data besides what this package ships.
        progress: wraps the volumes, e.g. a progress bar.

    Raises:
        MonaiCaeError: a file or a package is missing or doesn't fit, the config is not trusted, or the exported network
            does not agree; then only the report is written.
    """
    out = Path(out)
    _check_request(out, network)
    opened = open_bundle(bundle)
    weights = Path(checkpoint) if checkpoint is not None else opened.folder / CHECKPOINTS[network]
    require_screened(opened.folder, screen_executed(opened.folder), trust)
    eager = load_network(opened, network, weights).eval()
    preprocess = built(opened, "preprocessing")
    with tempfile.TemporaryDirectory() as folder:
        files = find_images(volumes) if volumes is not None else write_random_volumes(Path(folder), *_needed(opened))
        shape = tuple(_image(preprocess, files[0]).shape)
        exported = Path(folder) / out.name
        with replacing(out, _ADVICE) as temporary:
            temporary.touch()  # before the work: MONAI's writers tell of a closed folder in another way
            _write(opened, DEFINITIONS[network], weights, exported, shape)
            images = (_image(preprocess, file) for file in progress(files))
            differences = largest_differences(eager, _exported(exported), images, network)
            shutil.copyfile(exported, temporary)
            parity = Parity(
                file=out.name,
                sha256=sha256_of(temporary),
                network=network,
                checkpoint=(CHECKPOINTS[network] if checkpoint is None else Path(weights.name)).as_posix(),
                checkpoint_sha256=sha256_of(weights),
                volumes=len(files),
                synthetic=volumes is None,
                image_shape=shape,
                largest_difference=differences,
                tolerance={name: TOLERANCES[name] for name in differences},
                versions=_versions(out.suffix),
            )
            report = out.with_name(f"{out.name}.parity.json")
            write_text(report, json.dumps(parity.to_dict(), indent=2) + "\n", _ADVICE)
            if not parity.passed:
                raise MonaiCaeError(
                    f"{out} is not written: it differs too much from PyTorch: {parity.summary()}; "
                    f"see {report}, and try the versions of constraints.txt"
                )
    return parity


def _check_request(out: Path, network: str) -> None:
    if network not in DEFINITIONS:
        raise MonaiCaeError(f"network must be classifier or autoencoder, not {network!r}")
    if out.suffix not in _PACKAGES:
        raise MonaiCaeError(f"{out} must end in .ts (TorchScript) or .onnx (ONNX): give the file another name")
    missing = [name for name in _PACKAGES[out.suffix] if importlib.util.find_spec(name) is None]
    if missing:
        raise MonaiCaeError(f"{out} needs {', '.join(missing)}: pip install 'monai-cae[onnx]'")


def _needed(bundle: Bundle) -> tuple[int, int]:
    """The last slice, and the longest side in voxels of 1 mm, of a volume that fills the image."""
    extraction = built(bundle, "extraction")
    sizes, spacing = extraction.sizes(built(bundle, "image_size")), 1
    if extraction.grid:  # patches are smaller than the volume
        sizes, spacing = [*sizes, *extraction.grid.size], extraction.grid.spacing
    longest = max(_size(bundle, "image_size", size) for size in sizes)
    last = _size(bundle, "slice_index", extraction.last(longest))
    return last, _size(bundle, "image_size in mm", math.ceil(longest * spacing))


def _size(bundle: Bundle, name: str, size: Any) -> int:
    if not (isinstance(size, int) and 0 < size <= _LARGEST):
        raise MonaiCaeError(f"{bundle.config_file}: {name} must be from 1 to {_LARGEST}, not {size!r}")
    return size


def _image(preprocess: Callable[[dict[str, str]], dict[str, torch.Tensor]], file: Path) -> torch.Tensor:
    try:
        image: torch.Tensor = convert_to_tensor(preprocess({"image": str(file)})["image"], track_meta=False)
        return image
    except Exception as error:
        raise find_mistake(error) or error from error


def _write(bundle: Bundle, definition: str, weights: Path, path: Path, image_shape: Iterable[int]) -> None:
    arguments: dict[str, Any] = {
        "net_id": definition,
        "filepath": str(path),
        "ckpt_file": str(weights),
        "meta_file": str(bundle.metadata_file),
        "config_file": str(bundle.config_file),
    }
    with _quiet():
        if path.suffix == ".ts":
            monai.bundle.ckpt_export(**arguments)
            _drop_debug_files(path)
            return
        monai.bundle.onnx_export(
            **arguments,
            use_trace=True,  # without it MONAI drops the arguments of torch.onnx.export
            input_shape=[2, *image_shape],  # torch.export takes a batch of 1 for a constant
            converter_kwargs={
                "dynamo": True,
                "input_names": ["image"],
                "output_names": ["pred"],
                "dynamic_shapes": {"image": {0: "batch"}},
                "external_data": False,  # or MONAI leaves a copy of the weights in the temporary folder
                "verbose": False,
            },
        )
    _carry_configs(bundle, path)


def _drop_debug_files(path: Path) -> None:
    """Rewrite TorchScript without the source lines of its tracebacks, which name folders of this machine."""
    kept = path.with_name(f"kept-{path.name}")
    with ZipFile(path) as source, ZipFile(kept, "w", ZIP_STORED) as target:
        for info in source.infolist():
            if not info.filename.endswith(".debug_pkl"):
                with source.open(info) as member, target.open(_plain(info), "w") as copy:
                    shutil.copyfileobj(member, copy)
    kept.replace(path)


def _plain(info: ZipInfo) -> ZipInfo:
    plain = ZipInfo(info.filename, (1980, 1, 1, 0, 0, 0))
    plain.file_size = info.file_size
    return plain


def _carry_configs(bundle: Bundle, path: Path) -> None:
    import onnx

    model = onnx.load(path)
    for node in (*model.graph.node, *(node for function in model.functions for node in function.node)):
        del node.metadata_props[:]  # PyTorch's stack traces, which name folders of this machine
    texts = {"metadata.json": json.dumps(bundle.metadata), "inference.json": json.dumps(bundle.config)}
    onnx.helper.set_model_props(model, texts)
    onnx.save(model, path)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without MONAI's list of arguments, and without what PyTorch's exporters say about themselves."""
    loggers = [logging.getLogger(name) for name in _NOISY]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*LeafSpec", category=FutureWarning)
            warnings.filterwarnings("ignore", message=".*torch.jit", category=DeprecationWarning)
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _exported(path: Path) -> Network:
    if path.suffix == ".ts":
        with _quiet():
            module: Network = torch.jit.load(str(path), map_location="cpu").eval()
        return module
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return lambda image: torch.from_numpy(session.run(["pred"], {"image": image.numpy()})[0])


def _versions(suffix: str) -> dict[str, str]:
    packages = {name: version(name) for name in _PACKAGES[suffix]}
    return {"python": platform.python_version(), "monai-cae": __version__, **packages}
