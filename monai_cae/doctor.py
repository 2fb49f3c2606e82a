"""What an issue needs to know of an installation: versions, machine, places to write, and a self-test.

    monai-cae doctor                # where that does not start: python -m monai_cae.doctor
    monai-cae doctor --json

Nothing names a person or a machine. `monai.config.print_debug_info` and `mlflow doctor` tell of versions too, but also
the command, open files, folders and addresses as they are. Packages are imported where asked, as they may be broken.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.metadata
import io
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import textwrap
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import redirect_stderr, redirect_stdout, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from monai_cae import DISCLAIMER, __version__
from monai_cae.machine import allowed_cores, host_memory
from monai_cae.privacy import discreetly
from monai_cae.self_test import Check, described, run_checks

EXTRAS = {  # of pyproject.toml: what they are for
    "phantom": "the synthetic cohort",
    "prepare": "raw scans",
    "dicom": "DICOM files",
    "search": "monai-cae search",
    "remote": "scans at s3://, gs:// and https://",
    "safetensors": "weights in that format",
    "onnx": "export as ONNX",
    "cluster": "--cluster",
}
_MODULES = {  # that are not called as their packages are
    "pytorch-ignite": "ignite", "pyyaml": "yaml", "scikit-learn": "sklearn", "pillow": "PIL", "simpleitk": "SimpleITK",
}  # fmt: skip
_FIRST = ("torch", "monai", "pytorch-ignite", "mlflow", "nibabel", "numpy")
_TOLD = (  # variables whose values decide something, and are told
    "CUDA_VISIBLE_DEVICES", "CUDA_LAUNCH_BLOCKING", "CUBLAS_WORKSPACE_CONFIG", "PYTORCH_ALLOC_CONF",
    "PYTORCH_CUDA_ALLOC_CONF", "NVIDIA_TF32_OVERRIDE", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "LOCAL_WORLD_SIZE",
    "MPLBACKEND", "TMPDIR", "MLFLOW_DISABLE_TELEMETRY",
)  # fmt: skip
_NAMED = (  # reported as set, without their values
    "PYTHONPATH", "LD_LIBRARY_PATH", "LD_PRELOAD", "HTTP_PROXY", "HTTPS_PROXY", "MLFLOW_TRACKING_USERNAME",
    "MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN", "MLFLOW_TRACKING_INSECURE_TLS", "MONAI_CAE_ID_KEY",
    "MONAI_CAE_DEEPBET", "MONAI_CAE_CLUSTER_KEYS",
)  # fmt: skip
_WIDTH, _LABEL = 80, 14
_GIB = 2**30


def main(arguments: list[str] | None = None) -> int:
    """`python -m monai_cae.doctor`, for where a broken package keeps the command from starting."""
    parser = argparse.ArgumentParser(prog="python -m monai_cae.doctor", description=__doc__.partition("\n")[0])
    add_doctor(parser)
    return doctor(parser.parse_args(arguments))


def add_doctor(parser: argparse.ArgumentParser) -> None:
    """Its arguments."""
    parser.add_argument("--json", action="store_true", help="as JSON, for programs")


def doctor(options: argparse.Namespace) -> int:
    """Print it all.

    Returns:
        Exit status: 1 if a needed package or the self-test fails.
    """
    facts, discreet = examined(), discreetly()
    if not options.json:
        print("\n".join(facts_lines(facts)), flush=True)  # before the self-test, which may end the process
    checks = []
    for check in run_checks(facts["device"], facts["precision"]):
        checks.append(Check(check.name, discreet(check.problem), check.advice, round(check.seconds, 2)))
        if not options.json:
            print("\n".join(check_lines(checks[-1])), flush=True)
    failed = [check.name for check in checks if not check.passed]
    broken = [package["name"] for package in facts["packages"] if package["problem"]]
    if options.json:
        passed = not failed and not broken
        print(json.dumps({**facts, "self_test": [asdict(one) for one in checks], "passed": passed}, indent=2))
    elif failed or broken:
        wrong = [f"self-test FAILED ({', '.join(failed)})"] if failed else []
        wrong += [f"packages to put right: {', '.join(broken)}"] if broken else []
        print("\n".join(_line("", "; ".join(wrong))))
    else:
        print(f"self-test: PASSED. {DISCLAIMER}")
    return 1 if failed or broken else 0


def examined() -> dict[str, Any]:
    """Everything but the self-test, as plain values, without anything that tells who or where."""
    discreet = discreetly()
    environment = _environment(discreet)  # before packages that are imported set some
    with warnings.catch_warnings(), redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        needed, extras = _requirements()
        return {
            "monai_cae": __version__,
            "source": _source(),
            "python": f"{platform.python_version()} ({platform.python_implementation()})",
            "system": _system(),
            "cores": {"usable": allowed_cores(), "all": os.cpu_count()},
            "memory": _memory(),
            "packages": [_package(text, discreet) for text in needed],
            "extras": {name: [_package(text, discreet) for text in texts] for name, texts in extras.items()},
            **_torch(discreet),
            "places": [_place("temporary", tempfile.gettempdir, discreet), _place("current", os.getcwd, discreet)],
            "tracking": _tracking(discreet),
            "environment": environment,
        }


def facts_lines(facts: Mapping[str, Any]) -> Iterator[str]:
    """What `examined` gives as lines of at most 80 columns."""
    yield f"monai-cae {facts['monai_cae']} doctor, to paste into an issue. Names of persons,"
    yield "machines and home folders are left out; please look for others before you do."
    cores, memory = facts["cores"], facts["memory"]
    yield from _line("source", facts["source"])
    yield from _line("Python", facts["python"])
    yield from _line("system", facts["system"])
    yield from _line("processor", f"{cores['usable']} cores may be used of {cores['all']}")
    told = f"{_gib(memory['free'])} free of {_gib(memory['total'])}" if memory else "not known here"
    yield from _line("memory", told)
    for gpu in facts["gpus"] or ["none"]:
        yield from _line("GPU", gpu)
    yield from _line("CUDA", facts["cuda"])
    yield from _line("device", f"{facts['device']}, {facts['threads']} threads, precision {facts['precision_told']}")
    yield from _line("packages", ", ".join(f"{one['name']} {one['version'] or 'missing'}" for one in facts["packages"]))
    for package in facts["packages"]:
        if package["problem"]:
            yield from _line("", f"! {package['name']}: {package['problem']}")
    for name, packages in facts["extras"].items():
        there = all(one["version"] and not one["problem"] for one in packages)
        told = ", ".join(f"{one['name']} {one['version'] or 'missing'}" for one in packages)
        yield from _line(f"[{name}]", f"{'yes' if there else 'no '}  {told} (for {EXTRAS.get(name, 'other things')})")
        for package in packages:
            if package["version"] and package["problem"]:
                yield from _line("", f"! {package['name']}: {package['problem']}")
    for place in facts["places"]:
        told = f"{_gib(place['free'])} free" if place["free"] is not None else "free space not known"
        yield from _line(place["name"], f"{place['path']}: {place['problem'] or 'can be written'}, {told}")
    yield from _line("tracking", facts["tracking"])
    variables = ", ".join(f"{name}={value}" for name, value in facts["environment"].items())
    yield from _line("variables", variables or "none of those that matter")


def check_lines(check: Check) -> Iterator[str]:
    """A check of the self-test as lines."""
    if check.passed:
        yield from _line("self-test", f"passed  {check.name} ({check.seconds:.1f} s)")
    else:
        yield from _line("self-test", f"FAILED  {check.name}: {check.problem}")
        yield from _line("", f"what to do: {check.advice}")


def _line(label: str, text: str) -> Iterator[str]:
    wide = {"width": _WIDTH, "subsequent_indent": " " * _LABEL, "break_on_hyphens": False}
    yield from textwrap.wrap(text, initial_indent=f"{label:<{_LABEL - 1}} ", **wide)  # type: ignore[arg-type]


def _gib(size: float) -> str:
    return f"{size / _GIB:.1f} GiB"


def _source() -> str:
    """Installed, or a checkout, and of which commit."""
    root = Path(__file__).resolve().parents[1]
    if not (root / "pyproject.toml").is_file():
        return "an installed package"
    with suppress(OSError, subprocess.SubprocessError):
        command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--exclude=*"]
        found = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.strip()
        return f"a checkout, commit {found.replace('-dirty', ' with changes')}"
    return "a checkout"


def _system() -> str:
    name = ""
    with suppress(OSError):
        name = platform.freedesktop_os_release().get("PRETTY_NAME", "")
    if mac := platform.mac_ver()[0]:
        name = f"macOS {mac}"
    library = " ".join(filter(None, platform.libc_ver()))
    return ", ".join(filter(None, (f"{platform.system()} {platform.release()}", platform.machine(), name, library)))


def _memory() -> dict[str, int] | None:
    try:
        return dict(zip(("free", "total"), host_memory(), strict=True))
    except (AttributeError, OSError, ValueError):  # Windows has no sysconf
        return None


def _requirements() -> tuple[list[str], dict[str, list[str]]]:
    """What the installed package asks for, the best known first: always, and by extra."""
    try:
        asked = importlib.metadata.requires("monai-cae") or []
    except importlib.metadata.PackageNotFoundError:  # on PYTHONPATH
        return list(_FIRST), {}
    parted = [[part.strip() for part in text.partition(";")[::2]] for text in asked]
    needed = [requirement for requirement, marker in parted if "extra" not in marker]
    order = {name: place for place, name in enumerate(_FIRST)}
    extras: dict[str, list[str]] = {name: [] for name in EXTRAS}
    for requirement, marker in parted:
        named = re.search(r"extra == ['\"]([\w-]+)['\"]", marker)
        if named and named[1] in extras:
            extras[named[1]].append(requirement)
    return sorted(needed, key=lambda text: order.get(_name_of(text), len(order))), extras


def _name_of(requirement: str) -> str:
    found = re.match(r"[\w.-]+", requirement)
    return found[0].lower() if found else requirement


def _package(requirement: str, discreet: Callable[[str], str]) -> dict[str, str]:
    """Its version, and what is wrong with it: an old version, or a module that can't be imported."""
    name = _name_of(requirement)
    try:
        version = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return {"name": name, "version": "", "problem": f"is missing: pip install '{requirement}'"}
    try:
        importlib.import_module(_MODULES.get(name, name.replace("-", "_")))
    except Exception as error:  # whatever a broken library raises
        return {"name": name, "version": version, "problem": f"can't be imported: {discreet(described(error))}"}
    with suppress(ImportError, ValueError):
        from packaging.requirements import Requirement

        if not Requirement(requirement).specifier.contains(version, prereleases=True):
            return {"name": name, "version": version, "problem": f"has another version than asked: {requirement}"}
    return {"name": name, "version": version, "problem": ""}


def _torch(discreet: Callable[[str], str]) -> dict[str, Any]:
    """Devices, and what a training would choose."""
    found: dict[str, Any] = {"gpus": [], "cuda": f"not known; {_driver()}", "device": "cpu", "threads": None}
    found |= {"precision": "auto", "precision_told": "not known"}
    try:
        import torch

        from monai_cae.folders import bundle_folder
        from monai_cae.training.engines.inferers import has_fast_bfloat16

        found["cuda"] = ", ".join(_cuda(torch))
        found["threads"] = min(torch.get_num_threads(), allowed_cores())
        if torch.cuda.is_available():
            found["device"] = "cuda"
            found["gpus"] = [_gpu(torch, number) for number in range(torch.cuda.device_count())]
        config = (bundle_folder() / "configs" / "train.json").read_text(encoding="utf-8")
        found["precision"] = found["precision_told"] = json.loads(config)["precision"]
        if found["precision"] == "auto":
            chosen = "bfloat16" if has_fast_bfloat16(torch.device(found["device"])) else "float32"
            found["precision_told"] = f"auto, which is {chosen} here"
    except Exception as error:  # whatever a broken library or driver raises
        found["precision_told"] = f"not known ({discreet(described(error))})"
    return found


def _cuda(torch: Any) -> Iterator[str]:
    if torch.version.hip:
        yield f"ROCm {torch.version.hip}"
    elif torch.version.cuda is None:
        yield "PyTorch is a build without it"
    else:
        yield f"{torch.version.cuda} in PyTorch, cuDNN {torch.backends.cudnn.version()}"
    yield _driver()


def _driver() -> str:
    """NVIDIA's, which may be there where PyTorch has no CUDA."""
    with suppress(OSError):
        told = Path("/proc/driver/nvidia/version").read_text(encoding="utf-8", errors="replace")
        if version := re.search(r"\d+\.\d+(\.\d+)?", told):
            return f"driver {version[0]}"
    return "no NVIDIA driver found"


def _gpu(torch: Any, number: int) -> str:
    card = torch.cuda.get_device_properties(number)
    free, total = torch.cuda.mem_get_info(number)
    return f"{card.name}, {_gib(free)} free of {_gib(total)}, compute capability {card.major}.{card.minor}"


def _place(name: str, folder: Callable[[], str], discreet: Callable[[str], str]) -> dict[str, Any]:
    path, problem, free = "", "", None
    try:
        path = folder()
        free = shutil.disk_usage(path).free
        with tempfile.TemporaryFile(dir=path) as file:
            file.write(b"synthetic")
            file.flush()
    except OSError as error:
        problem = f"can't be written ({error.strerror or type(error).__name__})"
    return {"name": name, "path": discreet(path) or "not there", "problem": problem, "free": free}


def _tracking(discreet: Callable[[str], str]) -> str:
    given = os.environ.get("MLFLOW_TRACKING_URI", "")
    return f"{discreet(given)} (MLFLOW_TRACKING_URI)" if given else "mlruns.db in each output_dir (SQLite)"


def _environment(discreet: Callable[[str], str]) -> dict[str, str]:
    told = {name: discreet(os.environ[name])[:100] for name in _TOLD if name in os.environ}
    named = dict.fromkeys((name for name in _NAMED if name in os.environ or name.lower() in os.environ), "(set)")
    return {**told, **named}


if __name__ == "__main__":
    sys.exit(main())
