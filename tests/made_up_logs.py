"""What a process that reads ahead may read, instead of a log; it must be importable there."""

from __future__ import annotations

import itertools
import os
import signal
from collections.abc import Iterator

from datarun.errors import LogUnavailable
from datarun.log import StoredRecord

RECORDS = [
    StoredRecord("t.fold-events", 3, 7, b"1", b"{}", [("ce_type", b"x"), ("empty", None)], 1_767_225_600_000),
    StoredRecord("t.fold-events", 3, 8, None, None, (), -1),
]


def some() -> Iterator[list[StoredRecord]]:
    """Yield two batches and one without records."""
    yield RECORDS
    yield []
    yield RECORDS[1:]


def away() -> Iterator[list[StoredRecord]]:
    """Yield a batch; then the log does not answer."""
    yield RECORDS
    raise LogUnavailable("nobody answers")


def dying() -> Iterator[list[StoredRecord]]:
    """Yield a batch and die."""
    yield RECORDS
    os.kill(os.getpid(), signal.SIGKILL)


def endless() -> Iterator[list[StoredRecord]]:
    """Tell the process's number in each of endless batches."""
    for number in itertools.count():
        yield [StoredRecord("t", os.getpid(), number, None, None)]
