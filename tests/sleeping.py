"""A real runner over a real Kafka whose folds only sleep: as a program, and as processes to start, stop and kill.

What is scheduled is real: queues, leases, heartbeats, signals. A fold sleeps as many seconds as its task_id says.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from datarun.blobs import LocalBlobs
from datarun.envelope import Context, decode, encode, now
from datarun.events import (
    Blob,
    Cause,
    Dataset,
    Event,
    Fault,
    FoldRequested,
    Metrics,
    Priority,
    Sandbox,
    Split,
    SplitRequested,
    Stage,
)
from datarun.log import EventLog, StoredRecord
from datarun.settings import load_settings
from datarun.telemetry import configure_logging
from datarun.topics import Catalogue, Topic
from services.runner.__main__ import Options, parse_queues, serve
from services.runner.execution import Failed, Limits

ROOT = Path(__file__).parents[1]
READY_SECONDS = 90
NOTHING = Blob(sha256="0" * 64, size=0)
DATASET = Dataset(raw_data_id=1, name="none", target_column="y", workflow_elements="classifier", files=())


class Sleeper:
    """Stands in for the execution engine: takes time and no CPU, and ends when it is cancelled."""

    def __init__(self) -> None:
        self._cancelled: dict[tuple[int, int], threading.Event] = {}

    def start(self) -> Sandbox:
        """Isolate nothing."""
        return Sandbox(level=0)

    def run(self, request: FoldRequested, **_: Any) -> Failed:
        """Sleep."""
        cancelled = self._cancelled.setdefault((request.fold_id, request.attempt), threading.Event())
        ended = cancelled.wait(float(request.task_id))
        return Failed(
            stage=Stage.TRAIN,
            cause=Cause.CANCELLED if ended else Cause.USER_ERROR,
            fault=Fault.USER,
            message="\nit slept - ERROR(train)\n",
            log="",
            metrics=Metrics(),
            full_train=None,
        )

    def split(self, request: SplitRequested) -> Split:
        """Sleep as well."""
        time.sleep(float(request.task_id))
        return Split(kind="standard", task_id=request.task_id)

    def cancel(self, fold_id: int, attempt: int) -> None:
        """Wake a fold."""
        self._cancelled.setdefault((fold_id, attempt), threading.Event()).set()

    def close(self) -> None:
        """Nothing is open."""


def sleeping(fold_id: int, seconds: float, priority: Priority = Priority.LOW) -> FoldRequested:
    """Return the request of a fold that sleeps."""
    return FoldRequested(
        fold_id=fold_id,
        attempt=1,
        submission_id=1,
        priority=priority,
        dataset=DATASET,
        files=(),
        train_is=NOTHING,
        test_is=NOTHING,
        task_id=str(seconds),
        requested_by="somebody",
    )


@dataclass
class Runner:
    """A runner's process and where it writes what it says."""

    process: subprocess.Popen[bytes]
    output: Path

    def wait_ready(self) -> None:
        """Wait until it takes work."""
        deadline = time.monotonic() + READY_SECONDS
        while "runner.ready" not in self.output.read_text():
            assert self.process.poll() is None, self.output.read_text()
            assert time.monotonic() < deadline, self.output.read_text()
            time.sleep(0.02)

    def complaints(self) -> list[str]:
        """Return the warnings and worse it has logged."""
        return [line for line in self.output.read_text().splitlines() if '"level": "info"' not in line]

    def signal(self, number: signal.Signals = signal.SIGTERM) -> None:
        """Send a signal."""
        self.process.send_signal(number)

    def wait(self, seconds: float = 30) -> int:
        """Return the exit code of a process that ends within so many seconds."""
        return self.process.wait(seconds)


@dataclass
class Ground:
    """One prefix on a broker, its log, and the runners on it."""

    kafka: str
    catalogue: Catalogue
    log: EventLog
    folder: Path
    runners: list[Runner] = field(default_factory=list)

    def start(self, *options: str, crash_at: str = "") -> Runner:
        """Start a runner; it may not be ready yet."""
        output = self.folder / f"runner-{len(self.runners)}.log"
        program = [sys.executable, "-m", "tests.sleeping"]
        command = [*program, self.kafka, self.catalogue.prefix, str(self.folder), *options]
        environment = {**os.environ, "DATARUN_CRASH_AT": crash_at}
        with output.open("wb") as descriptor:
            process = subprocess.Popen(command, cwd=ROOT, stdout=descriptor, stderr=descriptor, env=environment)
        self.runners.append(Runner(process, output))
        return self.runners[-1]

    def start_ready(self, *options: str, count: int = 1) -> list[Runner]:
        """Start runners and wait until all take work."""
        runners = [self.start(*options) for _ in range(count)]
        for runner in runners:
            runner.wait_ready()
        return runners

    def append(self, requests: Iterable[Event]) -> None:
        """Append events and wait for their acknowledgement."""
        context = Context("test", now())
        futures = [self.log.append(encode(event, catalogue=self.catalogue, context=context)) for event in requests]
        for future in futures:
            future.result(30)

    def stored(self, *topics: Topic) -> list[tuple[StoredRecord, Event]]:
        """Return what is in some topics, in the order of the broker's clock."""
        ends = self.log.end_offsets([self.catalogue.full_name(topic) for topic in topics])
        batches = self.log.read(dict.fromkeys(ends, 0), until_end=True)
        found = [(record, decode(record.value, record.headers)) for batch in batches for record in batch]
        return sorted(found, key=lambda pair: pair[0].timestamp_ms)

    def close(self) -> None:
        """Kill what still runs."""
        for runner in self.runners:
            runner.process.kill()
            runner.process.wait(10)


@contextmanager
def ground(kafka: str, catalogue: Catalogue, folder: Path) -> Iterator[Ground]:
    """Open the log, and leave nothing running."""
    from datarun.log.kafka import KafkaLog

    log = KafkaLog(kafka)
    made = Ground(kafka, catalogue, log, folder)
    try:
        yield made
    finally:
        made.close()
        log.close()


def main() -> None:
    """Run the program."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kafka")
    parser.add_argument("prefix")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--queues", default="H,L,data")
    parser.add_argument("--slots", type=int, default=1)
    parser.add_argument("--grace", type=float, default=8.0)
    arguments = parser.parse_args()
    configure_logging("runner")
    blobs = arguments.folder / "blobs"
    settings = load_settings(
        arguments.folder, kafka=arguments.kafka, blobs=blobs.as_uri(), topic_prefix=arguments.prefix
    )
    options = Options(parse_queues(arguments.queues), arguments.slots, Limits(), arguments.grace, sandbox_min=0)
    serve(settings, options, executor=Sleeper(), blobs=LocalBlobs(blobs))


if __name__ == "__main__":
    main()
