"""The gateway among real servers: races, a broker or a database that is away, crashes at every seam, cut connections."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest
import requests

from datarun import accounts, events
from datarun.blobs import open_blobs
from datarun.envelope import decode, header
from datarun.errors import DatarunError
from datarun.events import Event, FoldRequested, PredictionsFetched
from datarun.log import StoredRecord, TopicPartition
from datarun.log.admin import create_topics
from datarun.log.kafka import KafkaLog
from datarun.post_api import decode_predictions
from datarun.topics import TOPICS, Catalogue
from tests.gateways import (
    USER,
    Gateway,
    fold_body,
    packed,
    pretend_projected,
    query,
    running_gateway,
    wait_until,
)

Start = Callable[..., AbstractContextManager[Gateway]]
FOLD_TAKEN = {"databoard_sf_id": ["SubmissionFold with this databoard sf id already exists."]}
FORCE_BOTH = "submission, submission_fold"


@pytest.fixture
def start(kafka: str, postgres_url: str, topic_prefix: str, blobs_url: str, tmp_path: Path) -> Start:
    """Return what starts gateways on one broker, one database and one blob store; nothing is projected."""
    create_topics(kafka, prefix=topic_prefix)
    pretend_projected(postgres_url, topic_prefix)
    servers = {"kafka": kafka, "postgres_url": postgres_url, "blobs_url": blobs_url, "prefix": topic_prefix}

    def started(**options: str) -> AbstractContextManager[Gateway]:
        return running_gateway(tmp_path / uuid.uuid4().hex[:4], **(servers | options))

    return started


@pytest.fixture
def gateway(start: Start) -> Iterator[Gateway]:
    """Run one gateway."""
    with start() as running:
        yield running


def read_log(kafka: str, prefix: str) -> list[StoredRecord]:
    """Return every record of an installation's topics."""
    log = KafkaLog(kafka)
    names = [Catalogue(prefix).full_name(topic) for topic in TOPICS]
    start = {
        TopicPartition(name, partition): 0
        for name, topic in zip(names, TOPICS, strict=True)
        for partition in range(topic.partitions)
    }
    try:
        return [record for batch in log.read(start, until_end=True) for record in batch]
    finally:
        log.close()


def read_events(kafka: str, prefix: str, kind: type[Event]) -> list[Event]:
    """Return the events of one kind that are in the log."""
    found = (decode(record.value, record.headers) for record in read_log(kafka, prefix))
    return [event for event in found if isinstance(event, kind)]


def give_split(postgres_url: str, raw_data_id: int, *, train_rows: int = 75) -> None:
    """Let the read model know the result of a dataset's first split, as the projector would."""
    split = events.Split(kind="standard", task_id="t", train_rows=train_rows).model_dump_json()
    query(
        postgres_url,
        """insert into rm.dataset (raw_data_id, name, split_attempt, result_attempt, split)
        values (%s, 'x', 1, 1, %s); notify datarun_projected""",
        raw_data_id,
        split,
    )


def give_result(postgres_url: str, blobs_url: str, fold_id: int, *, values: int = 6, attempt: int = 1) -> np.ndarray:
    """Let the read model know a fold's predictions, as the projector would; returns them."""
    content = np.random.default_rng(fold_id).random(values)
    blob = open_blobs(blobs_url).put(content.tobytes())
    query(
        postgres_url,
        """insert into rm.fold (fold_id, request_attempt, request_delivery, submission_id, submission_version,
            raw_data_id, priority, train_is, test_is, task_id, run_attempt, run_rank, test_predictions,
            full_train_predictions, train_time)
        select fold_id, attempt, 1, submission_id, submission_version, raw_data_id, priority, train_is, test_is,
            task_id, %(attempt)s, 9, %(blob)s, %(blob)s, 1.5
        from intake.fold where fold_id = %(fold_id)s
        on conflict (fold_id) do update set request_attempt = excluded.request_attempt,
            run_attempt = excluded.run_attempt, run_rank = 9, test_predictions = excluded.test_predictions,
            submission_version = excluded.submission_version""".replace("%(attempt)s", str(attempt))
        .replace("%(blob)s", f"'{blob.sha256}:{blob.size}'")
        .replace("%(fold_id)s", str(fold_id)),
    )
    return content


def at_once(calls: list[Callable[[], requests.Response]]) -> list[requests.Response]:
    """Make calls at the same instant."""
    barrier = threading.Barrier(len(calls))

    def call(one: Callable[[], requests.Response]) -> requests.Response:
        barrier.wait()
        return one()

    with ThreadPoolExecutor(len(calls)) as threads:
        return list(threads.map(call, calls))


def post(gateway: Gateway, path: str, body: Any) -> requests.Response:
    """POST without the session, which is not for several threads."""
    return requests.post(f"{gateway.url}/runapp/{path}", json=body, auth=USER, timeout=60)


def test_one_of_fifty_equal_folds_is_accepted(start: Start, kafka: str, topic_prefix: str) -> None:
    """Fifty posts of one id at once, over two gateways: one 201, forty-nine refusals, one event (row 64)."""
    with start() as one, start() as other:
        raw_data_id = one.upload()
        calls = [partial(post, (one, other)[n % 2], "submissionfold/", fold_body(1, 1, raw_data_id)) for n in range(50)]
        answers = at_once(calls)
        assert Counter(answer.status_code for answer in answers) == {201: 1, 400: 49}
        assert all(answer.json() == FOLD_TAKEN for answer in answers if answer.status_code == 400)
        assert len(read_events(kafka, topic_prefix, FoldRequested)) == 1


def test_fifty_forced_posts_are_fifty_attempts_in_order(start: Start, kafka: str, topic_prefix: str) -> None:
    """Each forced post is an attempt of its own, and the log has a key's attempts in the order they were accepted."""
    with start() as one, start() as other:
        raw_data_id = one.upload()
        assert one.post("submissionfold/", fold_body(1, 1, raw_data_id)).status_code == 201
        body = fold_body(1, 1, force="submission_fold")
        answers = at_once([partial(post, (one, other)[n % 2], "submissionfold/", body) for n in range(50)])
        assert Counter(answer.status_code for answer in answers) == {201: 50}
        wait_until(lambda: one.query("select count(*) from intake.outbox where sent_at is null") == [(0,)])
        attempts = [event.attempt for event in read_events(kafka, topic_prefix, FoldRequested)]
        assert attempts == list(range(1, 52))


def test_one_of_twenty_equal_names_is_accepted(gateway: Gateway, kafka: str, topic_prefix: str) -> None:
    """Twenty uploads of one name at once: one 201 (row 36)."""
    body = {"name": "iris", "target_column": "a", "workflow_elements": "classifier"}
    bodies = [body | {"files": {"iris.csv": packed(f"a,b\n1,{n}\n")}} for n in range(20)]
    answers = at_once([partial(post, gateway, "rawdata/", body) for body in bodies])
    assert Counter(answer.status_code for answer in answers) == {201: 1, 400: 19}
    assert len(read_events(kafka, topic_prefix, events.DataUploaded)) == 1


def test_folds_wait_for_their_split_and_carry_it(
    gateway: Gateway, kafka: str, topic_prefix: str, postgres_url: str
) -> None:
    """A fold posted while its dataset is being split is sent, with the split, once that is projected."""
    raw_data_id = gateway.upload()
    gateway.post("rawdata/split/", {"raw_data_id": raw_data_id, "held_out_test": 0.5})
    waiting = gateway.post("submissionfold/", fold_body(1, 1, raw_data_id))
    assert (waiting.status_code, waiting.headers["Datarun-Position"]) == (201, "pending")
    assert gateway.get("submissionfold/1/").json()["state"] == "TODO"
    assert read_events(kafka, topic_prefix, FoldRequested) == []
    give_split(postgres_url, raw_data_id)
    wait_until(lambda: gateway.query("select count(*) from intake.outbox where sent_at is null") == [(0,)], seconds=3)
    (event,) = read_events(kafka, topic_prefix, FoldRequested)
    assert event.dataset.split is not None
    assert event.dataset.split.train_rows == 75
    at_once_sent = gateway.post("submissionfold/", fold_body(2, 1))
    assert at_once_sent.headers["Datarun-Position"] != "pending"


def test_a_fold_of_a_dataset_nobody_splits_is_sent_without(gateway: Gateway, kafka: str, topic_prefix: str) -> None:
    """The runner, not the gateway, fails a fold that has no split."""
    gateway.post("submissionfold/", fold_body(1, 1, gateway.upload()))
    (event,) = read_events(kafka, topic_prefix, FoldRequested)
    assert event.dataset.split is None
    assert event.dataset.split_error is None


def test_records_are_what_every_reader_expects(gateway: Gateway, kafka: str, topic_prefix: str) -> None:
    """Every record of the outbox decodes, has its event's deterministic id and lies in its own topic."""
    raw_data_id = gateway.upload()
    gateway.post("rawdata/split/", {"raw_data_id": raw_data_id, "held_out_test": 0.25})
    gateway.post("submissionfold/", fold_body(5, 1, raw_data_id, priority="H"))
    give_split(gateway.postgres_url, raw_data_id)
    wait_until(lambda: len(read_log(kafka, topic_prefix)) == 3)
    kinds = set()
    for record in read_log(kafka, topic_prefix):
        event = decode(record.value, record.headers)
        assert header(record.headers, "ce_id") == str(event.event_id)
        kinds.add((type(event).__name__, record.topic.removeprefix(topic_prefix), record.key))
    assert kinds == {
        ("DataUploaded", "data-events", b"1"),
        ("SplitRequested", "data-requests", b"1"),
        ("FoldRequested", "fold-requests.high", b"5"),
    }


def test_what_a_broker_missed_is_sent_once_when_it_is_back(
    start: Start, kafka: str, topic_prefix: str, postgres_url: str
) -> None:
    """A broker that is away refuses nothing: 201 with `pending`, and later each event is in the log exactly once."""
    with Proxy(kafka) as proxy, start(kafka=proxy.address) as gateway:
        raw_data_id = gateway.upload()
        proxy.cut()
        for fold_id in (1, 2, 3):
            body = fold_body(fold_id, 1, raw_data_id if fold_id == 1 else None)
            answer = gateway.post("submissionfold/", body)
            assert (answer.status_code, answer.headers["Datarun-Position"]) == (201, "pending")
            assert gateway.get(f"submissionfold/{fold_id}/").status_code == 200
        owed = {str(ce_id) for (ce_id,) in gateway.query("select ce_id from intake.outbox where sent_at is null")}
        assert len(owed) == 3
        proxy.mend()
        wait_until(lambda: query(postgres_url, "select count(*) from intake.outbox where sent_at is null") == [(0,)])
        time.sleep(1.5)
    requested = [record for record in read_log(kafka, topic_prefix) if "fold-requests" in record.topic]
    assert Counter(header(record.headers, "ce_id") for record in requested) == dict.fromkeys(owed, 1)


def test_a_gateway_killed_after_its_commit_loses_nothing(start: Start, kafka: str, topic_prefix: str) -> None:
    """What was committed is sent by the next gateway, once; the client that asks again is told that it is known."""
    with start(DATARUN_CRASH_AT="gateway.after_commit:2") as doomed:
        raw_data_id = doomed.upload()
        with pytest.raises(requests.ConnectionError):
            doomed.post("submissionfold/", fold_body(1, 1, raw_data_id))
        doomed.process.wait(5)
    assert read_events(kafka, topic_prefix, FoldRequested) == []
    with start() as next_one:
        wait_until(lambda: len(read_events(kafka, topic_prefix, FoldRequested)) == 1, seconds=10)
        assert next_one.post("submissionfold/", fold_body(1, 1)).json() == FOLD_TAKEN
        assert next_one.get("submissionfold/1/").json()["state"] == "TODO"


def test_a_living_gateways_rows_are_not_taken(start: Start, kafka: str, postgres_url: str) -> None:
    """A second gateway does not send what the first one still holds, however long the broker is away for that one."""
    with Proxy(kafka) as proxy, start(kafka=proxy.address) as first, start():
        raw_data_id = first.upload()
        proxy.cut()
        first.post("submissionfold/", fold_body(1, 1, raw_data_id))
        time.sleep(4)
        owed = "select count(*) from intake.outbox where sent_at is null"
        assert query(postgres_url, owed) == [(1,)]
        first.kill()
        wait_until(lambda: query(postgres_url, owed) == [(0,)], seconds=8)


def test_without_postgres_the_answer_is_503_within_seconds(start: Start, postgres: Any) -> None:
    """A database that hangs makes 503, never a hang, and the service recovers by itself (row 29)."""
    with start() as gateway:
        raw_data_id = gateway.upload()
        backends = gateway.query(
            "select pid from pg_stat_activity where application_name like 'datarun-gateway%%' and pid <> pg_backend_pid()"
            if False
            else "select pid from pg_stat_activity where application_name ~ '^datarun-gateway'"
        )
        host_pids = _host_pids([pid for (pid,) in backends])
        for pid in host_pids:
            os.kill(pid, signal.SIGSTOP)
        try:
            answer = gateway.post("submissionfold/", fold_body(1, 1, raw_data_id), timeout=10)
            assert answer.status_code == 503
            assert answer.elapsed.total_seconds() < 5
            assert answer.headers["Retry-After"] == "5"
            assert answer.json() == {
                "detail": "The service cannot record anything now; nothing was recorded."
            }
        finally:
            for pid in host_pids:
                os.kill(pid, signal.SIGCONT)
        assert gateway.post("submissionfold/", fold_body(1, 1, raw_data_id)).status_code == 201


def _host_pids(pids: list[int]) -> list[int]:
    return pids


