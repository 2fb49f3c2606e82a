"""The command that finds what fits into the memory."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Mapping
from shlex import quote
from typing import Any

from monai_cae.cli.overlays import as_settings, parsed
from monai_cae.errors import MonaiCaeError
from monai_cae.folders import bundle_folder

_STAGES = ("pretrain", "train")


def fit(options: argparse.Namespace) -> None:
    stage, given = "pretrain", options.settings
    if given and not given[0].startswith("--"):
        stage, *given = given
    if stage not in _STAGES:
        raise MonaiCaeError(f"fit takes {' or '.join(_STAGES)}, not {stage!r}")
    settings = parsed(as_settings(given, ("config_file",)))
    from monai_cae.training.stages.fit import fit

    logging.getLogger("ignite").setLevel(logging.CRITICAL)  # tries that fail are no news
    path = bundle_folder() / "configs" / f"{stage}.json"
    found = fit(path, settings)
    how = "measured" if found.measured else "estimated"
    free, total = _gib(found.free), _gib(found.total)
    print(f"{stage} on {found.device}: {total} of memory, {free} free ({how}; nothing is trained)")
    print(f"{'':<20}{'batch_size':>12}{'image_size':>12}{'memory':>16}")
    for what, batch, size, needed in found.rows:
        print(f"{what:<20}{batch:>12}{_times(size):>12}{_gib(needed) if needed is not None else 'does not fit':>16}")
    wide, narrow = found.image_bytes
    print(
        f"cache: {found.cache // narrow:,.0f} images in 16 bits stay in memory, {found.cache // wide:,.0f} in float32 "
        f"({_gib(found.cache)}); more are read from disk"
    )
    fitting = [row for row in found.rows if row[3] is not None]
    if not fitting:
        print("next: the same command with a smaller --image_size and --batch_size")
        return
    what, settings["batch_size"], size, _ = fitting[0]
    if what == "largest batch_size" and found.rows[0][3] is None:
        print(_same_steps(found.rows[0][1], settings))
    settings["image_size"] = size if isinstance(size, int) else list(size)
    more = " ".join(f"--{name} {quote(str(value))}" for name, value in settings.items())
    print(f"next: python -m monai.bundle run training --config_file {quote(str(path))} {more}")


def _same_steps(wanted: int, settings: Mapping[str, Any]) -> str:
    """How a batch that does not fit makes the same steps in parts."""
    part = next(size for size in range(settings["batch_size"], 0, -1) if wanted % size == 0)
    times = wanted // part * int(settings.get("accumulate", 1))
    told = f"steps of {wanted} images, in parts: --batch_size {part} --accumulate {times}"
    less = "--activation_checkpointing true takes less memory, too"
    return told if settings.get("activation_checkpointing") else f"{told}; {less}"


def _times(size: int | tuple[int, ...]) -> str:
    return str(size) if isinstance(size, int) else "x".join(map(str, size))


def _gib(size: float) -> str:
    return f"{size / 2**30:.2f} GiB"
