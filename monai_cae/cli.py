"""The `monai-cae` command: parse, call, print. Training and inference run through `python -m monai.bundle`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from monai_cae import __version__
from monai_cae.errors import MonaiCaeError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Returns:
        Exit status: 0, 1 after a mistake that one line on stderr explains, 130 after Ctrl-C.
    """
    options = _parser().parse_args(arguments)
    try:
        options.command(options)
    except MonaiCaeError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="monai-cae",
        description="Cohorts for the MONAI bundle of a convolutional autoencoder on single brain MRI slices. "
        "Research software, not a medical device.",
    )
    parser.add_argument("--version", action="version", version=f"monai-cae {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    phantom = commands.add_parser("phantom", help="write a synthetic cohort in OASIS-1's disk format")
    phantom.add_argument("out", type=Path, help="new or empty folder")
    phantom.add_argument("--subjects", type=int, default=60, help="how many, half of them patients (default: 60)")
    phantom.add_argument("--seed", type=int, default=0, help="the same seed writes the same files (default: 0)")
    phantom.set_defaults(command=_phantom)

    cohort = commands.add_parser("cohort", help="print who takes part, beside the paper's Table I")
    cohort.add_argument(
        "path", type=Path, help="cohort folder (OASIS-1 discs, or a folder with a table), or a table alone"
    )
    cohort.add_argument("--table", type=Path, help="the table, where it is not in the folder")
    cohort.add_argument("--plane", default="axial", help="subfolder of a plain folder's images (default: axial)")
    cohort.add_argument("--controls", default="oldest", help="oldest: as many as patients; all (default: oldest)")
    cohort.set_defaults(command=_cohort)
    return parser


def _phantom(options: argparse.Namespace) -> None:
    from tqdm import tqdm

    from monai_cae.data import write_phantom

    write_phantom(
        options.out,
        subjects=options.subjects,
        seed=options.seed,
        progress=lambda items: tqdm(items, desc="synthetic subjects", unit="subject", total=options.subjects),
    )
    print(f"{options.subjects} synthetic subjects (not real MRI) in {options.out}")
    print(f"next: monai-cae cohort {options.out}")


def _cohort(options: argparse.Namespace) -> None:
    from monai_cae.data import PAPER_TABLE_1, load_cohort, table_1

    cohort = load_cohort(options.path, table=options.table, plane=options.plane, controls=options.controls)
    ours = table_1(cohort)
    kind = "SYNTHETIC cohort, not real MRI" if cohort.synthetic else "cohort"
    print(f"{kind}: {options.path}\n")
    print(f"{'':<24}{'this cohort':^32}{'the paper (Table I)':^32}")
    print(f"{'':<24}" + f"{'patients':>15}{'controls':>16} " * 2)
    for row, paper in PAPER_TABLE_1.items():
        print(f"{row:<24}" + f"{ours[row][0]:>15}{ours[row][1]:>16} " + f"{paper[0]:>15}{paper[1]:>16}")
    print("\npatients: CDR > 0; controls: CDR 0")
    for reason, count in cohort.left_out.items():
        print(f"left out: {count:>4} {reason}")


if __name__ == "__main__":
    sys.exit(main())
