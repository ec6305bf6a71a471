"""What a gateway reads before its first answer: a claim that the log knows is not given out again."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import closing

import psycopg2
import structlog

from datarun.errors import LogUnavailable
from datarun.intake import following
from datarun.intake.rebuild import recover
from datarun.log import EventLog
from datarun.projection.share import Ground
from services.ingest.following import RETRY_SECONDS, Reading, connected

SAY_SECONDS = 5.0

log = structlog.get_logger(__name__)


class CatchUp:
    """Reads all claims that the log has when it first answers, in a thread; until then nothing is to be decided.

    A database that was at work before does not wait for a log that is away. One that was not may be a lost one's.
    """

    def __init__(self, ground: Ground, postgres_url: str, *, answers: Callable[[], bool]) -> None:
        self._ground = ground
        self._url = postgres_url
        self._answers = answers
        self._stopping = threading.Event()
        self._looked = threading.Event()
        self.is_done = False
        self._thread = threading.Thread(target=self._run, daemon=True, name="catch-up")

    def start(self) -> None:
        """Start reading."""
        self._thread.start()

    def stop(self) -> None:
        """Stop waiting for what is away."""
        self._stopping.set()
        self._looked.set()

    def look(self) -> None:
        """Wait until the claims are read, or something turns out to be away."""
        self._looked.wait()

    def _run(self) -> None:
        with closing(self._ground.open_log()) as event_log:
            while not self._stopping.is_set():
                try:
                    self.is_done = self._read(event_log)
                    reason = "Kafka does not answer, and this database was never at work"
                except (LogUnavailable, psycopg2.Error) as error:
                    reason = str(error).strip()
                self._looked.set()
                if self.is_done:
                    return
                log.warning("claims.waiting", reason=reason)
                self._stopping.wait(RETRY_SECONDS)

    def _read(self, event_log: EventLog) -> bool:
        with connected(self._url) as connection:
            with connection, connection.cursor() as cursor:
                is_empty = following.is_empty(cursor)
            if not self._answers():
                return not is_empty
            if not is_empty:
                Reading(event_log, connection, self._ground.catalogue).read_to_the_end(_saying())
                return True
        found = recover(self._ground, progress=_saying())
        if found.events:
            log.info("claims.made_anew", events=found.events, datasets=found.datasets, folds=found.folds)
        return True


def _saying() -> Callable[[int, int], None]:
    said = time.monotonic()

    def say(done: int, total: int) -> None:
        nonlocal said
        if time.monotonic() - said > SAY_SECONDS:
            log.info("claims.reading", records=done, of=total)
            said = time.monotonic()

    return say
