"""Some partitions of the log, projected by one loop: what a rebuild does.

Records are folded as they come, so most of a fold's events never become a row; while one stretch is written the next
is read.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import cast

from psycopg2.extensions import connection as Connection

from datarun.log import EventLog, Position, StoredRecord
from datarun.log.holes import is_hole
from datarun.projection.apply import load
from datarun.projection.batch import Batch, fold
from datarun.projection.holes import apply_over_holes
from datarun.projection.offsets import Gap, Offsets, unseen
from datarun.topics import Catalogue, Kind

RECORDS_A_BATCH = 100_000
"""With a fifth of that two folds of three are cut, and written twice; with twice as many one in forty less."""
BYTES_A_BATCH = 128 * 1024**2
"""Of the records' values; what is kept of them takes about twice as much."""


@dataclass(frozen=True, slots=True)
class Ground:
    """Where records come from and where rows go; it can be sent to another process."""

    open_log: Callable[[], EventLog]
    open_database: Callable[[], Connection]
    catalogue: Catalogue
    schema: str


def project_share(ground: Ground, start: Offsets, until: Offsets) -> int:
    """Apply the records of some partitions from `start` up to `until` and return how many there were."""
    with opened(ground) as (event_log, connection):
        return project(ground, event_log, connection, start, until)


def project(ground: Ground, event_log: EventLog, connection: Connection, start: Offsets, until: Offsets) -> int:
    """Do the same with a log and a database that are open; a stretch is written while the next one is read."""
    count = 0
    with _uncollected(), ThreadPoolExecutor(1) as writer:
        writing: Future[int] | None = None
        for stretch in _stretches(ground, event_log, start, until):
            count += writing.result() if writing else 0
            writing = writer.submit(_write, ground, event_log, connection, stretch)
        return count + (writing.result() if writing else 0)


@contextmanager
def opened(ground: Ground) -> Iterator[tuple[EventLog, Connection]]:
    """Yield a log to read and a database to write, closed in the end."""
    event_log, connection = ground.open_log(), ground.open_database()
    try:
        with connection, connection.cursor() as cursor:
            # As in the projector: what a crash of Postgres takes, it takes with its offsets.
            cursor.execute("set synchronous_commit = off")
        yield event_log, connection
    finally:
        connection.close()
        event_log.close()


def batches(event_log: EventLog, start: Offsets, until: Offsets) -> Iterator[list[StoredRecord]]:
    """Yield the records of some partitions from `start` up to `until`, as they are fetched."""
    left = {tp for tp in start if start[tp] < until[tp]}
    if not left:
        return
    with closing(event_log.read({tp: start[tp] for tp in left}, until_end=True)) as read:  # type: ignore[type-var]
        for records in read:
            # Equal to the partitions, and made in a tenth of the time.
            last = cast("Offsets", {one[:2]: one[2] for one in records})
            over = {tp for tp, offset in last.items() if offset >= until[tp] - 1}
            wanted = [one for one in records if one[2] < until[one[:2]]] if over else records  # type: ignore[index]
            if wanted:
                yield wanted
            left -= over
            if not left:
                return


@dataclass(slots=True)
class _Stretch:
    """Records of several partitions, folded, and the offsets they begin and end at."""

    start: Offsets
    end: Offsets
    batch: Batch
    records: int = 0
    size_bytes: int = 0

    def take(self, records: list[StoredRecord], *, catalogue: Catalogue, event_log: EventLog) -> None:
        """Fold more of the same partitions; raises Gap where records are missing, unless nothing was ever there."""
        while records:
            try:
                offsets = dict(self.end)
                fresh = unseen(records, offsets, catalogue=catalogue)
            except Gap as gap:
                if not is_hole(event_log, gap.partition, gap.expected, gap.found):
                    raise
                after = [one.position for one in records].index(Position(*gap.partition, gap.found))
                self._fold(unseen(records[:after], self.end, catalogue=catalogue), catalogue)
                self.end[gap.partition] = gap.found
                records = records[after:]
            else:
                self._fold(fresh, catalogue)
                self.end.update(offsets)
                return

    def _fold(self, fresh: list[StoredRecord], catalogue: Catalogue) -> None:
        fold(fresh, catalogue=catalogue, into=self.batch)
        self.records += len(fresh)
        self.size_bytes += sum(len(one.value or b"") for one in fresh)

    @property
    def is_full(self) -> bool:
        """Whether it is worth a transaction, or all that memory is to hold."""
        return self.records >= RECORDS_A_BATCH or self.size_bytes >= BYTES_A_BATCH


def _stretches(ground: Ground, event_log: EventLog, start: Offsets, until: Offsets) -> Iterator[_Stretch]:
    stretch = _Stretch(start, dict(start), Batch())
    for records in _aligned(event_log, start, until, catalogue=ground.catalogue):
        stretch.take(records, catalogue=ground.catalogue, event_log=event_log)
        if stretch.is_full:
            yield stretch
            stretch = _Stretch(stretch.end, dict(stretch.end), Batch())
    if stretch.records:
        yield stretch


def _aligned(
    event_log: EventLog, start: Offsets, until: Offsets, *, catalogue: Catalogue
) -> Iterator[list[StoredRecord]]:
    """Yield requests and what became of them at about the same time: together they are one row, apart they are two."""
    queues = {tp: at for tp, at in start.items() if catalogue.topic(tp.topic).kind is Kind.QUEUE}
    others = {tp: at for tp, at in start.items() if tp not in queues}
    readers = [(0, batches(event_log, part, until)) for part in (queues, others) if part]
    while readers:
        at, reader = readers.pop(0)
        records = next(reader, None)
        if records is not None:
            yield records
            readers.append((max(at, records[-1].timestamp_ms), reader))
            readers.sort(key=lambda one: one[0])


def _write(ground: Ground, event_log: EventLog, connection: Connection, stretch: _Stretch) -> int:
    if not load(stretch.batch, connection, start=stretch.start, end=stretch.end, schema=ground.schema):
        # The slow way round: it finds the record that the database refuses, and buries it.
        for records in batches(event_log, stretch.start, stretch.end):
            apply_over_holes(
                records, connection, catalogue=ground.catalogue, open_log=lambda: event_log, schema=ground.schema
            )
    return stretch.records


@contextmanager
def _uncollected() -> Iterator[None]:
    """Keep the garbage collector still: looking for cycles, which records never form, takes a third of the time."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
