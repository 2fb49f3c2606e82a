"""What a prediction in chunks leaves on disk: the list that it began with, and a Parquet data set of what is done.

    OUT/manifest.json                            what predicts, how, and the hash of the list
    OUT/scans.parquet                            path, size, time and chunk of every scan
    OUT/predictions/group=000/part-000000.parquet    a chunk that is done; 1,000 in a folder

The presence of a part is the only record that its chunk is done, and it appears whole. The coordinator alone writes.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from monai_cae.errors import MonaiCaeError
from monai_cae.files import marked, replacing, sha256_of, unmarked, write_text
from monai_cae.prediction.listing import Listed

DATASET, MANIFEST, SCANS = "predictions", "manifest.json", "scans.parquet"
_IN_A_FOLDER = 1000
_ROWS = 1 << 16  # of the list that are in memory at a time
_BESIDE = ("left_out.csv", "strangers.png", "predictions.csv", "samples.csv")
_KINDS = {float: pa.float64(), int: pa.int64(), str: pa.string()}
_LIST = pa.schema(
    [("path", pa.string()), ("size", pa.int64()), ("time", pa.float64()), ("chunk", pa.int32())]  # type: ignore[arg-type]
)
_DIFFERENT = {
    "software": "another version of monai-cae",
    "given": "other scans",
    "chunk": "another --chunk",
    "files": "other weights or another table",
    "settings": "other settings",
    "columns": "other columns",
}


class Record:
    """The files of one prediction in chunks.

    Args:
        out: the folder.
        made: what the predictions depend on, plain values by the names of `_DIFFERENT`; with `chunk`, scans in one,
            and `columns`, name -> "float", "int" or "str".
    """

    def __init__(self, out: Path, made: Mapping[str, Any]) -> None:
        self.out = out
        self.made = json.loads(json.dumps(made))
        self.folder = out / DATASET
        self.chunk: int = made["chunk"]
        kinds = {kind.__name__: arrow for kind, arrow in _KINDS.items()}
        self.schema = pa.schema([(name, kinds[kind]) for name, kind in made["columns"].items()])
        self.scans = 0

    def begin(self, scans: Iterable[Listed], *, resume: bool, overwrite: bool) -> None:
        """Fix the list, or take the one that is there.

        Args:
            scans: only looked at where there is no list yet.
            resume: go on with what is there.
            overwrite: replace what is there.

        Raises:
            MonaiCaeError: earlier results that are neither to be resumed nor to be replaced, or of something else.
        """
        manifest, found = self.out / MANIFEST, None
        if resume and overwrite:
            raise MonaiCaeError("--resume true keeps earlier results, --overwrite true replaces them: give one")
        groups = [*self.folder.glob("group=*")]
        earlier = [name for name in (MANIFEST, *_BESIDE) if (self.out / name).exists()] + [DATASET] * bool(groups)
        if resume and manifest.is_file():
            found = self._read(manifest)
        elif earlier and not overwrite:
            going_on = "" if resume else "--resume true goes on, "  # which it could not without a manifest
            raise MonaiCaeError(
                f"{self.out} already has {', '.join(earlier)}: {going_on}--overwrite true replaces, or choose another "
                "folder"
            )
        if found is None:
            with replacing(self.out / SCANS) as temporary:
                self.scans = self._write_list(scans, temporary)
                for name in (MANIFEST, *_BESIDE):  # the manifest first: parts without one are nobody's
                    (self.out / name).unlink(missing_ok=True)
                for group in groups:
                    shutil.rmtree(group)
            made = {**self.made, "scans": self.scans, "list": sha256_of(self.out / SCANS)}
            write_text(manifest, json.dumps(marked(made), indent=2, ensure_ascii=False) + "\n")
        else:
            self.scans = found["scans"]

    def _read(self, manifest: Path) -> dict[str, Any]:
        advice = "choose another folder, or --overwrite true to begin anew"
        try:
            found = json.loads(manifest.read_text(encoding="utf-8"))
            whole = found["list"] == sha256_of(self.out / SCANS) and isinstance(found["scans"], int)
        except (OSError, ValueError, TypeError, LookupError) as error:
            raise MonaiCaeError(f"{manifest} or its {SCANS} can't be read ({error}): {advice}") from error
        found = unmarked(found, manifest)
        if not whole:
            raise MonaiCaeError(f"{self.out / SCANS} is not the list that {manifest} is about: {advice}")
        for name, what in _DIFFERENT.items():
            if found.get(name) != self.made[name]:
                which = ""
                if isinstance(was := found.get(name), Mapping) and isinstance(now := self.made[name], Mapping):
                    names = sorted(key for key in {*was, *now} if was.get(key) != now.get(key))
                    which = f" ({', '.join(names)})"
                elif not isinstance(was, Mapping):
                    which = f" ({was})"
                raise MonaiCaeError(f"{manifest} is of {what}{which}: give the same, {advice}")
        return found

    def _write_list(self, scans: Iterable[Listed], path: Path) -> int:
        rows, total, listed = max(1, _ROWS // self.chunk) * self.chunk, 0, iter(scans)
        with pq.ParquetWriter(path, _LIST) as writer:
            while some := list(islice(listed, rows)):
                chunks = [number // self.chunk for number in range(total, total + len(some))]
                columns = zip([*zip(*some, strict=True), chunks], _LIST, strict=True)
                writer.write_table(pa.table([pa.array(cells, field.type) for cells, field in columns], schema=_LIST))
                total += len(some)
        return total

    @property
    def chunks(self) -> int:
        """How many there are."""
        return -(-self.scans // self.chunk)

    def size(self, number: int) -> int:
        """Scans in a chunk."""
        return min(self.chunk, self.scans - number * self.chunk)

    def done(self) -> set[int]:
        """The chunks whose part is there."""
        parts = (path for path in self.folder.glob("group=*/part-*.parquet") if path.stem[5:].isdigit())
        return {number for path in parts if path == self.part(number := int(path.stem[5:])) and number < self.chunks}

    def part(self, number: int) -> Path:
        """The file of a chunk."""
        return self.folder / f"group={number // _IN_A_FOLDER:03d}" / f"part-{number:06d}.parquet"

    def left(self) -> Iterator[tuple[int, list[Listed]]]:
        """Number and scans of each chunk that is not done, read as they are asked for."""
        done, number = self.done(), 0
        with pq.ParquetFile(self.out / SCANS) as file:
            for group in range(file.num_row_groups):
                columns = file.read_row_group(group, columns=["path", "size", "time"])
                for start in range(0, columns.num_rows, self.chunk):
                    if number not in done:
                        rows = columns.slice(start, self.chunk).to_pydict().values()
                        yield number, [Listed(*row) for row in zip(*rows, strict=True)]
                    number += 1

    def write(self, number: int, rows: Sequence[Mapping[str, Any]]) -> None:
        """The part of a chunk, a row for each of its scans; what a row lacks is null."""
        table = pa.Table.from_pylist(list(rows), schema=self.schema)
        with replacing(self.part(number)) as temporary:
            pq.write_table(table, temporary)

    def read(self) -> Iterator[pa.RecordBatch]:
        """What is done, without the folders' numbers, a part at a time.

        Raises:
            MonaiCaeError: a file that is no part, or not one row for each scan.
        """
        data, rows = ds.dataset(self.folder, schema=self.schema, format="parquet", exclude_invalid_files=False), 0
        try:
            for batch in data.to_batches(batch_readahead=2, fragment_readahead=2):
                rows += batch.num_rows
                yield batch
        except (pa.ArrowInvalid, OSError) as error:  # it names the file
            reason = " ".join(str(error).split())
            raise MonaiCaeError(f"{reason}: remove that file from {self.folder}, and give --resume true") from error
        if rows != self.scans:
            raise MonaiCaeError(
                f"{self.folder} has {rows} rows for {self.scans} scans: remove the parts that are not its own, and "
                "give --resume true"
            )
