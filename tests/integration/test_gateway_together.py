"""Folds that are claimed in one transaction: each has its own answer, whatever becomes of the others."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import requests

from datarun.db import connect
from datarun.events import FoldRequested
from datarun.intake.claims import FOLD_LOCK
from datarun.log.admin import create_topics
from tests.gateways import USER, Gateway, fold_body, pretend_projected, read_events, running_gateway

TAKEN = {"databoard_sf_id": ["SubmissionFold with this databoard sf id already exists."]}
TRANSACTIONS = "select count(*), count(distinct xmin::text) from intake.fold where fold_id between 11 and 20"
Post = Callable[[Any], Future[requests.Response]]


@pytest.fixture
def gateway(kafka: str, postgres_url: str, topic_prefix: str, blobs_url: str, tmp_path: Path) -> Iterator[Gateway]:
    """Run a gateway."""
    create_topics(kafka, prefix=topic_prefix)
    pretend_projected(postgres_url, topic_prefix)
    servers = {"kafka": kafka, "postgres_url": postgres_url, "blobs_url": blobs_url, "prefix": topic_prefix}
    with running_gateway(tmp_path / "gateway", **servers) as running:
        yield running


@contextmanager
def held(gateway: Gateway) -> Iterator[Post]:
    """Yield what posts folds that wait behind fold 10, which somebody else holds until the end of the block."""
    holder = connect(gateway.postgres_url)
    with ThreadPoolExecutor(30) as threads, holder, holder.cursor() as cursor:
        cursor.execute("select pg_advisory_xact_lock(%s, 10)", (FOLD_LOCK,))

        def post(body: Any) -> Future[requests.Response]:
            url = f"{gateway.url}/runapp/submissionfold/"
            return threads.submit(requests.post, url, json=body, auth=USER, timeout=60)

        post(fold_body(10, 1))
        time.sleep(0.3)
        yield post
        time.sleep(0.5)
        holder.commit()
    holder.close()


def test_what_waits_is_one_transaction_and_each_has_its_answer(gateway: Gateway, kafka: str, topic_prefix: str) -> None:
    """Ten folds are accepted together; a second post of one, one that is known and two wrong ones are refused alone."""
    gateway.post("submissionfold/", fold_body(1, 1, gateway.upload()))
    with held(gateway) as post:
        good = [post(fold_body(number, 1)) for number in range(11, 21)]
        time.sleep(0.2)
        again, known, orphan = post(fold_body(11, 1)), post(fold_body(1, 1)), post(fold_body(21, 99))
        bad = post(fold_body(22, 1) | {"train_is": "no indices"})
    assert [answer.result().status_code for answer in good] == [201] * 10
    assert [answer.result().json()["databoard_sf_id"] for answer in good] == list(range(11, 21))
    assert gateway.query(TRANSACTIONS) == [(10, 1)]
    assert [(one.result().status_code, one.result().json()) for one in (again, known)] == [(400, TAKEN)] * 2
    assert set(orphan.result().json()) == {"raw_data", "files"}
    assert set(bad.result().json()) == {"train_is"}
    accepted = [event.fold_id for event in read_events(kafka, topic_prefix, FoldRequested)]
    assert sorted(accepted) == [1, *range(10, 21)]


def test_what_the_database_refuses_of_one_is_kept_from_the_others(gateway: Gateway) -> None:
    """They are tried alone then; the one fails by itself."""
    gateway.post("submissionfold/", fold_body(1, 1, gateway.upload()))
    with connect(gateway.postgres_url) as connection, connection.cursor() as cursor:
        cursor.execute("alter table intake.fold add check (fold_id <> 13)")
    with held(gateway) as post:
        answers = [post(fold_body(number, 1)) for number in range(11, 21)]
    assert [answer.result().status_code for answer in answers] == [201, 201, 500, *[201] * 7]
    assert gateway.query(TRANSACTIONS) == [(9, 9)]
