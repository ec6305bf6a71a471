"""The projection on a real Kafka and a real Postgres: live, rebuilt, beside raw COPY of the same rows; and how soon.

Run from the checkout: `python -m benchmarks.bench_projection [folds]`. Everything is measured in the same run.
"""

from __future__ import annotations

import io
import os
import random
import select
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import psutil
from psycopg2 import Error
from psycopg2.extensions import connection as Database

from datarun.cli.environment import cache_folder, trust_system_certificates
from datarun.db import connect
from datarun.envelope import Context, encode
from datarun.events import (
    Blob,
    Dataset,
    Event,
    FoldRequested,
    FoldStarted,
    FoldTested,
    FoldTrained,
    Metrics,
    NamedBlob,
    PredictionsFetched,
    Priority,
    Sandbox,
    Split,
)
from datarun.log.admin import create_topics
from datarun.log.kafka import KafkaLog
from datarun.projection import rebuild
from datarun.projection.share import Ground
from datarun.projection.verify import verify
from datarun.readmodel.schema import create_read_model, drop_read_model
from datarun.stack.kafka import local_kafka
from datarun.stack.postgres import local_postgres
from datarun.stack.prepare import ensure_kafka
from datarun.stack.process import Command
from datarun.topics import Catalogue

CONTEXT = Context("benchmark", datetime(2026, 1, 1, tzinfo=UTC))
WATCHED = 200
"""Events whose way into their row is timed."""
PATIENCE_SECONDS = 300.0


def events_of(fold_id: int) -> Iterator[Event]:
    """Yield the life of a fold: five events, 550 bytes on average."""
    blobs = [Blob(sha256=f"{fold_id * 8 + number:064x}", size=1000) for number in range(4)]
    split = Split(kind="standard", task_id="t", held_out_test=0.7, random_state=1, train=blobs[0], test=blobs[1])
    dataset = Dataset(
        raw_data_id=1,
        name="iris",
        target_column="species",
        workflow_elements="classifier",
        files=(NamedBlob(name="iris.csv", blob=blobs[0]),),
        split=split,
    )
    submission_id = fold_id // 4 + 1
    run: dict[str, Any] = {"fold_id": fold_id, "attempt": 1, "delivery": 1, "submission_id": submission_id}
    run |= {"raw_data_id": 1, "runner_id": "host:1"}
    measured: dict[str, Any] = {
        "metrics": Metrics(
            train_time=0.1, train_cpu_time=0.09, train_memory=12.5, validation_time=0.01, test_time=0.02
        ),
        "sandbox": Sandbox(level=3, mechanisms=("rlimits", "landlock", "seccomp")),
        "full_train_predictions": blobs[2],
    }
    yield FoldRequested(
        fold_id=fold_id,
        attempt=1,
        submission_id=submission_id,
        priority=Priority.HIGH if fold_id % 2 else Priority.LOW,
        dataset=dataset,
        files=(NamedBlob(name="classifier.py", blob=blobs[3]),),
        train_is=blobs[0],
        test_is=blobs[1],
        task_id=str(uuid.UUID(int=fold_id)),
        requested_by="somebody",
    )
    yield FoldStarted(**run, lease_seconds=10)
    yield FoldTrained(**run, **measured, predictions_shape=(45, 3))
    yield FoldTested(**run, **measured, full_train_shape=(45, 3), test_predictions=blobs[3], test_shape=(105, 3))
    yield PredictionsFetched(fold_id=fold_id, attempt=1, fetch_id="f", fetched_by="somebody")


@contextmanager
def running(command: Command) -> Iterator[None]:
    """Run a server, silently, until the block ends."""
    options = command.popen_options()
    process = subprocess.Popen(command.argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **options)
    try:
        yield
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(30)


@contextmanager
def servers() -> Iterator[tuple[str, str]]:
    """Yield a broker's address and a database's URL, as `datarun up` starts them."""
    trust_system_certificates()
    cache = cache_folder()
    program, template = ensure_kafka(cache)
    with tempfile.TemporaryDirectory(prefix="datarun-bench-") as folder, ExitStack() as stack:
        broker = local_kafka(program, Path(folder) / "kafka")
        broker.folder.mkdir()
        broker.prepare(template)
        database = local_postgres(Path(folder) / "postgres", cache=cache)
        database.prepare()
        stack.enter_context(running(broker.command()))
        stack.enter_context(running(database.command()))
        while not (broker.is_ready() and database.is_ready()):
            time.sleep(0.05)
        yield broker.bootstrap, database.url


def fill(log: KafkaLog, catalogue: Catalogue, folds: int) -> int:
    """Append the lives of many folds, a hundred at a time side by side, and return how many events that were."""
    count = 0
    for first in range(1, folds + 1, 100):
        lives = [list(events_of(number)) for number in range(first, min(first + 100, folds + 1))]
        events = [event for together in zip(*lives, strict=True) for event in together]
        for future in [log.append(encode(event, catalogue=catalogue, context=CONTEXT)) for event in events]:
            future.result(60)
        count += len(events)
    return count


@contextmanager
def projector(kafka: str, url: str, prefix: str) -> Iterator[None]:
    """Run the live projector."""
    command = [
        sys.executable,
        "-m",
        "services.projector",
        "--kafka",
        kafka,
        "--postgres",
        url,
        "--topic-prefix",
        prefix,
    ]
    process = subprocess.Popen([*command, "--session-timeout", "2"], stderr=subprocess.DEVNULL)
    try:
        yield
    finally:
        process.terminate()
        process.wait(20)


def projected(database: Database) -> int:
    """Return how many events are projected, 0 while there is no read model."""
    try:
        with database, database.cursor() as cursor:
            cursor.execute("select coalesce(sum(next_offset), 0) from rm.projection_offset")
            [(count,)] = cursor.fetchall()
            return int(count)
    except Error:
        return 0


def live_rate(kafka: str, url: str, prefix: str, *, count: int) -> float:
    """Return events a second of the live projector, from its first batch to its last."""
    database = connect(url)
    with database:
        drop_read_model(database, schema="rm")
    with projector(kafka, url, prefix):
        deadline = time.monotonic() + PATIENCE_SECONDS
        first, started = 0, time.perf_counter()
        while (now := projected(database)) < count and time.monotonic() < deadline:
            if first == 0:
                first, started = now, time.perf_counter()
            time.sleep(0.01)
        return (now - first) / (time.perf_counter() - started)


@dataclass(frozen=True, slots=True)
class Cost:
    """What some work took: seconds by the clock, and of all cores, servers included."""

    seconds: float
    cpu_seconds: float


@contextmanager
def measured(costs: list[Cost]) -> Iterator[None]:
    """Add what the block took; servers and workers are children of this process."""
    started, cpu = time.perf_counter(), _cpu_seconds()
    yield
    costs.append(Cost(time.perf_counter() - started, _cpu_seconds() - cpu))


def _cpu_seconds() -> float:
    this = psutil.Process()
    total = 0.0
    for process in (this, *this.children(recursive=True)):
        with suppress(psutil.Error):
            times = process.cpu_times()
            total += times.user + times.system + times.children_user + times.children_system
    return total


def rebuild_cost(kafka: str, url: str, prefix: str, *, jobs: int) -> tuple[Cost, bool]:
    """Return what a rebuild took, and whether it equals the live read model."""
    ground = Ground(partial(KafkaLog, kafka), partial(connect, url), Catalogue(prefix), "rm_next")
    # Measured here even where a rebuild of this size would not start processes.
    rebuild.WORTH_A_PROCESS = 0
    work = rebuild.Rebuild(ground, jobs=jobs, progress=lambda *_: None)
    costs: list[Cost] = []
    with measured(costs):
        work.build(fresh=True)
    return costs[0], verify(work).equal


def copy_cost(url: str) -> Cost:
    """Return what a raw COPY of the same folds into an empty table with the same indexes took."""
    database, rows, costs = connect(url), io.StringIO(), list[Cost]()
    with database, database.cursor() as cursor:
        cursor.copy_expert("copy rm.fold to stdout", rows)
        create_read_model(database, schema="rm_copy")
    rows.seek(0)
    with measured(costs), database, database.cursor() as cursor:
        cursor.copy_expert("copy rm_copy.fold from stdin", rows)
    with database:
        drop_read_model(database, schema="rm_copy")
    database.close()
    return costs[0]


def report(name: str, cost: Cost, count: int, said: str = "") -> None:
    """Print a line: events a second, and microseconds of all cores an event."""
    cpu = cost.cpu_seconds / count * 1e6
    print(f"{name:28}{count / cost.seconds:10,.0f} events/s   {cpu:6.1f} us of CPU an event   {said}", flush=True)


def visible_seconds(kafka: str, url: str, prefix: str) -> list[float]:
    """Return how long after its acknowledgement each of some scattered events was a row."""
    database, log, catalogue = connect(url), KafkaLog(kafka), Catalogue(prefix)
    create_topics(kafka, prefix=prefix)
    with database:
        drop_read_model(database, schema="rm")
    database.autocommit = True
    waited = []
    with projector(kafka, url, prefix), database.cursor() as cursor:
        cursor.execute("listen datarun_projected")
        for number in range(1, WATCHED + 1):
            event = list(events_of(number))[number % 5]
            position = log.append(encode(event, catalogue=catalogue, context=CONTEXT)).result(60)
            started = time.perf_counter()
            while not _is_projected(database, position):
                select.select([database], [], [], 0.05)
                database.poll()
            waited.append(time.perf_counter() - started)
            time.sleep(random.uniform(0.0, 0.05))
    log.close()
    # The first ones waited for the projector to start.
    return sorted(waited[20:])


def _is_projected(database: Database, position: tuple[str, int, int]) -> bool:
    question = "select 1 from rm.projection_offset where topic = %s and partition = %s and next_offset > %s"
    try:
        with database.cursor() as cursor:
            cursor.execute(question, position)
            return cursor.fetchone() is not None
    except Error:
        return False


def main() -> None:
    """Measure and print."""
    folds = int(sys.argv[1]) if len(sys.argv) > 1 else 40_000
    jobs = os.cpu_count() or 1
    with servers() as (kafka, url):
        create_topics(kafka, prefix="bench.")
        log = KafkaLog(kafka)
        count = fill(log, Catalogue("bench."), folds)
        log.close()
        live = live_rate(kafka, url, "bench.", count=count)
        print(f"live projector              {live:10,.0f} events/s   ({count:,} events, {folds:,} folds)", flush=True)
        report("raw COPY of the fold rows", copy_cost(url), count)
        for processes in (1, jobs):
            cost, equal = rebuild_cost(kafka, url, "bench.", jobs=processes)
            report(f"rebuild, {processes} process(es)", cost, count, "equal" if equal else "DIFFERENT")
        waited = visible_seconds(kafka, url, "visible.")
    marks = [waited[int(len(waited) * share)] * 1000 for share in (0.5, 0.95, 0.99)]
    print(
        f"acknowledged -> row visible  p50 {marks[0]:.1f}  p95 {marks[1]:.1f}  p99 {marks[2]:.1f} ms   n {len(waited)}"
    )


if __name__ == "__main__":
    main()
