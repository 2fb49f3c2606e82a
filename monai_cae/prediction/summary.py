"""The end of a prediction in chunks: counted from the data set, whoever has written its parts and when."""

from __future__ import annotations

import sys
from collections import Counter

from monai_cae.errors import MonaiCaeError
from monai_cae.prediction.predictor import NOTE, REASON
from monai_cae.prediction.record import Record
from monai_cae.terminal import say
from monai_cae.training.results.caveats import checkpoint_caveats
from monai_cae.training.results.predictions import PredictionTable, print_predictions

_SHOWN = 3


def print_summary(record: Record, table: PredictionTable, checkpoint: str, now: int, seconds: float) -> int:
    """What a prediction of a folder prints, and of the scans without one the first reasons.

    Args:
        record: complete.
        table: takes the rows.
        checkpoint: of the network.
        now: scans that were done in this run.
        seconds: that it took.

    Returns:
        How many scans have a prediction.

    Raises:
        MonaiCaeError: a data set that has not one row for each scan, or none has a prediction.
    """
    left_out: dict[str, str] = {}
    notes: Counter[str] = Counter()
    columns: dict[str, list[object]] = {name: [] for name in record.schema.names if name not in (REASON, NOTE, "file")}
    for batch in record.read():
        texts = {name: batch.column(name).to_pylist() for name in ("file", REASON, NOTE)}
        left_out |= {file: reason for file, reason in zip(texts["file"], texts[REASON], strict=True) if reason}
        notes.update(filter(None, texts[NOTE]))
        kept = [not reason for reason in texts[REASON]]
        for name, values in columns.items():
            found = (one for one, keep in zip(batch.column(name).to_pylist(), kept, strict=True) if keep)
            values += [sys.intern(one) if isinstance(one, str) else one for one in found]
    if len(left_out) == record.scans:
        raise MonaiCaeError(f"none of {record.scans} scans can be used, the first: {next(iter(left_out.values()))}")
    table.columns, table.path, table.seconds = columns, record.folder, max(seconds, 1e-3)
    for note, count in notes.most_common(_SHOWN):
        say(f"note: of {count} scans {note}")
    print_predictions(table, left_out, checkpoint_caveats(checkpoint), now=now)
    for file, reason in list(left_out.items())[:_SHOWN]:
        say(f"    {file}: {reason}")
    print(f"  to read it   pandas.read_parquet({str(record.folder)!r})", flush=True)
    return record.scans - len(left_out)
