"""A process that is stopped (SIGSTOP) in a transaction holds up the others for a bounded time only."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import requests

from datarun.db import connect
from datarun.log.admin import create_topics
from datarun.log.kafka import KafkaLog
from datarun.topics import Catalogue
from tests.gateways import Gateway, fold_body, query, running_gateway
from tests.histories import story
from tests.projecting import Installation, wait_until
from tests.readmodel_dump import dump

IDLE_SECONDS = 3.0
FOLD_LOCK = "1885003, 1"
"""What decisions about fold 1 are made under."""
_IMPATIENT = """
import sys
import services.projector.writer as writer
from services.projector.__main__ import main
writer.IDLE_SECONDS = 3.0
sys.exit(main())
"""
_WAITING = "select count(*) from pg_stat_activity where application_name = %s and wait_event = 'advisory'"
_RESTING = "select count(*) from pg_stat_activity where application_name = %s and state = 'idle in transaction'"


@contextmanager
def _stopped(pid: int, application: str, postgres_url: str, lock: str, begin: Callable[[], object]) -> Iterator[float]:
    """Stop a process that is in a transaction, waiting for a lock, and let it have the lock; yield when it got it."""
    blocker = connect(postgres_url)
    with blocker.cursor() as cursor:
        cursor.execute(f"select pg_advisory_xact_lock({lock})")
    begin()
    wait_until(lambda: query(postgres_url, _WAITING, application) != [(0,)], 20)
    os.kill(pid, signal.SIGSTOP)
    try:
        blocker.close()
        wait_until(lambda: query(postgres_url, _RESTING, application) != [(0,)], 5)
        yield time.monotonic()
    finally:
        os.kill(pid, signal.SIGCONT)


def test_another_projector_takes_over_from_a_stopped_one(
    kafka: str, postgres_url: str, topic_prefix: str, tmp_path: Path
) -> None:
    """Its locks lapse with its transaction; when it goes on it has lost both, and nothing is lost or doubled."""
    create_topics(kafka, prefix=topic_prefix)
    installation, log = Installation(kafka, postgres_url, Catalogue(topic_prefix), tmp_path), KafkaLog(kafka)
    options = ["--kafka", kafka, "--postgres", postgres_url, "--topic-prefix", topic_prefix, "--dir", str(tmp_path)]
    output = tmp_path / "stopped.log"
    with output.open("wb") as said:
        first = subprocess.Popen(
            [sys.executable, "-c", _IMPATIENT, *options, "--session-timeout", "2"], stdout=said, stderr=said
        )
    try:
        wait_until(lambda: "projector.ready" in output.read_text(), 40)
        with _stopped(
            first.pid,
            "datarun-projector",
            postgres_url,
            "hashtext('datarun.projection.rm')",
            lambda: installation.append(log, story(1)),
        ) as began:
            with installation.projector():
                wait_until(lambda: installation.caught_up(log), 40)
                wait_until(lambda: query(postgres_url, _RESTING, "datarun-projector") == [(0,)], 5)
            assert time.monotonic() - began >= IDLE_SECONDS - 0.5
        installation.append(log, story(2))
        wait_until(lambda: installation.caught_up(log), 40)
        connection = connect(postgres_url)
        assert dump(connection) == installation.expected(log)
        connection.close()
    finally:
        first.kill()
        first.wait(10)
        log.close()


def test_another_gateway_accepts_what_a_stopped_one_was_deciding(
    kafka: str, postgres_url: str, topic_prefix: str, tmp_path: Path, blobs_url: str
) -> None:
    """A fold whose lock a stopped gateway holds can be asked for again before its ten seconds are long over."""
    create_topics(kafka, prefix=topic_prefix)
    servers = {"kafka": kafka, "postgres_url": postgres_url, "blobs_url": blobs_url, "prefix": topic_prefix}
    with running_gateway(tmp_path / "a", **servers) as first, running_gateway(tmp_path / "b", **servers) as second:
        raw_data_id = first.upload()
        body = fold_body(1, 1, raw_data_id)
        asking = threading.Thread(target=lambda: _ask(first, body))
        with _stopped(first.process.pid, "datarun-gateway", postgres_url, FOLD_LOCK, asking.start) as began:
            wait_until(lambda: second.post("submissionfold/", body).status_code == 201, 40)
            assert time.monotonic() - began < 30
        asking.join(30)
        assert query(postgres_url, "select attempt from intake.fold") == [(1,)]
        assert second.get("submissionfold/1/").status_code == 200


def _ask(gateway: Gateway, body: dict[str, Any]) -> None:
    with suppress(requests.RequestException):
        gateway.post("submissionfold/", body)
