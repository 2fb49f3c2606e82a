"""All scans of an input, from the sources to the QC page."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from monai_cae.cluster.address import entered
from monai_cae.prepare.batch import Outcome, Prepare, finished, prepare_all
from monai_cae.prepare.derivative import derivative, write_tables
from monai_cae.prepare.pipeline import prepare_scan, require
from monai_cae.prepare.qc import write_page, write_table
from monai_cae.prepare.settings import PrepareSettings
from monai_cae.prepare.sources import Sources


def prepare_cohort(
    sources: Sources,
    out: str | Path,
    settings: PrepareSettings | None = None,
    *,
    jobs: int = 1,
    cluster: str = "",
    resume: bool = False,
    overwrite: bool = False,
    columns: Mapping[str, str] | None = None,
    progress: Callable[[Iterable[Outcome], int], Iterable[Outcome]] | None = None,
    prepare: Prepare = prepare_scan,
) -> list[Outcome]:
    """Prepare every scan, and write a BIDS derivative with tables, qc.tsv and qc.html.

    Each scan is written whole or not at all, so a run may be killed at any time and resumed.

    Args:
        sources: what `find_sources` found.
        out: absent or empty; with `resume` or `overwrite` also an earlier run's.
        settings: defaults if None.
        jobs: scans at a time, in this process.
        cluster: whose workers prepare, see `monai_cae.cluster.address.engine_of`; "" for this machine's processes.
        resume: keep the scans that are finished with the same settings, version and input.
        overwrite: as `resume`, and prepare again those that are finished otherwise.
        columns: of subject, session and image in the cohort's table, where they have unusual names.
        progress: wraps the outcomes as they come; gets their number too.
        prepare: what makes a prepared scan of a raw one, called as `prepare_scan`; another process must be able to
            import it.

    Returns:
        The outcomes of all scans, those kept first.

    Raises:
        MonaiCaeError: what preparation needs is not installed; the folder has other content, scans that may not be
            replaced, or can't be written.
    """
    settings = settings or PrepareSettings()
    if prepare is prepare_scan:
        require(settings, masked=all(scan.mask for scan in sources.scans))
    with derivative(out, sources.layout, sources.described, go_on=resume or overwrite) as folder:
        done = {one.name: one for one in finished(folder, sources.scans, settings, overwrite=overwrite)}
        write_tables(folder, sources.scans, columns or {}, hashed=sources.private)
        left = [scan for scan in sources.scans if scan.name not in done]
        reads = {f"the scan {scan.name}": scan.path for scan in left[:1] if scan.path}
        try:
            with entered(cluster if left else "", reads=reads, writes=folder) as engine:
                outcomes = prepare_all(folder, left, settings, jobs=jobs, prepare=prepare, engine=engine)
                for outcome in progress(outcomes, len(left)) if progress else outcomes:
                    done[outcome.name] = outcome
                    write_table(folder, list(done.values()))  # a scan takes no part before its row is there
        finally:  # what is done is on the page, even after Ctrl-C
            write_page(folder, list(done.values()))
    return list(done.values())
