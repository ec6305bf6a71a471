"""Reads the log for what producers claim in it, in a thread beside the requests, so that HTTP refuses what is taken.

Of several gateways one does so, under a lock that it loses when it is stopped.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from functools import partial

import psycopg2
import structlog
from psycopg2.extensions import connection as Connection

from datarun.crashes import crash_point
from datarun.db import connect
from datarun.dead_letters.letters import GATEWAY, letter_record
from datarun.errors import LogUnavailable
from datarun.intake import following
from datarun.intake.following import FOLLOWED, Loser
from datarun.log import EventLog, StoredRecord, TopicPartition
from datarun.log.holes import is_hole
from datarun.topics import DATA_EVENTS, DATA_REQUESTS, Catalogue

FOLLOWER_LOCK = 1_885_011
IDLE_SECONDS = 0.2
"""How late a record is seen at the most while all servers answer, and nothing is left to read."""
FROZEN_SECONDS = 10
"""A follower that is stopped for so long loses its lock to another gateway's."""
BEAT_SECONDS = 2.0
RETRY_SECONDS = 1.0
APPEND_SECONDS = 30.0
_BECOME_FOLLOWER = "select pg_try_advisory_lock(%s)"

log = structlog.get_logger(__name__)


class Follower:
    """The thread of one gateway."""

    def __init__(
        self, event_log: EventLog, postgres_url: str, *, catalogue: Catalogue, may_begin: Callable[[], bool]
    ) -> None:
        self._log = event_log
        self._url = postgres_url
        self._catalogue = catalogue
        self._may_begin = may_begin
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True, name="claims")

    def start(self) -> None:
        """Start reading."""
        self._thread.start()

    def stop(self) -> None:
        """Stop reading; a batch under way may still end."""
        self._stopping.set()

    def _run(self) -> None:
        away = False
        while not self._stopping.is_set():
            try:
                if self._may_begin():
                    with connected(self._url) as connection:
                        if _is_follower(connection):
                            away = False
                            self._follow(connection)
            except (LogUnavailable, psycopg2.Error) as error:
                if not away:
                    log.warning("claims.not_followed", reason=str(error).strip())
                away = True
            except Exception:
                log.exception("claims.failed")
            self._stopping.wait(RETRY_SECONDS)

    def _follow(self, connection: Connection) -> None:
        reading = Reading(self._log, connection, self._catalogue)
        beat = time.monotonic()
        with closing(self._log.read(reading.here, idle_seconds=IDLE_SECONDS)) as batches:  # type: ignore[type-var]
            for batch in batches:
                if self._stopping.is_set():
                    return
                if batch:
                    reading.take(batch)
                elif time.monotonic() - beat > BEAT_SECONDS:
                    reading.pass_over_holes()
                    beat = time.monotonic()


class Reading:
    """How far this connection has come."""

    def __init__(self, event_log: EventLog, connection: Connection, catalogue: Catalogue) -> None:
        self._log = event_log
        self._connection = connection
        self._catalogue = catalogue
        self._follow = partial(
            following.follow,
            connection=connection,
            catalogue=catalogue,
            explain=partial(_explain, event_log, catalogue),
        )
        with connection, connection.cursor() as cursor:
            self.here = following.read_offsets(cursor, catalogue=catalogue)

    def take(self, batch: list[StoredRecord]) -> None:
        """Bring the claims of records in, what they may refer to before them."""
        if any(record.topic == self._catalogue.full_name(DATA_REQUESTS) for record in batch):
            # Who asks for a split has uploaded the dataset before, in another topic.
            name = self._catalogue.full_name(DATA_EVENTS)
            uploads = {tp: offset for tp, offset in self.here.items() if tp.topic == name}
            for more in self._log.read(uploads, until_end=True):
                self._apply(more)
        self._apply(batch)

    def pass_over_holes(self) -> None:
        """Move on where nothing is left to read; also says to Postgres that this gateway lives."""
        ends = self._log.end_offsets([self._catalogue.full_name(topic) for topic in FOLLOWED])
        behind = {tp: end for tp, end in ends.items() if end > self.here.get(tp, end)}
        passed = {tp: end for tp, end in behind.items() if is_hole(self._log, tp, self.here[tp], end)}
        with self._connection, self._connection.cursor() as cursor:
            following.move_offsets(cursor, passed)
            cursor.execute("select 1")
        self.here |= passed

    def read_to_the_end(self, told: Callable[[int, int], None]) -> None:
        """Take in all that is there now; `told` how many records of how many."""
        ends = self._log.end_offsets([self._catalogue.full_name(topic) for topic in FOLLOWED])
        start = {tp: self.here[tp] for tp, end in ends.items() if end > self.here.get(tp, end)}
        for batch in self._log.read(start, until_end=True) if start else ():
            self.take(batch)
            told(sum(self.here[tp] - start[tp] for tp in start), sum(ends[tp] - start[tp] for tp in start))

    def _apply(self, records: list[StoredRecord]) -> None:
        fresh = [one for one in records if one.offset >= self.here[TopicPartition(one.topic, one.partition)]]
        self._follow(fresh)
        self.here |= {TopicPartition(one.topic, one.partition): one.offset + 1 for one in fresh}


@contextmanager
def connected(url: str) -> Iterator[Connection]:
    """Yield a connection that a stopped process loses, with its locks."""
    with closing(connect(url, application="datarun-gateway-claims", idle_seconds=FROZEN_SECONDS)) as connection:
        with connection, connection.cursor() as cursor:
            cursor.execute("set idle_session_timeout = %s", (f"{FROZEN_SECONDS}s",))
            # What a crash of Postgres takes, it takes with its offsets.
            cursor.execute("set synchronous_commit = off")
        yield connection


def _is_follower(connection: Connection) -> bool:
    with connection, connection.cursor() as cursor:
        cursor.execute(_BECOME_FOLLOWER, (FOLLOWER_LOCK,))
        return cursor.fetchone() == (True,)


def _explain(event_log: EventLog, catalogue: Catalogue, losers: Sequence[Loser]) -> None:
    letters = [
        letter_record(loser.record, reason=loser.reason, detail=loser.detail, found_by=GATEWAY, catalogue=catalogue)
        for loser in losers
    ]
    for future in [event_log.append(letter) for letter in letters]:
        try:
            future.result(APPEND_SECONDS)
        except TimeoutError as error:
            raise LogUnavailable("a dead letter was not acknowledged") from error
    for loser in losers:
        log.warning("claims.lost", position=str(loser.record.position), detail=loser.detail)
    crash_point("gateway.after_explaining")
