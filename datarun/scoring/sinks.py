"""Where rescored rows go: lines of JSON or CSV, to a file that a killed process can go on with, or a stream."""

from __future__ import annotations

import csv
import hashlib
import io
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import IO

import orjson
from pydantic import BaseModel, ConfigDict, ValidationError

from datarun.errors import DatarunError
from datarun.log import TopicPartition
from datarun.scoring.history import Offsets
from datarun.scoring.rescoring import Row


class OtherScores(DatarunError):
    """The file holds other scores."""


def as_jsonl(rows: Iterable[Row]) -> bytes:
    """Return rows as lines of JSON."""
    return b"".join(orjson.dumps(row.told()) + b"\n" for row in rows)


def as_csv(rows: Iterable[Row]) -> bytes:
    """Return rows as lines of CSV; a number is written so that it is read as the same one."""
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows(rows)
    return out.getvalue().encode()


def csv_header() -> bytes:
    """Return the first line of CSV."""
    return (",".join(Row._fields) + "\n").encode()


class Progress(BaseModel):
    """How far a rescoring has come: up to where it read the log, the groups that are done, the length of the file."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    asked: str
    """A digest of what was asked for."""
    end: list[tuple[str, int, int]]
    groups: int
    length: int

    @property
    def offsets(self) -> Offsets:
        """Up to where the log was read."""
        return {TopicPartition(topic, partition): offset for topic, partition, offset in self.end}


class ScoreFile:
    """A file of rows, and beside it a `.state` that says how much of it is whole."""

    def __init__(self, path: Path, *, asked: Sequence[object]) -> None:
        self._path = path
        self._state = path.with_name(f"{path.name}.state")
        self._asked = hashlib.sha256(repr(asked).encode()).hexdigest()
        self._file: IO[bytes] | None = None

    def begun(self) -> Progress | None:
        """Return how far an earlier process came, None for none; raises OtherScores, OSError."""
        try:
            found = Progress.model_validate_json(self._state.read_bytes())
        except FileNotFoundError:
            if self._path.exists():
                raise OtherScores(f"{self._path} is there already; take another name or --fresh") from None
            return None
        except ValidationError as error:
            raise OtherScores(f"{self._state} does not tell how far a rescoring has come") from error
        if found.asked != self._asked:
            raise OtherScores(f"{self._path} is of other options: go on with those, or begin with --fresh")
        return found

    def forget(self) -> None:
        """Forget an earlier process; raises OSError."""
        self._state.unlink(missing_ok=True)
        self._path.unlink(missing_ok=True)

    def open(self, begun: Progress | None, *, header: bytes) -> None:
        """Open the file, cut to what is known to be whole; raises OtherScores, OSError."""
        length = begun.length if begun else 0
        self._file = self._path.open("r+b" if length else "wb")
        if self._file.seek(0, os.SEEK_END) < length:
            raise OtherScores(f"{self._path} is shorter than the {length} bytes that were written to it")
        self._file.truncate(length)
        self._file.seek(length)
        if not length:
            self._file.write(header)

    def write(self, content: bytes) -> None:
        """Write some rows."""
        self._opened.write(content)

    def save(self, end: Offsets, *, groups: int) -> None:
        """Make what was written durable, and remember how far it goes; raises OSError."""
        length = self._opened.tell()
        _sync(self._opened)
        listed = [(tp.topic, tp.partition, offset) for tp, offset in sorted(end.items())]
        state = Progress(asked=self._asked, end=listed, groups=groups, length=length)
        aside = self._state.with_name(f"{self._state.name}.new")
        with aside.open("wb") as file:
            file.write(state.model_dump_json().encode())
            _sync(file)
        aside.replace(self._state)

    def finish(self) -> None:
        """Say that all of it is there."""
        _sync(self._opened)
        self._opened.close()
        self._state.unlink(missing_ok=True)

    @property
    def _opened(self) -> IO[bytes]:
        if self._file is None:
            raise OtherScores(f"{self._path} is not open")
        return self._file


def _sync(file: IO[bytes]) -> None:
    file.flush()
    os.fsync(file.fileno())
