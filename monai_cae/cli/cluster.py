"""Commands about the machines that `--cluster` reaches."""

from __future__ import annotations

import argparse
from pathlib import Path
from shlex import quote

from monai_cae.cluster.address import KEYS
from monai_cae.cluster.keys import make_keys
from monai_cae.tracking import program


def add_cluster(parser: argparse.ArgumentParser) -> None:
    """The subcommands."""
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    text = (
        "make the key and the certificate by which a scheduler, its workers and --cluster tls://HOST:PORT are encrypted"
    )
    one = commands.add_parser("keys", help=text, description=text, allow_abbrev=False)
    one.set_defaults(command=keys)
    one.add_argument("folder", type=Path, help="new or empty folder, on a disk that the other machines see too")


def keys(options: argparse.Namespace) -> None:
    make_keys(options.folder)
    folder = options.folder.resolve()
    cert, key = (quote(str(folder / f"{name}.pem")) for name in ("cert", "key"))
    files = f"--tls-ca-file {cert} --tls-cert {cert} --tls-key {key}"
    print(f"keys in {folder}, for a year: whoever can read key.pem can run anything on the workers and here\n")
    dask = program("dask")
    usual = "--nthreads 1 --memory-limit 0 --no-dashboard"
    print(f"  scheduler   {dask} scheduler --protocol tls --port 8786 --no-dashboard {files}")
    print("  workers     export DASK_DISTRIBUTED__WORKER__DAEMON=False")
    print(f"              {dask} worker tls://HOST:8786 {usual} {files}")
    print(f"  here        export {KEYS}={quote(str(folder))}")
    print("              monai-cae run DATA OUT --cluster tls://HOST:8786")
