"""The reaper in a real projector: a fold whose runner falls silent is requested again, within its twenty seconds."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from datarun.db import connect
from datarun.envelope import decode
from datarun.events import FoldFailed, FoldLost, FoldRequested, FoldStarted, RunningFold
from datarun.log.admin import create_topics
from datarun.log.kafka import KafkaLog
from datarun.overtaking import Chance, Waiting
from datarun.projection.apply import apply
from datarun.topics import Catalogue
from services.projector.running import Postgres
from tests.histories import CATALOGUE, START_MS, Log, heartbeat, requested, run_event
from tests.projecting import Installation, wait_until

NOTICED_SECONDS = 20


@pytest.fixture
def installation(kafka: str, postgres_url: str, topic_prefix: str, tmp_path: Path) -> Installation:
    """Make the topics of a fresh installation."""
    create_topics(kafka, prefix=topic_prefix)
    return Installation(kafka, postgres_url, Catalogue(topic_prefix), tmp_path)


@pytest.fixture
def log(kafka: str) -> Iterator[KafkaLog]:
    """Open the session's log."""
    opened = KafkaLog(kafka)
    yield opened
    opened.close()


class Heart:
    """A runner of which only the heartbeats exist."""

    def __init__(self, installation: Installation, log: KafkaLog, name: str, *running: RunningFold) -> None:
        self.stopping = threading.Event()

        def beat() -> None:
            sequence = 0
            while not self.stopping.is_set():
                installation.append(log, [heartbeat(name, sequence, running=running)])
                sequence += 1
                self.stopping.wait(1)

        self.thread = threading.Thread(target=beat)
        self.thread.start()

    def stop(self) -> None:
        """Fall silent."""
        self.stopping.set()
        self.thread.join()


def _deliveries(installation: Installation, log: KafkaLog, fold_id: int) -> list[tuple[type, int]]:
    events = [decode(record.value, record.headers) for record in installation.stored(log)]
    return sorted(
        (
            (type(event), event.delivery)
            for event in events
            if isinstance(event, FoldRequested | FoldLost | FoldFailed) and event.fold_id == fold_id
        ),
        key=lambda pair: (pair[1], pair[0].__name__),
    )


def test_a_silent_runners_fold_is_requested_again_and_a_speaking_ones_is_not(
    installation: Installation, log: KafkaLog
) -> None:
    """Both run at the same time; only one runner dies. A third fold lost for the third time fails."""
    alive = Heart(installation, log, "runner-2", RunningFold(fold_id=2, attempt=1, delivery=1))
    dying = Heart(installation, log, "runner-1", RunningFold(fold_id=1, attempt=1, delivery=1))
    try:
        with installation.projector() as projector:
            projector.wait_ready()
            installation.append(log, [requested(1), requested(2), requested(3, delivery=3)])
            installation.append(log, [run_event(FoldStarted, 1, mark=1), run_event(FoldStarted, 2, mark=2)])
            installation.append(log, [run_event(FoldStarted, 3, delivery=3, mark=1)])
            time.sleep(3)
            dying.stop()
            died = time.monotonic()
            wait_until(lambda: (FoldLost, 1) in _deliveries(installation, log, 1), NOTICED_SECONDS)
            assert time.monotonic() - died > 5
            assert _deliveries(installation, log, 1) == [(FoldLost, 1), (FoldRequested, 1), (FoldRequested, 2)]
            wait_until(lambda: (FoldFailed, 3) in _deliveries(installation, log, 3), NOTICED_SECONDS)
            assert _deliveries(installation, log, 3) == [(FoldFailed, 3), (FoldRequested, 3)]
            assert _deliveries(installation, log, 2) == [(FoldRequested, 1)]
    finally:
        alive.stop()
        dying.stop()


def test_there_is_one_reaper_at_a_time(postgres_url: str) -> None:
    """The second waits until the first one's connection ends, however that happens."""
    first, second = connect(postgres_url), connect(postgres_url)
    one, other = Postgres(first), Postgres(second)
    assert (one.lock(), one.lock(), other.lock()) == (True, True, False)
    first.close()
    wait_until(other.lock, 5)
    second.close()


def test_what_waits_and_what_was_handed_out_is_read_from_the_rows(postgres_url: str) -> None:
    """Requests nobody began, in the order of their queue; starts of what still runs; free runners by queue."""
    log, connection = Log(), connect(postgres_url)
    story = [
        requested(1),
        requested(2),
        requested(3),
        requested(2),
        run_event(FoldStarted, 1),
        run_event(FoldStarted, 3),
        run_event(FoldLost, 3),
        requested(3, delivery=2),
        heartbeat("runner-1", 1, running=(RunningFold(fold_id=1, attempt=1, delivery=1),)),
        heartbeat("runner-2", 1),
        heartbeat("runner-3", 1).model_copy(update={"stopping": True}),
    ]
    records = [log.append(event) for event in story]
    apply(records, connection, catalogue=CATALOGUE)
    read_model = Postgres(connection)
    second, third = Waiting(2, 1, 1, "H", 3, START_MS + 3), Waiting(3, 1, 2, "H", 4, START_MS + 7)
    assert read_model.waiting() == {second: records[3].position, third: records[7].position}
    assert read_model.chances() == [Chance("H", 0, START_MS + 4), Chance("H", None, START_MS + 9)]
    apply([log.append(run_event(FoldStarted, 3, delivery=2))], connection, catalogue=CATALOGUE)
    assert list(read_model.waiting()) == [second]
    connection.close()
