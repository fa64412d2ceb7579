"""The manifest: what became of each photo, in the order of the inputs, as one Parquet file."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from abair.errors import AbairError
from abair.files import atomic_write

if TYPE_CHECKING:
    import pyarrow

GROUP: Final = 10_000
"""Rows that are kept in memory until they are written."""


def schema() -> pyarrow.Schema:
    """Return the columns of a manifest."""
    import pyarrow as pa

    text, flag, number = pa.string(), pa.bool_(), pa.float64()
    return pa.schema(
        [
            pa.field("input", text, nullable=False),
            pa.field("output", text, nullable=False),
            ("weights", pa.map_(text, number)),
            ("seconds", number),
            ("error", text),
            ("deployment", text),
            ("skipped", flag),
            ("unchanged", flag),
            ("policy", text),
            ("quality", text),
            ("strength", number),
            ("megapixels", number),
            ("warnings", pa.list_(text)),
            ("confidence", number),
            ("unknown", number),
            ("further_looks", pa.list_(pa.map_(text, number))),
        ]
    )


class Manifest:
    """Takes records in order and writes them in groups of rows."""

    def __init__(self, writer: pyarrow.parquet.ParquetWriter, earlier: dict[str, str], group: int = GROUP) -> None:
        self._writer, self._schema, self._group = writer, schema(), group
        self._rows: list[dict[str, Any]] = []
        self._earlier = earlier
        self.empty = True

    def add(self, record: dict[str, Any]) -> None:
        """Take the record of the next photo; one that was skipped keeps what was known of it."""
        row = {name: record.get(name) for name in self._schema.names} | {"skipped": record.get("skipped", False)}
        known = self._earlier.pop(record["input"], "")
        if row["skipped"] and known:
            row = json.loads(known) | {"output": record["output"], "skipped": True}
        self._take(row)

    def keep_earlier(self) -> None:
        """Take the rows that an earlier run left and this one did not come to."""
        for known in self._earlier.values():
            self._take(json.loads(known))

    def _take(self, row: dict[str, Any]) -> None:
        self.empty = False
        if row["weights"] is not None:
            row["weights"] = list(row["weights"].items())
        if row["further_looks"] is not None:
            row["further_looks"] = [list(weights.items()) for weights in row["further_looks"]]
        self._rows.append(row)
        if len(self._rows) >= self._group:
            self.flush()

    def flush(self) -> None:
        """Write the rows that are kept in memory."""
        import pyarrow as pa

        if self._rows:
            self._writer.write_table(pa.Table.from_pylist(self._rows, schema=self._schema))
            self._rows.clear()


@contextmanager
def open_manifest(path: Path, *, go_on: bool, group: int = GROUP) -> Iterator[Manifest]:
    """Yield a manifest that replaces `path` at the end, whatever ended the run.

    A run that ends before its first photo leaves what was there.

    Args:
        path: of the Parquet file.
        go_on: of a manifest that is there, keep what it says of photos that are skipped now.
        group: rows that are written together.

    Raises:
        AbairError: the file cannot be written, or the one to go on from is no manifest.
    """
    import pyarrow.parquet as pq

    earlier = _read_done(path) if go_on and path.exists() else {}
    stop: BaseException | None = None
    try:
        with atomic_write(path) as aside, pq.ParquetWriter(aside, schema(), compression="zstd") as writer:
            manifest = Manifest(writer, earlier, group)
            try:
                yield manifest
            except BaseException as error:  # what is done is told, and then the error goes on
                stop = error
                if manifest.empty:
                    raise
                manifest.keep_earlier()
            manifest.flush()
    except OSError as error:
        if error is stop:
            raise
        raise AbairError(
            f"{path}: the manifest cannot be written ({error.strerror or error}); choose another --manifest"
        ) from error
    if stop is not None:
        raise stop


def read(path: Path) -> list[dict[str, Any]]:
    """Return the rows of a manifest; weights are dicts.

    Raises:
        AbairError: the file is no manifest.
    """
    return list(_rows(path))


def _rows(path: Path, columns: Sequence[str] | None = None) -> Iterator[dict[str, Any]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            if missing := [field.name for field in schema() if field.name not in file.schema_arrow.names]:
                raise AbairError(
                    f"{path}: found no column {missing[0]}, expected a manifest; choose another --manifest"
                )
            for batch in file.iter_batches(GROUP, columns=columns):
                for row in batch.to_pylist():
                    if row.get("weights") is not None:
                        row["weights"] = dict(row["weights"])
                    if row.get("further_looks") is not None:
                        row["further_looks"] = [dict(weights) for weights in row["further_looks"]]
                    yield row
    except (OSError, pa.ArrowException) as error:
        text = (str(error).splitlines() or [type(error).__name__])[0]
        raise AbairError(f"{path}: cannot be read as a manifest ({text}); move it away, or choose another") from error


def _read_done(path: Path) -> dict[str, str]:
    """Return by input the rows, as JSON, of photos that were restored."""
    return {row["input"]: json.dumps(row) for row in _rows(path) if row["weights"] is not None}
