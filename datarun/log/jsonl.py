"""A file of records as lines of JSON, compressed with Zstandard: written at once, read by anybody."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import zstandard

from datarun.errors import DatarunError
from datarun.log import StoredRecord
from datarun.log.archive import BadArchive, read_lines
from datarun.log.lines import BadLine, from_line, to_line
from datarun.topics import Catalogue

LEVEL = 3


def write(path: Path, records: Iterable[StoredRecord], *, catalogue: Catalogue) -> int:
    """Write records to a file that must not exist, and return how many; raises DatarunError."""
    count = 0
    try:
        with path.open("xb") as file, zstandard.ZstdCompressor(LEVEL).stream_writer(file) as stream:
            for record in records:
                stream.write(to_line(record, catalogue=catalogue))
                count += 1
    except OSError as error:
        raise DatarunError(f"{path} cannot be written: {error.strerror or error}") from error
    return count


def read(path: Path, *, catalogue: Catalogue) -> Iterator[StoredRecord]:
    """Yield the records of a file; raises BadLine with its number, and DatarunError for what is no such file."""
    try:
        for number, line in enumerate(read_lines(path), 1):
            try:
                yield from_line(line, catalogue=catalogue)
            except BadLine as error:
                raise BadLine(f"line {number} is {error}") from error
    except (OSError, BadArchive) as error:
        raise DatarunError(f"{path} cannot be read: {error}") from error
