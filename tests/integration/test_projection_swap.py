"""Blue and green on a real Kafka and Postgres: rebuilt, interrupted, compared, swapped and rolled back while in use."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Self

import pytest
import requests
from click.testing import Result
from psycopg2.extensions import connection as Connection
from typer.testing import CliRunner

from datarun import db
from datarun.cli.projection import app as command
from datarun.db import connect
from datarun.log.admin import create_topics
from datarun.log.kafka import KafkaLog
from datarun.readmodel import VERSION
from datarun.readmodel.schema import version_of
from datarun.topics import Catalogue
from tests.gateways import USER, Gateway, running_gateway
from tests.histories import story
from tests.projecting import Installation, wait_until
from tests.readmodel_dump import dump

CATCH_UP_SECONDS = 60
READERS = 4
_SMALL_BATCHES = """
import datarun.log.kafka as kafka
import datarun.projection.share as share
kafka.READ_BATCH = share.RECORDS_A_BATCH = 50
from datarun.cli import main
main()
"""


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


@pytest.fixture
def run(installation: Installation) -> Callable[..., Result]:
    """Return a way to run `datarun projection` for the installation."""
    return lambda *arguments: CliRunner().invoke(command, [*arguments, *_options(installation)])


def _options(installation: Installation) -> list[str]:
    servers = ["--kafka", installation.kafka, "--postgres", installation.postgres_url]
    return [*servers, "--topic-prefix", installation.catalogue.prefix, "--dir", str(installation.folder)]


def _change(connection: Connection, statement: str) -> None:
    with connection, connection.cursor() as cursor:
        cursor.execute(statement)


def test_a_rebuild_that_is_killed_goes_on_where_it_was(
    installation: Installation, log: KafkaLog, connection: Connection, run: Callable[..., Result]
) -> None:
    """What was committed before kill -9 is not read again, and the end is the same."""
    count = len(installation.append(log, [event for number in range(1, 150) for event in story(number)]))
    killed = subprocess.run(
        [sys.executable, "-c", _SMALL_BATCHES, "projection", "rebuild", *_options(installation)],
        env=os.environ | {"DATARUN_CRASH_AT": "projector.after_commit:2"},
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert dump(connection, schema="rm_next")["fold"]
    resumed = run("rebuild")
    assert resumed.exit_code == 0, resumed.output
    applied = int(resumed.stdout.partition(" events in")[0].splitlines()[-1].replace(",", ""))
    assert 0 < applied < count
    assert dump(connection, schema="rm_next") == installation.expected(log)


def test_what_differs_is_shown_with_its_reason_and_refused_by_a_swap(
    installation: Installation, log: KafkaLog, connection: Connection, run: Callable[..., Result]
) -> None:
    """A row changed by hand, one that nobody asked for and one that is lost: the log knows better."""
    installation.append(log, [event for number in range(1, 20) for event in story(number)])
    assert run("swap").exit_code == 1
    with installation.projector():
        wait_until(lambda: installation.caught_up(log), CATCH_UP_SECONDS)
        assert run("rebuild").exit_code == 0
        assert run("diff").exit_code == 0
        _change(connection, "update rm.fold set log = 'forged', fetched_attempt = 9 where fold_id = 7")
        _change(connection, "insert into rm.submission values (99, 1, 1)")
        _change(connection, "delete from rm.fold where fold_id = 3")
        assert run("verify").exit_code == 1
        shown = [json.loads(line) for line in run("diff", "--json").stdout.splitlines()]
        found = {(one["table"], *one["key"]): one for one in shown}
        assert found.keys() == {("fold", 7), ("submission", 99), ("fold", 3)}
        assert found["fold", 7]["columns"]["log"]["rm"] == "forged"
        assert "PredictionsFetched" in found["fold", 7]["why"]
        assert "no event of the log" in found["submission", 99]["why"]
        assert "lacks" in found["fold", 3]["why"]
        refused = run("swap")
        assert (refused.exit_code, type(refused.exception).__name__) == (1, "Different")
        assert run("swap", "--accept-differences").exit_code == 0
        assert dump(connection) == installation.expected(log)
        status = run("status")
        assert [name for name in ("rm_old", "rm_next") if name in status.output] == ["rm_old"], status.output


class Traffic:
    """Readers of a gateway and a writer of the log, until they are stopped; it keeps what went wrong."""

    def __init__(self, gateway: Gateway, write: Callable[[int], object]) -> None:
        self._gateway = gateway
        self._write = write
        self._stopping = threading.Event()
        self._folds = len(gateway.get("submissionfold-light/").json())
        self._threads = [threading.Thread(target=work) for work in (*[self._read] * READERS, self._append)]
        self.answers = 0
        self.failed: list[str] = []

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        for thread in self._threads:
            thread.join(30)

    def _read(self) -> None:
        with requests.Session() as session:
            while not self._stopping.is_set():
                answer = session.get(f"{self._gateway.url}/runapp/submissionfold-light/", auth=USER, timeout=30)
                if answer.status_code != 200 or len(answer.json()) < self._folds:
                    self.failed.append(answer.text[:500])
                self.answers += 1

    def _append(self) -> None:
        number = 100
        while not self._stopping.is_set():
            self._write(number)
            # The thirteenth stories end in a running fold, which the projector's reaper would ask for again.
            number += 2 if number % 13 == 12 else 1
            time.sleep(0.01)


def test_nobody_notices_swaps_and_rollbacks(
    installation: Installation, log: KafkaLog, connection: Connection, run: Callable[..., Result], blobs_url: str
) -> None:
    """Readers of a gateway and a live projector go on through them: no request fails, no event is lost or doubled."""
    installation.append(log, [event for number in range(1, 100) if number % 13 for event in story(number)])
    servers = {"kafka": installation.kafka, "postgres_url": installation.postgres_url, "blobs_url": blobs_url}
    prefix = installation.catalogue.prefix
    with (
        installation.projector() as projector,
        running_gateway(installation.folder / "gateway", **servers, prefix=prefix) as gateway,
    ):
        wait_until(lambda: installation.caught_up(log), CATCH_UP_SECONDS)
        with Traffic(gateway, lambda number: installation.append(log, story(number))) as traffic:
            for turn in ("rebuild", "swap", "rollback", "swap", "rollback"):
                before = traffic.answers
                done = run(turn)
                assert done.exit_code == 0, done.output
                wait_until(lambda before=before: traffic.answers > before + READERS, 30)  # type: ignore[misc]
        assert traffic.failed == []
        wait_until(lambda: installation.caught_up(log), CATCH_UP_SECONDS)
        assert projector.process.poll() is None
        assert "projector.failed" not in projector.output.read_text()
        assert dump(connection) == installation.expected(log)


def test_one_command_at_a_time_works_on_the_read_models(connection: Connection, run: Callable[..., Result]) -> None:
    """A second one is told so soon, and the first one's end, even by kill -9, frees the way."""
    _change(connection, "select pg_advisory_lock(hashtext('datarun.projection.maintenance'))")
    for name in ("rebuild", "rollback"):
        assert type(run(name).exception).__name__ == "UnderWay"
    _change(connection, "select pg_advisory_unlock_all()")
    assert type(run("rollback").exception).__name__ == "NotBuilt"


def test_an_upgrade_takes_what_was_rebuilt_for_it(
    installation: Installation, log: KafkaLog, connection: Connection, run: Callable[..., Result]
) -> None:
    """A read model of another version gives way to one of this version, which need not be made from nothing."""
    installation.append(log, story(1))
    assert run("rebuild").exit_code == 0
    _change(connection, "comment on schema rm is '1'")
    db.upgrade(installation.postgres_url)
    assert [version_of(connection, schema) for schema in ("rm", "rm_next", "rm_old")] == [VERSION, None, "1"]
    assert dump(connection) == installation.expected(log)
