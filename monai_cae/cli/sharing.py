"""Commands for sharing networks: export, bundle, package."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from shlex import quote

from monai_cae import DISCLAIMER
from monai_cae.cli.options import progress
from monai_cae.errors import MonaiCaeError
from monai_cae.folders import copy_bundle


def export(options: argparse.Namespace) -> None:
    from monai_cae.sharing import export_network
    from monai_cae.sharing.screening import screen_executed

    names = ("network", "checkpoint", "volumes", "trust")
    if options.trust:
        _print_trusted([str(doubt) for doubt in screen_executed(options.bundle)])
    parity = export_network(
        options.bundle,
        options.out,
        **{name: getattr(options, name) for name in names},
        progress=progress("compare", "volume", None),
    )
    compared = f"{parity.volumes} {'random' if parity.synthetic else 'given'} volumes"
    print(f"{parity.network} of {parity.checkpoint} written to {options.out}")
    print(f"largest difference to PyTorch on {compared}: {parity.summary()}")
    print(f"report: {options.out}.parity.json")
    if parity.synthetic:
        print("next: the same command with --volumes FOLDER compares on your own scans")
    else:
        print("next: run the file in the other runtime, with the preprocessing of the inference.json that it carries")
    print(DISCLAIMER)


def bundle(options: argparse.Namespace) -> None:
    if options.package is None:
        copy_bundle(options.folder)
        config = options.folder / "configs" / "experiment.yaml"
        print(f"the bundle, without weights, is in {options.folder}")
        print(f"next: python -m monai.bundle run training --config_file {quote(str(config))} --dataset_dir COHORT")
        print(DISCLAIMER)
    else:
        from monai_cae.sharing import unpack

        bundle = unpack(options.package, options.folder, trust=options.trust)
        print(f"{bundle.name}: checked and unpacked to {options.folder}")
        _print_trusted(bundle.doubts)
        print(_next_of(options.folder))


def package(options: argparse.Namespace) -> None:
    from monai_cae.sharing import check_package, package_run

    if options.check:
        bundle = check_package(options.package, trust=options.trust)
        print(f"{bundle.name}: {options.package} is complete, and its weights fit its configs")
        _print_trusted(bundle.doubts)
        print(_next_of(options.package))
        return
    if options.output_dir is None:
        raise MonaiCaeError("give a run with --output-dir RUN, or add --check to check an existing package")
    told = {name: getattr(options, name) for name in ("data", "weights_url", "ensemble")}
    made = package_run(options.output_dir, options.package, **told)
    print(f"{made.path}: {made.size / 1e6:.1f} MB, of a run on {made.run.kind}\nsha256: {made.sha256}")
    print("contains weights, configs, metadata, model card, hashes; no image, no subject ID")
    if made.run.members > 1:
        print(f"an ensemble: {made.run.members} times the weights and the time of one network")
    if made.run.strangers:
        print("to tell strangers: up to 4,096 numbers of the code of each training image")
    print("".join(f"  ! {caveat}\n" for caveat in made.run.caveats), end="")
    if made.doubts:
        print(f"unpacking it needs --trust: {len(made.doubts)} of its settings are not monai-cae's own:")
        print("\n".join(f"  {doubt}" for doubt in made.doubts))
    print(_next_of(made.path, trust=bool(made.doubts)))


def _print_trusted(doubts: Sequence[str]) -> None:
    if doubts:
        count = "1 place" if len(doubts) == 1 else f"{len(doubts)} places, the first"
        print(f"trusted: this is not what monai-cae ships, and will run ({count}: {doubts[0]})")


def _next_of(package: Path, trust: bool = False) -> str:
    if package.is_dir():
        config = quote(str(package / "configs" / "inference.json"))
        return f"next: python -m monai.bundle run --config_file {config} --dataset_dir SCAN_OR_FOLDER\n{DISCLAIMER}"
    return f"next: monai-cae bundle FOLDER --from {quote(str(package))}{' --trust' * trust}\n{DISCLAIMER}"
