"""The read model from offset 0 into another schema, by plain loops over the log and the same `apply`.

Every batch commits its offsets, so an interrupted rebuild goes on where it was. The comparison is exact while the
live projection goes on: its snapshot is held still, and the rebuild stops at that snapshot's offsets.
"""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor, wait
from dataclasses import dataclass

from psycopg2.extensions import connection as Connection

from datarun.log import TopicPartition
from datarun.projection.compare import Checksum, checksums
from datarun.projection.offsets import Offsets, lock_offsets, move_offsets, read_offsets
from datarun.projection.share import Ground, project_share
from datarun.readmodel import SCHEMA
from datarun.readmodel.schema import create_read_model, drop_read_model
from datarun.topics import PROJECTED

WORTH_PROCESSES = 300_000
"""Below so many records starting processes takes longer than they save."""
REPORT_SECONDS = 0.2

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
    """One rebuild, by as many processes as `jobs`, one for each core."""

    def __init__(self, ground: Ground, *, jobs: int, progress: Progress) -> None:
        self._ground = ground
        self._jobs = jobs
        self._progress = progress
        self._applied = 0
        self._seconds = 0.0

    def run(self, *, fresh: bool = False) -> Outcome:
        """Project up to where the live read model is, or to the log's end, and compare.

        Raises LogUnavailable, and psycopg2's OperationalError; a later run goes on from there.
        """
        building, live = self._ground.open_database(), self._ground.open_database()
        try:
            self._prepare(building, fresh=fresh)
            return self._run(building, live)
        finally:
            building.close()
            live.close()

    def _run(self, building: Connection, live: Connection) -> Outcome:
        goal = _live_offsets(live)
        reached = self._project(building, self._ends() if goal is None else goal)
        if goal is None:
            return Outcome(self._applied, self._seconds, self._checksums(building, self._ground.schema))
        # The live one moved on meanwhile; this snapshot of it stays still while the rest is caught up.
        goal = _live_offsets(live) or {}
        reached = self._project(building, goal)
        rebuilt, of_live = self._checksums(building, self._ground.schema), self._checksums(live, SCHEMA)
        ahead = tuple(tp for tp, offset in goal.items() if reached[tp] != offset)
        return Outcome(self._applied, self._seconds, rebuilt, of_live, ahead)

    def _prepare(self, building: Connection, *, fresh: bool) -> None:
        with building:
            if fresh:
                drop_read_model(building, schema=self._ground.schema)
            create_read_model(building, schema=self._ground.schema)

    def _checksums(self, connection: Connection, schema: str) -> Checksums:
        with connection.cursor() as cursor:
            return checksums(cursor, schema=schema, catalogue=self._ground.catalogue)

    def _ends(self) -> Offsets:
        event_log = self._ground.open_log()
        try:
            return event_log.end_offsets([self._ground.catalogue.full_name(topic) for topic in PROJECTED])
        finally:
            event_log.close()

    def _project(self, building: Connection, until: Offsets) -> Offsets:
        """Apply what lies before the given offsets and return where the schema is then."""
        if not until:
            return {}
        started, before = time.monotonic(), self._applied
        here = self._here(building, until)
        left = {tp: end - here[tp] for tp, end in until.items() if here[tp] < end}
        total = before + sum(left.values())
        jobs = self._jobs if sum(left.values()) >= WORTH_PROCESSES else 1
        with _pool(jobs) as pool:
            running = [
                pool.submit(project_share, self._ground, {tp: here[tp] for tp in share}, until)
                for share in _shares(left, jobs)
            ]
            while wait(running, REPORT_SECONDS).not_done:
                now = self._here(building, until)
                self._progress(before + sum(now[tp] - here[tp] for tp in left), total)
            self._applied += sum(share.result() for share in running)
        self._progress(self._applied, total)
        self._seconds += time.monotonic() - started
        return self._pass_over(building, until)

    def _here(self, building: Connection, until: Offsets) -> Offsets:
        with building, building.cursor() as cursor:
            found = read_offsets(cursor, schema=self._ground.schema)
        return {tp: found.get(tp, 0) for tp in until}

    def _pass_over(self, building: Connection, until: Offsets) -> Offsets:
        """Move on where nothing is left to read before the goal: forgotten by a compacted topic, or a hole."""
        with building, building.cursor() as cursor:
            offsets = lock_offsets(cursor, until, schema=self._ground.schema)
            for tp, end in until.items():
                offsets[tp] = max(offsets[tp], end)
            move_offsets(cursor, offsets, schema=self._ground.schema)
            return offsets


def _live_offsets(live: Connection) -> Offsets | None:
    """Return the live read model's offsets in a new snapshot that stays; None if there is no live read model."""
    live.rollback()
    live.set_session(isolation_level="REPEATABLE READ", readonly=True)
    with live.cursor() as cursor:
        cursor.execute("select to_regclass(%s)", (f"{SCHEMA}.projection_offset",))
        return None if cursor.fetchone() == (None,) else read_offsets(cursor, schema=SCHEMA)


def _pool(jobs: int) -> ProcessPoolExecutor | ThreadPoolExecutor:
    if jobs == 1:
        return ThreadPoolExecutor(1)
    # Not forked: librdkafka's and psycopg2's threads and connections do not survive that.
    return ProcessPoolExecutor(jobs, mp_context=multiprocessing.get_context("spawn"))


def _shares(left: Offsets, jobs: int) -> list[list[TopicPartition]]:
    """Deal the partitions out, the longest first, each to who has least to do."""
    shares: list[list[TopicPartition]] = [[] for _ in range(jobs)]
    load = [0] * jobs
    for tp in sorted(left, key=lambda one: left[one], reverse=True):
        least = load.index(min(load))
        shares[least].append(tp)
        load[least] += left[tp]
    return [share for share in shares if share]
