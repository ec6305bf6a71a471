"""The read model from offset 0 into another schema, by a plain loop over the log and the same `apply`.

Every batch commits its offsets, so an interrupted rebuild goes on where it was. The comparison is exact while the
live projection goes on: its snapshot is held still, and the rebuild stops at that snapshot's offsets.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from psycopg2.extensions import connection as Connection

from datarun.log import EventLog, StoredRecord, TopicPartition
from datarun.projection.apply import apply
from datarun.projection.compare import Checksum, checksums
from datarun.projection.offsets import Offsets, lock_offsets, move_offsets, read_offsets
from datarun.readmodel.schema import create_read_model, drop_read_model
from datarun.readmodel.tables import SCHEMA
from datarun.topics import PROJECTED, Catalogue, Kind

RECORDS_A_BATCH = 10_000
BYTES_A_BATCH = 32 * 1024**2

Progress = Callable[[int, int], None]
"""Told how many records are projected and how many there are to project."""
Checksums = dict[str, Checksum]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a rebuild came to; `live` is None where there was nothing to compare with."""

    applied: int
    seconds: float
    rebuilt: Checksums
    live: Checksums | None = None
    ahead: tuple[TopicPartition, ...] = ()
    """Where the rebuilt schema is past the live one, so that they cannot be compared."""

    @property
    def equal(self) -> bool:
        """Whether nothing speaks against the rebuilt read model."""
        return not self.ahead and self.live in (None, self.rebuilt)


class Rebuild:
    """One rebuild: `building` is written through, `live` only read."""

    def __init__(
        self,
        event_log: EventLog,
        building: Connection,
        live: Connection,
        *,
        catalogue: Catalogue,
        schema: str,
        progress: Progress,
    ) -> None:
        self._log = event_log
        self._building = building
        self._live = live
        self._catalogue = catalogue
        self._schema = schema
        self._progress = progress
        self._applied = 0

    def run(self, *, fresh: bool = False) -> Outcome:
        """Project up to where the live read model is, or to the log's end, and compare.

        Raises LogUnavailable, and psycopg2's OperationalError; a later run goes on from there.
        """
        started = time.monotonic()
        self._prepare(fresh=fresh)
        goal = self._live_offsets()
        reached = self._project(goal or self._ends())
        live = None
        if goal is not None:
            # The live one moved on meanwhile; this snapshot of it stays still while the rest is caught up.
            goal = self._live_offsets() or {}
            reached = self._project(goal)
            with self._live.cursor() as cursor:
                live = checksums(cursor, schema=SCHEMA, catalogue=self._catalogue)
        seconds = time.monotonic() - started
        with self._building, self._building.cursor() as cursor:
            rebuilt = checksums(cursor, schema=self._schema, catalogue=self._catalogue)
        ahead = tuple(tp for tp, offset in (goal or {}).items() if reached[tp] != offset)
        return Outcome(self._applied, seconds, rebuilt, live, ahead)

    def _prepare(self, *, fresh: bool) -> None:
        with self._building, self._building.cursor() as cursor:
            # As in the projector: what a crash of Postgres takes, it takes with its offsets.
            cursor.execute("set synchronous_commit = off")
            if fresh:
                drop_read_model(self._building, schema=self._schema)
            create_read_model(self._building, schema=self._schema)

    def _live_offsets(self) -> Offsets | None:
        """Return the live read model's offsets in a new snapshot that stays; None if there is no live read model."""
        self._live.rollback()
        self._live.set_session(isolation_level="REPEATABLE READ", readonly=True)
        with self._live.cursor() as cursor:
            cursor.execute("select to_regclass(%s)", (f"{SCHEMA}.projection_offset",))
            return None if cursor.fetchone() == (None,) else read_offsets(cursor, schema=SCHEMA)

    def _ends(self) -> Offsets:
        return self._log.end_offsets([self._catalogue.full_name(topic) for topic in PROJECTED])

    def _project(self, until: Offsets) -> Offsets:
        """Apply what lies before the given offsets and return where the schema is then."""
        with self._building, self._building.cursor() as cursor:
            here = lock_offsets(cursor, until, schema=self._schema) if until else {}
        total = self._applied + sum(max(end - here[tp], 0) for tp, end in until.items())
        for records in self._batches({tp: here[tp] for tp, end in until.items() if here[tp] < end}, until):
            self._applied += apply(records, self._building, catalogue=self._catalogue, schema=self._schema).count
            self._progress(self._applied, total)
        return self._pass_over(until) if until else {}

    def _batches(self, start: Offsets, until: Offsets) -> Iterator[list[StoredRecord]]:
        batch: list[StoredRecord] = []
        size = 0
        for records in self._log.read(start, until_end=True) if start else ():
            wanted = [one for one in records if one.offset < until[TopicPartition(one.topic, one.partition)]]
            batch += wanted
            size += sum(len(one.value or b"") for one in wanted)
            if len(batch) >= RECORDS_A_BATCH or size >= BYTES_A_BATCH:
                yield batch
                batch, size = [], 0
        if batch:
            yield batch

    def _pass_over(self, until: Offsets) -> Offsets:
        """Move on where a compacted topic has forgotten its last records before the goal."""
        with self._building, self._building.cursor() as cursor:
            offsets = lock_offsets(cursor, until, schema=self._schema)
            for tp, end in until.items():
                if self._catalogue.topic(tp.topic).kind is Kind.STATE:
                    offsets[tp] = max(offsets[tp], end)
            move_offsets(cursor, offsets, schema=self._schema)
            return offsets
