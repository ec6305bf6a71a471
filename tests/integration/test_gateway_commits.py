"""A database that goes away at the very commit: the answer is true, and what is repeated is recorded once."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import requests

from datarun.db import connect
from datarun.events import DataUploaded, FoldRequested
from datarun.intake.claims import FOLD_LOCK
from datarun.log.admin import create_topics
from datarun.stack.postgres import Postgres
from tests.gateways import (
    USER,
    Gateway,
    fold_body,
    pretend_projected,
    query,
    read_events,
    running_gateway,
    wait_until,
)
from tests.postgres_wire import PostgresWire

FOLDS = "select count(*) from intake.fold"
OWED = "select count(*) from intake.outbox where sent_at is null"
NOTHING = {"detail": "The service cannot record anything now; nothing was recorded."}
UNCONFIRMED = {"detail": "The service cannot tell now whether this was recorded; sending it again is safe."}
TAKEN = {"databoard_sf_id": ["SubmissionFold with this databoard sf id already exists."]}


@pytest.fixture
def wire(postgres: Postgres, servers: Path) -> PostgresWire:
    """Return a wire to the session's server, in a folder whose path a Unix socket can have."""
    folder = servers / f"w{uuid.uuid4().hex[:6]}"
    folder.mkdir()
    wire = PostgresWire(Path(postgres.socket_folder), folder)
    wire.start()
    return wire


@pytest.fixture
def gateway(
    kafka: str, postgres_url: str, topic_prefix: str, blobs_url: str, tmp_path: Path, wire: PostgresWire
) -> Iterator[Gateway]:
    """Run a gateway at the end of the wire."""
    create_topics(kafka, prefix=topic_prefix)
    pretend_projected(postgres_url, topic_prefix)
    with running_gateway(
        tmp_path / "gateway",
        kafka=kafka,
        postgres_url=postgres_url,
        blobs_url=blobs_url,
        prefix=topic_prefix,
        gateway_postgres_url=f"{postgres_url.partition('?')[0]}?host={wire.folder}",
    ) as running:
        yield running


def test_a_commit_whose_answer_is_lost_is_looked_up(
    gateway: Gateway, wire: PostgresWire, kafka: str, topic_prefix: str
) -> None:
    """The client gets its 201, of a fold, of one that waits for a split and of a dataset; each event is sent once."""
    raw_data_id = gateway.upload()
    for cut, fold_id in enumerate((1, 2), 1):
        wire.cut = "after"
        answer = gateway.post("submissionfold/", fold_body(fold_id, fold_id, raw_data_id))
        assert (answer.status_code, wire.cuts) == (201, cut), answer.text
        gateway.post("rawdata/split/", {"raw_data_id": raw_data_id, "held_out_test": 0.5})
    assert answer.headers["Datarun-Position"] == "pending"
    wire.cut = "after"
    gateway.upload("second")
    assert (wire.cuts, gateway.query(FOLDS)) == (3, [(2,)])
    wait_until(lambda: gateway.query(f"{OWED} and waiting_for is null") == [(0,)])
    assert len(read_events(kafka, topic_prefix, FoldRequested)) == 1
    assert len(read_events(kafka, topic_prefix, DataUploaded)) == 2


@pytest.mark.parametrize(("cut", "status"), [("after", 201), ("before", 503)])
def test_a_commit_of_several_folds_is_looked_up_for_all(
    gateway: Gateway, wire: PostgresWire, kafka: str, topic_prefix: str, *, cut: str, status: int
) -> None:
    """All of them have their 201, or the 503 that is true, and each event is sent once."""
    gateway.post("submissionfold/", fold_body(1, 1, gateway.upload()))
    holder = connect(gateway.postgres_url)
    with ThreadPoolExecutor(6) as threads, holder, holder.cursor() as cursor:
        cursor.execute("select pg_advisory_xact_lock(%s, 2)", (FOLD_LOCK,))
        # The second waits alone for the lock, the others for it; nothing else is committed meanwhile.
        answers = [threads.submit(_post, gateway, fold_body(2, 1))]
        time.sleep(0.3)
        answers += [threads.submit(_post, gateway, fold_body(number, 1)) for number in range(3, 7)]
        cursor.execute("select pg_advisory_lock(%s, 3)", (FOLD_LOCK,))
        wait_until(lambda: query(gateway.postgres_url, OWED) == [(0,)])
        time.sleep(0.3)
        holder.commit()
        wait_until(lambda: query(gateway.postgres_url, FOLDS) == [(2,)])
        wait_until(lambda: query(gateway.postgres_url, OWED) == [(0,)])
        wire.cut = cut
        cursor.execute("select pg_advisory_unlock(%s, 3)", (FOLD_LOCK,))
    holder.close()
    assert [answer.result() for answer in answers] == [201, *[status] * 4]
    assert wire.cuts == 1
    assert gateway.query(FOLDS) == [(6 if status == 201 else 2,)]
    wait_until(lambda: gateway.query(OWED) == [(0,)])
    assert len(read_events(kafka, topic_prefix, FoldRequested)) == gateway.query(FOLDS)[0][0]


def _post(gateway: Gateway, body: Any) -> int:
    url = f"{gateway.url}/runapp/submissionfold/"
    return requests.post(url, json=body, auth=USER, timeout=60).status_code


def test_a_commit_that_never_arrived_recorded_nothing_and_says_so(gateway: Gateway, wire: PostgresWire) -> None:
    """503 and nothing is there; the same request again is accepted."""
    raw_data_id = gateway.upload()
    body = fold_body(1, 1, raw_data_id)
    wire.cut = "before"
    answer = gateway.post("submissionfold/", body)
    assert (answer.status_code, answer.json(), wire.cuts) == (503, NOTHING, 1)
    assert gateway.query(FOLDS) == [(0,)]
    assert gateway.post("submissionfold/", body).status_code == 201


def test_a_commit_nobody_can_look_up_is_said_to_be_unknown(
    gateway: Gateway, wire: PostgresWire, kafka: str, topic_prefix: str
) -> None:
    """503 within 5 s does not claim that nothing was recorded; repeated, the fold is known and its event sent once."""
    raw_data_id = gateway.upload()
    body = fold_body(1, 1, raw_data_id)
    wire.cut = "after and away"
    answer = gateway.post("submissionfold/", body)
    assert (answer.status_code, answer.json(), wire.cuts) == (503, UNCONFIRMED, 1)
    assert answer.headers["Retry-After"] == "5"
    assert answer.elapsed.total_seconds() < 5
    wire.come_back()
    assert query(gateway.postgres_url, FOLDS) == [(1,)]
    again = gateway.post("submissionfold/", body)
    assert (again.status_code, again.json()) == (400, TAKEN)
    wait_until(lambda: gateway.query(OWED) == [(0,)])
    assert len(read_events(kafka, topic_prefix, FoldRequested)) == 1
