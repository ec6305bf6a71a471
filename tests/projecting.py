"""A real projector in a process of its own, and what it should have made of a real log."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import psycopg2

from datarun.db import connect
from datarun.envelope import Context, encode
from datarun.errors import LogUnavailable
from datarun.events import Event
from datarun.log import EventLog, Position, StoredRecord, TopicPartition
from datarun.projection.batch import fold
from datarun.projection.offsets import Offsets, read_offsets
from datarun.topics import PROJECTED, Catalogue
from tests.histories import Tables, tables

READY_SECONDS = 40
CONTEXT = Context("test", datetime(2026, 1, 1, tzinfo=UTC))


@dataclass
class Projector:
    """A running projector and where it writes what it says."""

    process: subprocess.Popen[bytes]
    output: Path

    def ready(self) -> bool:
        """Tell whether it has said that it is ready."""
        return "projector.ready" in self.output.read_text()

    def wait_ready(self) -> None:
        """Wait until it is ready."""
        wait_until(lambda: self.ready() or self.process.poll() is not None, READY_SECONDS)
        assert self.process.poll() is None, self.output.read_text()

    def kill(self) -> None:
        """Kill -9 it."""
        self.process.kill()
        self.process.wait(10)

    def stop(self, seconds: float = 10) -> int:
        """Tell it to stop and return its exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(seconds)


@dataclass
class Installation:
    """One prefix on a broker and one database."""

    kafka: str
    postgres_url: str
    catalogue: Catalogue
    folder: Path

    @contextmanager
    def projector(self, *options: str, crash_at: str = "") -> Iterator[Projector]:
        """Run a projector; it is killed at the end if it still runs."""
        output = self.folder / f"projector-{time.monotonic_ns()}.log"
        command = [sys.executable, "-m", "services.projector", "--kafka", self.kafka, "--postgres", self.postgres_url]
        command += ["--topic-prefix", self.catalogue.prefix, "--session-timeout", "2", "--dir", str(self.folder)]
        command += options
        with output.open("wb") as descriptor:
            environment = {**os.environ, "DATARUN_CRASH_AT": crash_at, "TMPDIR": str(self.folder)}
            process = subprocess.Popen(command, stderr=descriptor, stdout=descriptor, env=environment)
        try:
            yield Projector(process, output)
        finally:
            if process.poll() is None:
                process.kill()
            process.wait(10)

    def append(self, log: EventLog, events: Iterable[Event]) -> list[Position]:
        """Append events and wait for their acknowledgement."""
        futures = [log.append(encode(event, catalogue=self.catalogue, context=CONTEXT)) for event in events]
        return [future.result(30) for future in futures]

    def caught_up(self, log: EventLog) -> bool:
        """Tell whether the read model has everything that is in the log."""
        try:
            # A topic that was made a moment ago may have no leader yet.
            ends = log.end_offsets([self.catalogue.full_name(topic) for topic in PROJECTED])
            connection = connect(self.postgres_url)
        except (LogUnavailable, psycopg2.OperationalError):
            return False
        try:
            with connection, connection.cursor() as cursor:
                offsets = read_offsets(cursor, schema="rm")
        except psycopg2.errors.UndefinedTable:
            return False
        finally:
            connection.close()
        return all(offsets.get(tp, 0) == end for tp, end in ends.items())

    def stored(self, log: EventLog) -> list[StoredRecord]:
        """Return the whole log."""
        ends = log.end_offsets([self.catalogue.full_name(topic) for topic in PROJECTED])
        return [record for batch in log.read(dict.fromkeys(ends, 0), until_end=True) for record in batch]

    def expected(self, log: EventLog, *, until: Offsets | None = None) -> Tables:
        """Return the tables that the log says, all of it or what is before some offsets, without any projector."""
        seen = [
            record
            for record in self.stored(log)
            if until is None or record.offset < until.get(TopicPartition(record.topic, record.partition), 0)
        ]
        return tables(fold(seen, catalogue=self.catalogue))


def wait_until(condition: Callable[[], bool], seconds: float) -> None:
    """Wait for a condition; fails after so many seconds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)
