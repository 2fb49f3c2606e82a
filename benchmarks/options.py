"""What each setting of pretrain.json that has to do with speed costs or brings, against its default.

Run: python benchmarks/options.py [--quick]        --quick measures 2 epochs of each instead of 5, and leaves out
     compiling

One CAE epoch of 112 random slices of 176 x 176, validation left out, each setting in turn with the default. `threads`
is set for the whole process, so its epochs come after the others'.
"""

from __future__ import annotations

import argparse
import contextlib
import tempfile
from typing import Any

import torch
from report import Row, alternate, finish
from workload import Stage, random_items

from monai_cae.training import use_machine


def main() -> None:
    """Print the table, write results/options.json."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true")
    quick = parser.parse_args().quick
    repeats = 2 if quick else 5
    cuda = torch.cuda.is_available()
    changed: dict[str, dict[str, Any]] = {
        "--precision float32": {"precision": "float32"},
        "--augment true": {"augment": True},
    }
    if not quick:
        word = "off" if cuda else "inductor"
        changed[f"--compile {word}"] = {"compile": word}
    items = random_items()
    with contextlib.ExitStack() as stack:

        def stage(**options: Any) -> Stage:
            folder = stack.enter_context(tempfile.TemporaryDirectory())
            return stack.enter_context(Stage("pretrain.json", items, folder, **options))

        ways = {"default": stage().training_epoch}
        ways |= {name: stage(**options).training_epoch for name, options in changed.items()}
        seconds = alternate(ways, repeats)
        for name, machine in (("--deterministic true", {"deterministic": True}), ("--threads 1", {"threads": 1})):
            turns: dict[str, Any] = {}
            for label, settings in (("default", {}), (name, machine)):
                turns[label] = lambda settings=settings: (use_machine(**settings), ways["default"]())[1]
            pair = alternate(turns, repeats, warm_up=0)
            seconds[name] = pair[name] / pair["default"] * seconds["default"]
        use_machine()
    default = seconds.pop("default")
    finish(
        "options",
        [Row(name, figure, default, "default", "s", figure / default) for name, figure in seconds.items()],
        device="cuda" if cuda else "cpu",
    )


if __name__ == "__main__":
    main()
