"""Replayed records as the tables of a read model, folded and copied as a rebuild does it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import chain, zip_longest

from datarun.log import EventLog, StoredRecord, TopicPartition
from datarun.projection.apply import apply, load
from datarun.projection.batch import Batch, fold
from datarun.projection.holes import pass_over
from datarun.projection.offsets import Offsets, read_offsets
from datarun.projection.share import BYTES_A_BATCH, RECORDS_A_BATCH, Ground, batches
from datarun.readmodel.schema import create_read_model
from datarun.replay.targets import Written
from datarun.topics import PROJECTED

Takes = Callable[[StoredRecord], bool]


class SchemaTarget:
    """Tables of a read model of their own; their offsets are in the transaction of what they stand for."""

    def __init__(self, ground: Ground, event_log: EventLog, *, takes: Takes, is_slow: bool = False) -> None:
        """Make the tables if they are missing; `takes` tells what is meant, `is_slow` that each piece is to show."""
        self._ground = ground
        self._log = event_log
        self._takes = takes
        self._most = 0 if is_slow else RECORDS_A_BATCH
        self._projected = {ground.catalogue.full_name(topic) for topic in PROJECTED}
        self._connection = ground.open_database()
        with self._connection, self._connection.cursor() as cursor:
            # As in the projector: what a crash of Postgres takes, it takes with its offsets.
            cursor.execute("set synchronous_commit = off")
            create_read_model(self._connection, schema=ground.schema)
        self._begin(self.offsets())

    def offsets(self) -> Offsets:
        """Return up to where the tables have seen the log."""
        with self._connection, self._connection.cursor() as cursor:
            return read_offsets(cursor, schema=self._ground.schema)

    def resume(self, written: Written) -> None:
        """Nothing is half done in a table."""

    def write(self, records: Sequence[StoredRecord]) -> int:
        """Fold records that the tables have not seen; raises psycopg2's OperationalError, and Gap if others write."""
        fresh = []
        for record in records:
            tp = TopicPartition(record.topic, record.partition)
            if record.topic in self._projected and record.offset >= self._end.get(tp, 0):
                fresh.append(record)
                self._end[tp] = record.offset + 1
        fold(fresh, catalogue=self._ground.catalogue, into=self._batch)
        self._records += len(fresh)
        self._bytes += sum(len(one.value or b"") for one in fresh)
        if fresh and (self._records >= self._most or self._bytes >= BYTES_A_BATCH):
            self._load()
        return len(fresh)

    def reach(self, reached: Offsets) -> bool:
        """Know that nothing else is meant before these offsets; the tables have them once they have what is."""
        for tp, offset in reached.items():
            self._end[tp] = max(self._end.get(tp, 0), offset)
        return True

    def finish(self) -> None:
        """Bring the rest into the tables, with the offsets from which a later replay goes on."""
        self._load()

    def written(self) -> Written:
        """Return nothing: the tables have it."""
        return {}

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def _begin(self, start: Offsets) -> None:
        self._start, self._end, self._batch = start, dict(start), Batch()
        self._records = self._bytes = 0

    def _load(self) -> None:
        if not self._end:
            return
        start = {tp: self._start.get(tp, 0) for tp in self._end}
        if not load(self._batch, self._connection, start=start, end=self._end, schema=self._ground.schema):
            # The slow way round: it finds the record that the database refuses, and buries it.
            for records in batches(self._log, start, self._end):
                self._apply([one for one in records if one.topic in self._projected and self._takes(one)])
            self._pass_over(self.offsets(), self._end)
        self._begin(self._end)

    def _apply(self, records: Sequence[StoredRecord]) -> None:
        here, ground = self.offsets(), self._ground
        of: dict[TopicPartition, list[StoredRecord]] = {}
        for record in records:
            of.setdefault(TopicPartition(record.topic, record.partition), []).append(record)
        # A stretch of each partition at once: without gaps that is all there is.
        for stretches in zip_longest(*map(_runs, of.values()), fillvalue=[]):
            together = list(chain.from_iterable(stretches))
            first = {TopicPartition(run[0].topic, run[0].partition): run[0].offset for run in stretches if run}
            self._pass_over(here, first)
            apply(together, self._connection, catalogue=ground.catalogue, schema=ground.schema)
            here |= {TopicPartition(one.topic, one.partition): one.offset + 1 for one in together}

    def _pass_over(self, here: Offsets, until: Offsets) -> None:
        """Move over records that are not meant."""
        for tp, stop in until.items():
            start = here.get(tp, 0)
            if start < stop:
                pass_over(self._connection, tp, start, stop, schema=self._ground.schema)


def _runs(records: Sequence[StoredRecord]) -> Iterator[list[StoredRecord]]:
    """Yield the stretches of a partition in which no offset is left out."""
    run: list[StoredRecord] = []
    for record in records:
        if run and record.offset != run[-1].offset + 1:
            yield run
            run = []
        run.append(record)
    if run:
        yield run
