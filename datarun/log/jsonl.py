"""Records as lines of JSON, compressed with Zstandard: bytes for bytes what the log held, and readable by anybody."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import orjson
import zstandard

from datarun.errors import DatarunError
from datarun.log import StoredRecord
from datarun.topics import Catalogue

LEVEL = 3
MAX_LINE_BYTES = 16 * 1024 * 1024
"""Several times what a record can become."""


class BadLine(DatarunError):
    """A line is not a record."""


def write(path: Path, records: Iterable[StoredRecord], *, catalogue: Catalogue) -> int:
    """Write records to a file that must not exist, and return how many; raises DatarunError."""
    count = 0
    try:
        with path.open("xb") as file, zstandard.ZstdCompressor(LEVEL).stream_writer(file) as stream:
            for record in records:
                stream.write(orjson.dumps(to_line(record, catalogue=catalogue), option=orjson.OPT_APPEND_NEWLINE))
                count += 1
    except OSError as error:
        raise DatarunError(f"{path} cannot be written: {error.strerror or error}") from error
    return count


def read(path: Path, *, catalogue: Catalogue) -> Iterator[StoredRecord]:
    """Yield the records of a file; raises BadLine with its number, and DatarunError for what is no such file."""
    try:
        with path.open("rb") as file, zstandard.ZstdDecompressor().stream_reader(file) as stream:
            lines = io.BufferedReader(stream)
            number = 0
            while line := lines.readline(MAX_LINE_BYTES):
                number += 1
                yield _record(line, number, catalogue)
    except (OSError, zstandard.ZstdError) as error:
        raise DatarunError(f"{path} cannot be read: {error}") from error


def to_line(record: StoredRecord, *, catalogue: Catalogue) -> dict[str, Any]:
    """Return what is written of a record; its topic without the installation's prefix."""
    return {
        "topic": record.topic.removeprefix(catalogue.prefix),
        "partition": record.partition,
        "offset": record.offset,
        "timestamp_ms": record.timestamp_ms,
        "key": _text(record.key),
        "headers": [[name, _text(value)] for name, value in record.headers],
        "value": _text(record.value),
    }


def _record(line: bytes, number: int, catalogue: Catalogue) -> StoredRecord:
    try:
        said = orjson.loads(line)
        return StoredRecord(
            catalogue.prefix + _typed(said["topic"], str),
            _typed(said["partition"], int),
            _typed(said["offset"], int),
            _bytes(said["key"]),
            _bytes(said["value"]),
            tuple((_typed(name, str), _bytes(value)) for name, value in said["headers"]),
            _typed(said["timestamp_ms"], int),
        )
    except (orjson.JSONDecodeError, KeyError, TypeError, ValueError) as error:
        raise BadLine(f"line {number} is not a record: {error!r}") from error


def _typed(value: Any, kind: type) -> Any:
    if type(value) is not kind:
        raise TypeError(f"{value!r} is not {kind.__name__}")
    return value


def _text(content: bytes | None) -> str | dict[str, str] | None:
    """Return bytes as text where they are; else what says that they are not."""
    if content is None:
        return None
    try:
        return content.decode()
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(content).decode()}


def _bytes(said: Any) -> bytes | None:
    match said:
        case None:
            return None
        case str():
            return said.encode()
        case {"base64": str(encoded)}:
            return base64.b64decode(encoded, validate=True)
        case _:
            raise TypeError(f"{said!r} is neither text nor base64")
