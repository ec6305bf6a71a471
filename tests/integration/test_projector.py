"""The Faust projector on a real Kafka and a real Postgres: whatever is killed, every record has its effect once."""

from __future__ import annotations

import random
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import psycopg2
import pytest
from confluent_kafka import Producer
from psycopg2.extensions import connection as Connection
from typer.testing import CliRunner

from datarun.cli.projection import app as command
from datarun.db import connect
from datarun.envelope import encode
from datarun.events import FoldStarted, FoldTested
from datarun.log import Record
from datarun.log.admin import create_topics
from datarun.log.kafka import KafkaLog, producer_config
from datarun.stack.postgres import Postgres, local_postgres
from datarun.topics import FOLD_EVENTS, Catalogue
from tests.gateways import query
from tests.histories import NEIGHBOURS, heartbeat, requested, run_event, story
from tests.projecting import CONTEXT, Installation, wait_until
from tests.readmodel_dump import dump

CATCH_UP_SECONDS = 60


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


@pytest.fixture
def connection(postgres_url: str) -> Iterator[Connection]:
    """Open the test's database."""
    opened = connect(postgres_url)
    yield opened
    opened.close()


def test_it_survives_being_killed_at_every_seam(
    installation: Installation, log: KafkaLog, connection: Connection
) -> None:
    """Killed -9 before its commit, after it and between batches under load: nothing is lost and nothing doubled."""
    chance = random.Random(7)

    def produce() -> None:
        for first in range(1, 1001, 20):
            installation.append(log, [event for number in range(first, first + 20) for event in story(number)])
            time.sleep(0.1)

    producing = threading.Thread(target=produce)
    producing.start()
    for point in ("projector.before_commit:2", "projector.after_commit:2", "projector.before_commit:5"):
        with installation.projector(crash_at=point) as projector:
            assert projector.process.wait(CATCH_UP_SECONDS) == -signal.SIGKILL
    for _ in range(3):
        with installation.projector() as projector:
            projector.wait_ready()
            time.sleep(chance.uniform(0.05, 0.6))
            projector.kill()
    producing.join()
    with installation.projector():
        wait_until(lambda: installation.caught_up(log), CATCH_UP_SECONDS)
    expected = installation.expected(log)
    assert len(expected["fold"]) == 1000
    assert dump(connection) == expected


def test_what_cannot_be_applied_becomes_a_dead_letter_and_the_partition_goes_on(
    installation: Installation, log: KafkaLog, connection: Connection
) -> None:
    """Not JSON, no type, unknown type, newer version, another fold's key, another topic's event, a wrong schema."""
    good = encode(run_event(FoldTested, 1), catalogue=installation.catalogue, context=CONTEXT)
    plain = dict(good.headers)
    high = encode(requested(1), catalogue=installation.catalogue, context=CONTEXT)

    def spoiled(**changes: object) -> Record:
        fields = {"topic": good.topic, "key": good.key, "value": good.value, "headers": good.headers} | changes
        return Record(**fields)  # type: ignore[arg-type]

    def typed(name: str) -> tuple[tuple[str, bytes], ...]:
        return tuple((plain | {"ce_type": name.encode()}).items())

    records = [
        spoiled(value=b"\xff\x00 not json"),
        spoiled(headers=()),
        spoiled(headers=typed("datarun.FoldSold.v1")),
        spoiled(headers=typed("datarun.FoldTested.v9")),
        spoiled(key=b"2"),
        spoiled(topic=good.topic, key=high.key, value=high.value, headers=high.headers),
        spoiled(value=b'{"fold_id": 1}'),
        good,
    ]
    for record in records:
        log.append(record).result(10)
    with installation.projector():
        wait_until(lambda: installation.caught_up(log), CATCH_UP_SECONDS)
    found = dump(connection)
    reasons = sorted(row["reason"] for row in found["dead_letter"].values())
    assert reasons == sorted(
        ["undecodable", "undecodable", "unknown_type", "unknown_version", "misrouted", "misrouted", "schema"]
    )
    assert list(found["fold"]) == [1]


def test_holes_of_transactions_are_passed_over_and_what_was_taken_back_is_not_seen(
    installation: Installation, log: KafkaLog, connection: Connection
) -> None:
    """Committed and aborted transactions among other records: no gap is refused, live and rebuilt are equal."""
    producer = Producer({**producer_config(installation.kafka), "transactional.id": installation.catalogue.prefix})
    producer.init_transactions(30)

    def transact(fold_id: int, *, commit: bool) -> None:
        record = encode(run_event(FoldTested, fold_id), catalogue=installation.catalogue, context=CONTEXT)
        producer.begin_transaction()
        producer.produce(record.topic, key=record.key, value=record.value, headers=list(record.headers))
        producer.commit_transaction(30) if commit else producer.abort_transaction(30)

    first, second, third = NEIGHBOURS
    with installation.projector() as projector:
        projector.wait_ready()
        installation.append(log, [run_event(FoldStarted, first)])
        transact(first, commit=True)
        transact(second, commit=False)
        installation.append(log, [run_event(FoldTested, third)])
        transact(second, commit=False)
        # An abort is answered before its marker is written, and until then the log seems to end before it.
        wait_until(lambda: third in dump(connection)["fold"], CATCH_UP_SECONDS)
        # The last offsets of the partition are a hole, too; the projector finds that nothing is there to come.
        wait_until(lambda: installation.caught_up(log), CATCH_UP_SECONDS)
        assert projector.process.poll() is None
    found = dump(connection)
    assert sorted(found["fold"]) == sorted([first, third])
    assert found == installation.expected(log)
    options = ["--kafka", installation.kafka, "--postgres", installation.postgres_url]
    options += ["--topic-prefix", installation.catalogue.prefix, "--dir", str(installation.folder)]
    rebuilt = CliRunner().invoke(command, ["rebuild", *options])
    assert rebuilt.exit_code == 0, rebuilt.output


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGKILL])
def test_it_waits_for_a_database_that_is_away(
    kafka: str, cache: Path, topic_prefix: str, tmp_path: Path, log: KafkaLog, stop: signal.Signals
) -> None:
    """Postgres goes down under load and comes back, with or without its last commits: the log has them all."""
    server = _forgetful(tmp_path / "data", cache)
    create_topics(kafka, prefix=topic_prefix)
    installation = Installation(kafka, server.url, Catalogue(topic_prefix), tmp_path)
    database = _start(server)
    try:
        wait_until(server.is_ready, 20)
        with installation.projector() as projector:
            projector.wait_ready()
            installation.append(log, [event for number in range(1, 50) for event in story(number)])
            wait_until(lambda: query(server.url, "select 1 from rm.fold"), CATCH_UP_SECONDS)
            database.send_signal(stop)
            database.wait(20)
            installation.append(log, [event for number in range(50, 100) for event in story(number)])
            time.sleep(1.5)
            server.prepare()
            database = _start(server)
            wait_until(lambda: installation.caught_up(log) or projector.process.poll() is not None, CATCH_UP_SECONDS)
        # Where commits were lost with the crash the projector refuses the gap and is started again.
        assert projector.process.returncode == (-signal.SIGKILL if stop is signal.SIGINT else 70)
        with installation.projector():
            wait_until(lambda: installation.caught_up(log), CATCH_UP_SECONDS)
        opened = connect(server.url)
        assert dump(opened) == installation.expected(log)
        opened.close()
    finally:
        database.send_signal(signal.SIGINT)
        database.wait(20)


def _forgetful(folder: Path, cache: Path) -> Postgres:
    """Make a server whose crash takes with it the commits of the last seconds that nobody waited for."""
    server = local_postgres(folder, cache=cache, durable=True)
    server.prepare()
    with (server.folder / "postgresql.conf").open("a", encoding="utf-8") as settings:
        settings.write("wal_writer_delay = 10s\n")
    return server


def _start(server: object) -> subprocess.Popen[bytes]:
    command = server.command()  # type: ignore[attr-defined]
    return subprocess.Popen(
        command.argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **command.popen_options()
    )


def test_a_dropped_read_model_is_made_anew_from_the_log(
    installation: Installation, log: KafkaLog, connection: Connection
) -> None:
    """Kafka's committed offsets are past everything, and still nothing is skipped."""
    installation.append(log, [event for number in range(1, 100) for event in story(number)])
    with installation.projector() as projector:
        wait_until(lambda: installation.caught_up(log), CATCH_UP_SECONDS)
        # Faust commits once a second.
        time.sleep(1.5)
        assert projector.stop() == 0
    with connection, connection.cursor() as cursor:
        cursor.execute("drop schema rm cascade")
    with installation.projector() as projector:
        wait_until(lambda: installation.caught_up(log), CATCH_UP_SECONDS)
    assert dump(connection) == installation.expected(log)


def test_a_read_model_of_another_log_is_refused(
    installation: Installation, log: KafkaLog, connection: Connection
) -> None:
    """Reading on would skip as many new records as the read model is ahead."""
    installation.append(log, story(1))
    with connection, connection.cursor() as cursor:
        cursor.execute(
            "insert into rm.projection_offset values (%s, 0, 1000)", (installation.catalogue.full_name(FOLD_EVENTS),)
        )
    with installation.projector() as projector:
        assert projector.process.wait(CATCH_UP_SECONDS) == 70
        assert "read_model_ahead_of_log" in projector.output.read_text()


def test_topics_made_after_it_are_found(kafka: str, postgres_url: str, topic_prefix: str, tmp_path: Path) -> None:
    """A projector that was started first, into a database without a read model, needs no second start."""
    opened = connect(postgres_url)
    with opened, opened.cursor() as cursor:
        cursor.execute("drop schema rm cascade")
    installation = Installation(kafka, postgres_url, Catalogue(topic_prefix), tmp_path)
    with installation.projector() as projector:
        projector.wait_ready()
        create_topics(kafka, prefix=topic_prefix)
        late = KafkaLog(kafka)
        installation.append(late, story(1))
        wait_until(lambda: installation.caught_up(late), CATCH_UP_SECONDS)
        assert projector.process.poll() is None
        assert dump(opened) == installation.expected(late)
        late.close()
    opened.close()


def test_it_stops_when_told_and_leaves_nothing(installation: Installation, log: KafkaLog) -> None:
    """SIGTERM ends it with code 0; it never listened on a port and its folder is gone."""
    with installation.projector() as projector:
        projector.wait_ready()
        installation.append(log, story(1))
        process = psutil.Process(projector.process.pid)
        assert [one for one in process.net_connections() if one.status == psutil.CONN_LISTEN] == []
        assert list(installation.folder.glob("datarun-projector-*")) == []
        assert projector.stop() == 0


def test_a_rebuild_equals_the_live_read_model_and_says_so(
    installation: Installation, log: KafkaLog, connection: Connection
) -> None:
    """Two ways through the same log end in the same rows; a row that differs is noticed and named."""
    events = [event for number in range(1, 200) for event in story(number)]
    installation.append(log, [*events, heartbeat("runner-1", 1), heartbeat("runner-1", 2)])
    with installation.projector():
        wait_until(lambda: installation.caught_up(log), CATCH_UP_SECONDS)
        options = ["rebuild", "--kafka", installation.kafka, "--postgres", installation.postgres_url]
        options += ["--topic-prefix", installation.catalogue.prefix, "--dir", str(installation.folder)]
        equal = CliRunner().invoke(command, options)
        assert (equal.exit_code, "DIFFERENT" in equal.output) == (0, False), equal.output
        assert dump(connection, schema="rm_next") == dump(connection)
        with connection, connection.cursor() as cursor:
            cursor.execute("update rm.fold set log = 'forged' where fold_id = 7")
        again = CliRunner().invoke(command, options)
        assert again.exit_code == 1
        assert [line for line in again.output.splitlines() if "DIFFERENT" in line and "fold" in line]


def test_a_row_is_visible_soon_after_its_event(
    installation: Installation, log: KafkaLog, connection: Connection
) -> None:
    """Half of the events are rows within 60 ms of their acknowledgement, on however busy a machine this runs."""
    with installation.projector() as projector:
        projector.wait_ready()
        waited = []
        for number in range(1, 40):
            [position] = installation.append(log, [run_event(FoldStarted, number)])
            started = time.monotonic()
            wait_until(lambda at=position: _visible(connection, at), 10)  # type: ignore[misc]
            waited.append(time.monotonic() - started)
    assert sorted(waited)[len(waited) // 2] < 0.06


def _visible(connection: Connection, position: tuple[str, int, int]) -> bool:
    try:
        with connection, connection.cursor() as cursor:
            cursor.execute(
                "select 1 from rm.projection_offset where topic = %s and partition = %s and next_offset > %s", position
            )
            return cursor.fetchone() is not None
    except psycopg2.errors.UndefinedTable:
        return False
