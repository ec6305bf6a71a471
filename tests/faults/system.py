"""A projector and runners as real processes on a real broker and database, for a test to kill, stop and start again."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from datarun.blobs import LocalBlobs
from datarun.db import connect
from datarun.envelope import decode
from datarun.errors import LogUnavailable
from datarun.events import Event, FoldFailed, FoldRequested, FoldStarted, FoldTested, Priority
from datarun.log import TopicPartition
from datarun.log.admin import create_topics
from datarun.log.kafka import KafkaLog
from datarun.projection.offsets import Offsets, read_offsets
from datarun.topics import PROJECTED, Catalogue
from tests.faults import submissions
from tests.histories import Tables
from tests.projecting import Installation
from tests.readmodel_dump import dump

READY_SECONDS = 90
"""Several systems may be starting at once, on two cores."""
POLL_SECONDS = 0.05


@dataclass
class Service:
    """One of our services as a process, and where it writes what it says."""

    process: subprocess.Popen[bytes]
    output: Path

    @property
    def pid(self) -> int:
        """The process's id."""
        return self.process.pid

    @property
    def is_ready(self) -> bool:
        """Whether it has said that it is ready."""
        return ".ready" in self.output.read_text()

    def await_ready(self) -> Service:
        """Wait until it is ready."""
        wait_until(lambda: self.is_ready or self.process.poll() is not None, READY_SECONDS, self.output.name)
        assert self.process.poll() is None, self.output.read_text()
        return self

    def send(self, number: signal.Signals) -> float:
        """Send a signal and return the time."""
        self.process.send_signal(number)
        return time.time()

    def end(self) -> None:
        """Kill it, stopped or not."""
        self.process.kill()
        self.process.wait(10)


class Seen(NamedTuple):
    """An event in the log and when the broker got it, on this machine's clock."""

    event: Event
    at: float
    event_id: str


@dataclass
class Supervised:
    """A service that is started again whenever it dies, each time to die at the next point, in the end at none."""

    start: Callable[[str], Service]
    points: list[str]
    every: bool = False
    """Whether the last point is that of every later process, too."""
    dead: list[tuple[str, int]] = field(default_factory=list)
    """(point, process id) of those that were killed there."""
    restarted_at: float = 0.0
    """When the newest process was ready, if one has died."""
    _stopping: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self.service = self.start(self.points[0])
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Leave it dead if it dies, and kill it."""
        self._stopping.set()
        self._thread.join(READY_SECONDS)
        self.service.end()

    @property
    def is_whole(self) -> bool:
        """Whether it has died at every point and is ready again."""
        return len(self.dead) >= len(self.points) and self.service.is_ready and self.service.process.poll() is None

    def _watch(self) -> None:
        while not self._stopping.wait(POLL_SECONDS):
            code = self.service.process.poll()
            if code is None:
                continue
            assert code == -signal.SIGKILL, self.service.output.read_text()
            number = len(self.dead)
            self.dead.append((self._point(number), self.service.pid))
            if self._stopping.is_set():
                return
            self.service = self.start(self._point(number + 1))
            while not self.service.is_ready and self.service.process.poll() is None and not self._stopping.is_set():
                time.sleep(POLL_SECONDS)
            self.restarted_at = time.time()

    def _point(self, number: int) -> str:
        if number < len(self.points):
            return self.points[number]
        return self.points[-1] if self.every else ""


class System:
    """One installation; everything it starts ends with it."""

    def __init__(self, kafka: str, postgres_url: str, prefix: str, folder: Path, stack: ExitStack) -> None:
        create_topics(kafka, prefix=prefix)
        self.installation = Installation(kafka, postgres_url, Catalogue(prefix), folder)
        self.folder, self.postgres_url, self._stack = folder, postgres_url, stack
        self.blobs = LocalBlobs(folder / "blobs")
        self.dataset = submissions.dataset(self.blobs)
        self.log = KafkaLog(kafka)
        stack.callback(self.log.close)
        self._supervised: list[Supervised] = []
        self._seen: list[Seen] = []
        self._closed = threading.Event()
        watching = threading.Thread(target=self._watch, daemon=True)
        watching.start()
        stack.callback(watching.join, 10)
        stack.callback(self._closed.set)

    def projector(self, *options: str, crash_at: str = "") -> Service:
        """Start a projector."""
        return self._start(
            "projector", "--postgres", self.postgres_url, "--session-timeout", "2", *options, at=crash_at
        )

    def runner(self, *, slots: int = 1, queues: str = "H,L,data", crash_at: str = "") -> Service:
        """Start a runner."""
        options = (
            "--slots",
            str(slots),
            "--queues",
            queues,
            "--sandbox-min",
            "1",
            "--blobs",
            str(self.folder / "blobs"),
        )
        return self._start("runner", *options, at=crash_at)

    def supervise(self, start: Callable[..., Service], *points: str, every: bool = False, **options: Any) -> Supervised:
        """Start a service that dies at each point in turn, or at one every time, and is started again."""
        supervised = Supervised(lambda point: start(crash_at=point, **options), list(points), every)
        self._supervised.append(supervised)
        return supervised

    def stop_supervising(self) -> None:
        """Start nothing again from now on."""
        for supervised in self._supervised:
            supervised.stop()

    def request(self, fold_ids: Iterable[int], seconds: float, priority: Priority = Priority.HIGH) -> None:
        """Ask for folds that train for some seconds."""
        make = partial(submissions.fold, self.blobs, self.dataset, seconds=seconds, priority=priority)
        self.installation.append(self.log, [make(fold_id=fold_id) for fold_id in fold_ids])

    def append(self, event: Event) -> None:
        """Append an event."""
        self.installation.append(self.log, [event])

    def seen(self, *kinds: type[Event], fold_id: int | None = None, pid: int | None = None) -> list[Seen]:
        """Return what the log has of some kinds of event, of one fold, by one runner process."""
        return [
            one
            for one in list(self._seen)
            if isinstance(one.event, kinds)
            and fold_id in (None, getattr(one.event, "fold_id", None))
            and (pid is None or f"-{pid}-" in getattr(one.event, "runner_id", ""))
        ]

    def started_by(self, runner: Service) -> list[int]:
        """Return the folds a runner process has started."""
        return [one.event.fold_id for one in self.seen(FoldStarted, pid=runner.pid)]  # type: ignore[attr-defined]

    def ended(self, fold_ids: Iterable[int]) -> bool:
        """Tell whether the log has a terminal event of every fold."""
        terminal = {one.event.fold_id for one in self.seen(FoldTested, FoldFailed)}  # type: ignore[attr-defined]
        return terminal.issuperset(fold_ids)

    def ended_at(self, fold_id: int) -> float:
        """Return when the first terminal event of a fold was appended."""
        return min(one.at for one in self.seen(FoldTested, FoldFailed, fold_id=fold_id))

    def rows(self, statement: str, *parameters: Any) -> list[Any]:
        """Return the rows of a query."""
        with contextlib.closing(connect(self.postgres_url)) as connection, connection.cursor() as cursor:
            cursor.execute(statement, parameters)
            return cursor.fetchall()

    def tables(self) -> tuple[Tables, Tables]:
        """Return the read model once it has caught up, and what the log says it should be, without its runners."""
        wait_until(lambda: self.installation.caught_up(self.log), READY_SECONDS, "the projection")
        with contextlib.closing(connect(self.postgres_url)) as connection:
            # The log goes on while this looks, so rows and offsets are those of one moment.
            connection.set_session(isolation_level="REPEATABLE READ")
            with connection.cursor() as cursor:
                offsets = read_offsets(cursor, schema="rm")
            actual, expected = dump(connection), self.installation.expected(self.log, until=offsets)
        # A heartbeat may be newer than the newest that compaction has left.
        return actual | {"runner": {}}, expected | {"runner": {}}

    def deliveries(self, fold_id: int) -> int:
        """Return the highest delivery that was requested of a fold."""
        return max(one.event.delivery for one in self.seen(FoldRequested, fold_id=fold_id))  # type: ignore[attr-defined]

    def _start(self, name: str, *options: str, at: str) -> Service:
        output = self.folder / f"{name}-{time.monotonic_ns()}.log"
        installation = self.installation
        command = [sys.executable, "-m", f"services.{name}", "--kafka", installation.kafka, "--dir", str(self.folder)]
        command += ["--topic-prefix", installation.catalogue.prefix, *options]
        with output.open("wb") as descriptor:
            environment = os.environ | {"DATARUN_CRASH_AT": at, "TMPDIR": str(self.folder)}
            process = subprocess.Popen(command, stdout=descriptor, stderr=descriptor, env=environment)
        service = Service(process, output)
        self._stack.callback(service.end)
        return service

    def _watch(self) -> None:
        position = self.log.end_offsets([self.installation.catalogue.full_name(topic) for topic in PROJECTED])
        while not self._closed.is_set():
            # A broker that was killed may not know its topics for a moment.
            with contextlib.suppress(LogUnavailable):
                self._follow(position)

    def _follow(self, position: Offsets) -> None:
        for batch in self.log.read(position):
            for record in batch:
                position[TopicPartition(record.topic, record.partition)] = record.offset + 1
                event_id = dict(record.headers)["ce_id"] or b""
                event = decode(record.value, record.headers)
                self._seen.append(Seen(event, record.timestamp_ms / 1000, event_id.decode()))
            if self._closed.is_set():
                return


@contextmanager
def running_system(kafka: str, postgres_url: str, folder: Path) -> Iterator[System]:
    """Make an installation in a folder of its own."""
    folder.mkdir(parents=True)
    with ExitStack() as stack:
        system = System(kafka, postgres_url, f"{folder.name}.", folder, stack)
        try:
            yield system
        finally:
            system.stop_supervising()


def wait_until(condition: Callable[[], object], seconds: float, what: str) -> None:
    """Wait for a condition; fails after so many seconds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"{what}: not in {seconds} s"
        time.sleep(POLL_SECONDS)


def double_ends(system: System, fold_ids: Iterable[int]) -> dict[int, Sequence[Seen]]:
    """Return the folds with several terminal events that are not the same event of one delivery."""
    ends = {fold_id: system.seen(FoldTested, FoldFailed, fold_id=fold_id) for fold_id in fold_ids}
    return {fold_id: seen for fold_id, seen in ends.items() if len({one.event_id for one in seen}) > 1}
