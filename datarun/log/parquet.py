"""A file of records as a Parquet table: for programs that read tables, and to be read back byte for byte.

It is written beside its name, a row group at a time, and has its name once it is whole; until then a file beside it has
what its end will say, so that it can be gone on with. Texts are texts; bytes that are
no UTF-8 stand in a column of their own, as base64.
"""

from __future__ import annotations

import base64
import os
import struct
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import orjson

from datarun.crashes import crash_point
from datarun.envelope import header
from datarun.errors import DatarunError
from datarun.log import StoredRecord
from datarun.log.lines import BadLine, from_line, said_of
from datarun.log.row_groups import RowGroups
from datarun.topics import Catalogue

SUFFIX = ".parquet"
ROWS_A_GROUP = 5000
WORTH_A_GROUP = ROWS_A_GROUP // 2
"""So many rows are written where a table may be gone on from."""
BYTES_A_GROUP = 32 << 20
MOST_BYTES_A_GROUP = 1 << 30
"""A file that says that a row group of it takes more memory is refused."""
_MARK = b"PAR1"
LAST_MS = 253_402_300_799_999
"""The end of the year 9999."""
_NUMBERS = {"partition": "int32", "offset": "int64", "timestamp_ms": "int64"}
_COLUMNS = {
    "topic": "object", **_NUMBERS, "key": "object", "key_base64": "object", "type": "object", "version": "int32",
    "event_id": "object", "headers": "object", "value": "object", "value_base64": "object",
}  # fmt: skip
"""The columns but `timestamp`, and what they are in memory; those of texts are optional."""
_TEXTS = tuple(name for name, kind in _COLUMNS.items() if kind == "object")
_READ = tuple(name for name in _COLUMNS if name not in ("type", "version", "event_id"))
_TYPE = "datarun."

Written = Mapping[str, int]
"""What a table has had written to it: rows, their groups, and the file's length."""


class BadTable(DatarunError):
    """A file is not a Parquet table of records."""


class TableWriter:
    """Writes a table; `finish` gives the file its name, and until then there is none."""

    def __init__(self, path: Path, *, catalogue: Catalogue, written: Written | None = None) -> None:
        """Begin beside the path, over whatever an earlier attempt has left there, or go on after what it had written.

        One that is told what was written, nothing at first, is kept when it is closed. Raises OSError, BadTable.
        """
        self._path = path
        self._aside = path.with_name(f"{path.name}.part")
        self._catalogue = catalogue
        self._is_kept = written is not None
        self._rows: list[dict[str, Any]] = []
        self._bytes = 0
        self._metadata: Any = None
        self.count, length, groups = 0, 0, 0
        if written:
            self.count, length, groups = written["rows"], written["length"], written["groups"]
        try:
            self._file = _opened(self._aside, length)
            self._groups = RowGroups(_groups_of(path), count=groups)
        except (EOFError, FileNotFoundError) as error:
            raise BadTable(f"{self._aside} is not what was written to it: begin with --fresh") from error
        if not length:
            self._file.write(_MARK)
            self._file.flush()

    def append(self, records: Iterable[StoredRecord]) -> None:
        """Take records; a group that is full is written. Raises OSError."""
        for record in records:
            self._rows.append(_row(record, self._catalogue))
            self._bytes += len(record.value or b"") + len(record.key or b"")
            self.count += 1
            if len(self._rows) >= ROWS_A_GROUP or self._bytes >= BYTES_A_GROUP:
                self._write_group()

    def commit(self) -> Written | None:
        """Write durably what is worth a row group and return what to go on from, or None if that is not all.

        Raises OSError.
        """
        if len(self._rows) >= WORTH_A_GROUP or self._bytes >= BYTES_A_GROUP // 2:
            self._write_group()
        if self._rows:
            return None
        return {"rows": self.count, "length": self._file.tell(), "groups": len(self._groups.known)}

    def finish(self) -> None:
        """Write what is left and the table's end, and give the file its name, durably; raises OSError."""
        from fastparquet.writer import write_thrift  # type: ignore[import-untyped]  # noqa: PLC0415 - half a second

        if self._rows or self._metadata is None:
            self._write_group()
        self._metadata.row_groups = self._groups.known
        self._metadata.num_rows = self.count
        self._file.write(struct.pack("<I", write_thrift(self._file, self._metadata)) + _MARK)
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        crash_point("table.before_name")
        self._aside.replace(self._path)
        crash_point("table.after_name")
        descriptor = os.open(self._path.parent, os.O_RDONLY)
        os.fsync(descriptor)
        os.close(descriptor)
        self._groups.remove()

    def close(self) -> None:
        """Let go of what is not finished; it is forgotten unless it is kept to go on from."""
        self._groups.close()
        if not self._file.closed:
            self._file.close()
            if not self._is_kept:
                self._groups.remove()
                self._aside.unlink(missing_ok=True)

    def _write_group(self) -> None:
        from fastparquet.writer import make_metadata, make_row_group  # noqa: PLC0415 - half a second

        frame = _frame(self._rows)
        if self._metadata is None:
            encodings = dict.fromkeys(_TEXTS, "utf8")
            self._metadata = make_metadata(frame, has_nulls=list(_TEXTS), object_encoding=encodings)
        group = make_row_group(self._file, frame, self._metadata.schema, compression="ZSTD", stats="auto")
        if group is not None:
            # First what it tells of, for it is what the next attempt goes on from.
            self._file.flush()
            if self._is_kept:
                os.fsync(self._file.fileno())
            crash_point("table.before_group")
            self._groups.append(group)
        self._rows, self._bytes = [], 0


def is_whole(path: Path) -> bool:
    """Tell whether a table has its name, and none is being written in its place; clears what a kill left beside it."""
    if not path.exists() or path.with_name(f"{path.name}.part").exists():
        return False
    _groups_of(path).unlink(missing_ok=True)
    return True


def _opened(path: Path, length: int) -> BinaryIO:
    """Open a file to go on at a length; raises OSError, EOFError for a shorter one."""
    file = path.open("r+b" if length else "wb")
    if file.seek(0, os.SEEK_END) < length:
        file.close()
        raise EOFError
    file.truncate(length)
    file.seek(length)
    return file


def _groups_of(path: Path) -> Path:
    return path.with_name(f"{path.name}.groups")


def write(path: Path, records: Iterable[StoredRecord], *, catalogue: Catalogue) -> int:
    """Write records to a file that must not exist, and return how many; raises DatarunError."""
    try:
        if path.exists():
            raise FileExistsError(None, "it exists")
        writer = TableWriter(path, catalogue=catalogue)
        try:
            writer.append(records)
            writer.finish()
        finally:
            writer.close()
    except OSError as error:
        raise DatarunError(f"{path} cannot be written: {error.strerror or error}") from error
    return writer.count


def read(path: Path, *, catalogue: Catalogue) -> Iterator[StoredRecord]:
    """Yield the records of a file, a row group in memory at a time; raises BadTable, BadLine with the row's number."""
    number = 0
    for rows in _groups(path):
        for row in rows:
            number += 1
            try:
                yield from_line(_line(row), catalogue=catalogue)
            except BadLine as error:
                raise BadLine(f"row {number} is {error}") from error


def _groups(path: Path) -> Iterator[list[dict[str, Any]]]:
    import fastparquet  # type: ignore[import-untyped]  # noqa: PLC0415 - half a second

    try:
        table = fastparquet.ParquetFile(str(path))
        largest = max((group.total_byte_size for group in table.row_groups), default=0)
        frames = table.iter_row_groups(columns=list(_READ)) if largest <= MOST_BYTES_A_GROUP else ()
        for frame in frames:
            yield frame.to_dict("records")
    except Exception as error:
        # Of a file that is no table the library says so in whatever way it notices.
        raise BadTable(f"{path} is not a table of records: {type(error).__name__}: {error}") from error
    if largest > MOST_BYTES_A_GROUP:
        raise BadTable(f"{path} has a row group of {largest:,} bytes")


def _row(record: StoredRecord, catalogue: Catalogue) -> dict[str, Any]:
    said = said_of(record, catalogue=catalogue)
    wire_type = header(record.headers, "ce_type") or ""
    name, _, version = wire_type.removeprefix(_TYPE).rpartition(".v")
    return {
        **{column: said[column] for column in ("topic", *_NUMBERS)},
        "type": name or wire_type or None,
        "version": int(version) if version.isascii() and version.isdecimal() and len(version) < 10 else 0,  # noqa: PLR2004
        "event_id": header(record.headers, "ce_id"),
        "headers": orjson.dumps(said["headers"]).decode(),
        **_texts("key", record.key),
        **_texts("value", record.value),
    }


def _texts(name: str, content: bytes | None) -> dict[str, str | None]:
    if content is None:
        return {name: None, f"{name}_base64": None}
    try:
        return {name: content.decode(), f"{name}_base64": None}
    except UnicodeDecodeError:
        return {name: None, f"{name}_base64": base64.b64encode(content).decode()}


def _line(row: dict[str, Any]) -> bytes:
    """Return what a row says as a line."""
    told: dict[str, Any] = {name: int(row[name]) for name in _NUMBERS} | {"topic": row["topic"]}
    for name in ("key", "value"):
        text, encoded = _text(row[name]), _text(row[f"{name}_base64"])
        told[name] = {"base64": encoded} if encoded is not None else text
    try:
        return orjson.dumps(told | {"headers": orjson.loads(_text(row["headers"]) or "[]")})
    except orjson.JSONDecodeError as error:
        raise BadLine(f"not a record: /headers: {error}") from error


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _frame(rows: list[dict[str, Any]]) -> Any:
    import numpy as np  # noqa: PLC0415 - half a second
    import pandas as pd  # noqa: PLC0415

    columns = {name: pd.Series([row[name] for row in rows], dtype=kind) for name, kind in _COLUMNS.items()}
    # Whatever number came with a record, here it is a time; the number itself is beside it.
    times = columns["timestamp_ms"].clip(0, LAST_MS).to_numpy().astype(np.dtype("datetime64[ms]"))
    columns["timestamp"] = pd.Series(times).dt.tz_localize("UTC")
    return pd.DataFrame(columns)
