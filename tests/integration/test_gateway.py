"""The gateway among real servers: races, a broker or a database that is away, crashes, cut connections."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import requests

from datarun import accounts, events
from datarun.envelope import decode, header
from datarun.errors import DatarunError
from datarun.events import FoldRequested, PredictionsFetched
from datarun.log.admin import create_topics
from datarun.post_api import decode_predictions
from datarun.stack.postgres import Postgres
from tests.gateways import (
    CSV,
    USER,
    Gateway,
    fold_body,
    give_result,
    give_split,
    packed,
    pretend_at_work,
    pretend_projected,
    query,
    read_events,
    read_log,
    running_gateway,
    wait_until,
)
from tests.late_broker import LateBroker

Start = Callable[..., AbstractContextManager[Gateway]]
FOLD_TAKEN = {"databoard_sf_id": ["SubmissionFold with this databoard sf id already exists."]}
NAME_TAKEN = "RawData with this name already exists."
FORCE_BOTH = "submission, submission_fold"


@pytest.fixture
def start(kafka: str, postgres_url: str, topic_prefix: str, blobs_url: str, tmp_path: Path) -> Start:
    """Return what starts gateways on one broker, one database and one blob store; nothing is projected."""
    create_topics(kafka, prefix=topic_prefix)
    pretend_projected(postgres_url, topic_prefix)
    pretend_at_work(postgres_url, topic_prefix)
    servers = {"kafka": kafka, "postgres_url": postgres_url, "blobs_url": blobs_url, "prefix": topic_prefix}

    def started(**options: str) -> AbstractContextManager[Gateway]:
        return running_gateway(tmp_path / uuid.uuid4().hex[:4], **(servers | options))

    return started


@pytest.fixture
def gateway(start: Start) -> Iterator[Gateway]:
    """Run one gateway."""
    with start() as running:
        yield running


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


@pytest.mark.parametrize("is_first", [True, False])
def test_one_of_fifty_equal_folds_is_accepted(start: Start, kafka: str, topic_prefix: str, *, is_first: bool) -> None:
    """Fifty posts of one id at once, over two gateways: one 201, forty-nine refusals, one event (row 64)."""
    with start() as one, start() as other:
        raw_data_id = one.upload()
        one.post("submissionfold/", fold_body(9, 9, raw_data_id))
        body = fold_body(1, 1, raw_data_id) if is_first else fold_body(1, 9)
        answers = at_once([partial(post, (one, other)[n % 2], "submissionfold/", body) for n in range(50)])
        assert Counter(answer.status_code for answer in answers) == {201: 1, 400: 49}
        assert all(answer.json() == FOLD_TAKEN for answer in answers if answer.status_code == 400)
        assert sorted(event.fold_id for event in read_events(kafka, topic_prefix, FoldRequested)) == [1, 9]


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


def test_a_client_that_hangs_up_after_its_request_may_repeat_it(
    gateway: Gateway, kafka: str, topic_prefix: str
) -> None:
    """Whoever did not hear the answer sends it again: a fold and a name are known, a split has its task, all once."""
    raw_data_id = gateway.upload()
    upload = {"name": "again", "target_column": "species", "workflow_elements": "classifier"}
    requests_ = {
        "submissionfold/": (fold_body(1, 1, raw_data_id), 400, FOLD_TAKEN),
        "rawdata/": (upload | {"files": {"a.csv": packed(CSV)}}, 400, {"name": [NAME_TAKEN]}),
        "rawdata/split/": ({"raw_data_id": raw_data_id, "held_out_test": 0.5}, 200, None),
    }
    for path, (body, status, answer) in requests_.items():
        rows = gateway.query("select count(*) from intake.outbox")
        with asking(gateway, path, body):
            # Accepted, and nobody reads the answer.
            wait_until(lambda rows=rows: gateway.query("select count(*) from intake.outbox") != rows)
        again = gateway.post(path, body)
        assert again.status_code == status, again.text
        [(task_id,)] = gateway.query("select split_task_id from intake.dataset where raw_data_id = %s", raw_data_id)
        assert again.json() == (answer or {"task_id": task_id})
    wait_until(lambda: gateway.query(OWED) == [(0,)])
    kinds = Counter(type(decode(record.value, record.headers)).__name__ for record in read_log(kafka, topic_prefix))
    assert kinds == {"DataUploaded": 2, "FoldRequested": 1, "SplitRequested": 1}


def test_one_of_twenty_equal_names_is_accepted(start: Start, kafka: str, topic_prefix: str) -> None:
    """Twenty uploads of one name at once, over two gateways: one 201 (row 36)."""
    body = {"name": "iris", "target_column": "a", "workflow_elements": "classifier"}
    bodies = [body | {"files": {"iris.csv": packed(f"a,b\n1,{n}\n")}} for n in range(20)]
    with start() as one, start() as other:
        answers = at_once([partial(post, (one, other)[n % 2], "rawdata/", body) for n, body in enumerate(bodies)])
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


OWED = "select count(*) from intake.outbox where sent_at is null"


def test_what_a_broker_missed_is_sent_once_when_it_is_back(
    start: Start, kafka: str, topic_prefix: str, postgres_url: str
) -> None:
    """A broker that is away refuses nothing: 201 with `pending`, and later each event is in the log exactly once."""
    broker = LateBroker(kafka)
    with start(kafka=broker.address) as gateway:
        raw_data_id = gateway.upload()
        for fold_id in (1, 2, 3):
            answer = gateway.post("submissionfold/", fold_body(fold_id, 1, raw_data_id if fold_id == 1 else None))
            assert (answer.status_code, answer.headers["Datarun-Position"]) == (201, "pending")
            assert answer.elapsed.total_seconds() < 2
            assert gateway.get(f"submissionfold/{fold_id}/").status_code == 200
        assert [light["state"] for light in gateway.get("submissionfold-light/").json()] == ["TODO"] * 3
        assert gateway.get("rawdata/").json()[0]["id"] == raw_data_id
        owed = {str(ce_id) for (ce_id,) in gateway.query("select ce_id from intake.outbox where sent_at is null")}
        assert len(owed) == 4
        broker.arrive()
        wait_until(lambda: query(postgres_url, OWED) == [(0,)])
        time.sleep(1.5)
    sent = Counter(header(record.headers, "ce_id") for record in read_log(kafka, topic_prefix))
    assert sent == dict.fromkeys(owed, 1)


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


def test_a_gateway_killed_before_it_marked_repeats_the_same_event(start: Start, kafka: str, topic_prefix: str) -> None:
    """What the log has and the outbox does not know of is sent again, recognisable by its id."""
    with start(DATARUN_CRASH_AT="gateway.before_mark:2") as doomed:
        raw_data_id = doomed.upload()
        wait_until(lambda: doomed.query(OWED) == [(0,)])
        with suppress(requests.ConnectionError):
            doomed.post("submissionfold/", fold_body(1, 1, raw_data_id))
        doomed.process.wait(5)
    assert len(read_events(kafka, topic_prefix, FoldRequested)) == 1
    with start() as next_one:
        wait_until(lambda: next_one.query(OWED) == [(0,)], seconds=10)
    first, second = read_events(kafka, topic_prefix, FoldRequested)
    assert first == second


def test_rows_are_taken_over_from_the_dead_alone(start: Start, kafka: str, postgres_url: str) -> None:
    """A second gateway leaves what a living one still holds, and sends it when that one is killed."""
    with start(kafka=LateBroker(kafka).address) as first, start():
        first.post("submissionfold/", fold_body(1, 1, first.upload()))
        time.sleep(4)
        assert query(postgres_url, OWED) == [(2,)]
        first.kill()
        wait_until(lambda: query(postgres_url, OWED) == [(0,)], seconds=8)


UNAVAILABLE = {"detail": "The service cannot record anything now; nothing was recorded."}


def test_a_database_that_hangs_makes_503_in_time(gateway: Gateway) -> None:
    """When Postgres stops answering the client has its 503 within 5 s, and the service recovers by itself (row 29)."""
    raw_data_id = gateway.upload()
    with stopped(gateway.query("select pid from pg_stat_activity where application_name = 'datarun-gateway'")):
        answer = gateway.post("submissionfold/", fold_body(1, 1, raw_data_id))
        assert (answer.status_code, answer.json()) == (503, UNAVAILABLE)
        assert answer.headers["Retry-After"] == "5"
        assert answer.elapsed.total_seconds() < 5
    assert gateway.post("submissionfold/", fold_body(1, 1, raw_data_id)).status_code == 201


@contextmanager
def stopped(pids: list[tuple[int]]) -> Iterator[None]:
    """Hold processes still."""
    try:
        for (pid,) in pids:
            os.kill(pid, signal.SIGSTOP)
        yield
    finally:
        for (pid,) in pids:
            os.kill(pid, signal.SIGCONT)


def test_a_database_that_refuses_makes_503_and_comes_back(gateway: Gateway, postgres: Postgres) -> None:
    """While Postgres lets nobody in every route says 503; afterwards all of them work, without a restart."""
    raw_data_id = gateway.upload()
    database = urlsplit(gateway.postgres_url).path[1:]
    admin = postgres.url_of("postgres")
    query(admin, f"alter database {database} allow_connections false")
    query(admin, "select pg_terminate_backend(pid) from pg_stat_activity where datname = %s", database)
    for call in (
        partial(gateway.get, "rawdata/"),
        partial(gateway.get, "submissionfold/"),
        partial(gateway.post, "testpredictions/new/", {}),
        partial(gateway.post, "submissionfold/", fold_body(1, 1, raw_data_id)),
        partial(gateway.post, "rawdata/split/", {"raw_data_id": raw_data_id, "held_out_test": 0.5}),
    ):
        answer = call()
        assert (answer.status_code, answer.json()) == (503, UNAVAILABLE)
        assert answer.elapsed.total_seconds() < 5
    query(admin, f"alter database {database} allow_connections true")
    assert gateway.post("submissionfold/", fold_body(1, 1, raw_data_id)).status_code == 201
    wait_until(lambda: gateway.query(OWED) == [(0,)])


def test_it_starts_while_everything_is_away(start: Start, kafka: str, postgres_url: str) -> None:
    """Without a broker and a database it lives, says what is missing, and refuses with 503."""
    with start(kafka=LateBroker(kafka).address, gateway_postgres_url=f"{postgres_url}-not-here") as gateway:
        assert requests.get(f"{gateway.url}/healthz", timeout=5).json() == {"status": "ok"}
        ready = requests.get(f"{gateway.url}/readyz", timeout=10)
        assert (ready.status_code, ready.json()) == (503, {"postgres": "away", "kafka": "away", "blobs": "ok"})
        assert gateway.get("rawdata/").json() == UNAVAILABLE


def test_it_stops_in_time_while_the_broker_is_away(start: Start, kafka: str) -> None:
    """SIGTERM ends the gateway within ten seconds, whatever is still owed."""
    with start(kafka=LateBroker(kafka).address) as gateway:
        gateway.upload()
        started = time.monotonic()
        gateway.process.terminate()
        assert gateway.process.wait(10) == 0
        assert time.monotonic() - started < 10


def test_a_replaced_version_leaves_the_lists(gateway: Gateway, blobs_url: str) -> None:
    """Forcing the submission takes its other folds out of the lists, and their numbers are free again."""
    raw_data_id = gateway.upload()
    for fold_id in (1, 2):
        gateway.post("submissionfold/", fold_body(fold_id, 1, raw_data_id if fold_id == 1 else None))
        give_result(gateway.postgres_url, blobs_url, fold_id)
    forced = gateway.post("submissionfold/", fold_body(1, 1, raw_data_id, force=FORCE_BOTH))
    assert forced.status_code == 201
    shown = [(fold["databoard_sf_id"], fold["state"]) for fold in gateway.get("submissionfold-light/").json()]
    assert shown == [(1, "TODO")]
    assert [fold["databoard_sf_id"] for fold in gateway.get("submissionfold/").json()] == [1]
    listed = gateway.post("testpredictions/list/", {"list_submission_fold": [1, 2]}).json()
    assert [(fold["databoard_sf_id"], fold["state"]) for fold in listed] == [(1, "TODO")]
    assert gateway.post("testpredictions/new/", {}).json() == []
    assert gateway.post("submissionfold/", fold_body(2, 1)).status_code == 201
    assert len(gateway.get("submissionfold-light/").json()) == 2
    alone = gateway.post("submissionfold/", fold_body(1, 1, force="submission"))
    assert alone.status_code == 201


def test_predictions_are_new_until_they_arrived(
    gateway: Gateway, kafka: str, topic_prefix: str, blobs_url: str
) -> None:
    """`new` gives each tested fold once, exactly as it was stored; waiting folds do not lose it by being listed."""
    raw_data_id = gateway.upload()
    gateway.post("submissionfold/", fold_body(1, 1, raw_data_id))
    gateway.post("submissionfold/", fold_body(2, 1))
    listed = gateway.post("testpredictions/list/", {"list_submission_fold": [2, 1, 1, 77]}).json()
    assert [(fold["databoard_sf_id"], fold["state"], fold["test_predictions"]) for fold in listed] == [
        (1, "TODO", None),
        (2, "TODO", None),
    ]
    predictions = give_result(gateway.postgres_url, blobs_url, 1)
    (new,) = gateway.post("testpredictions/new/", {"raw_data_id": raw_data_id}).json()
    assert (new["databoard_sf_id"], new["state"], new["log_messages"]) == (1, "TESTED", "\n\n")
    assert decode_predictions(new["test_predictions"]).tobytes() == predictions.tobytes()
    assert gateway.post("testpredictions/new/", {}).json() == []
    assert gateway.get("submissionfold-light/").json()[0]["new"] is False
    wait_until(lambda: len(read_events(kafka, topic_prefix, PredictionsFetched)) == 1, seconds=5)
    give_result(gateway.postgres_url, blobs_url, 2)
    assert len(gateway.post("testpredictions/list/", {"list_submission_fold": [2]}).json()) == 1
    assert gateway.post("testpredictions/new/", {}).json() == []
    wait_until(lambda: len(read_events(kafka, topic_prefix, PredictionsFetched)) == 2, seconds=5)


def test_two_fetchers_share_nothing(start: Start, blobs_url: str) -> None:
    """Fetchers that ask at once, of two gateways, get disjoint folds that are all of them."""
    with start() as one, start() as other:
        raw_data_id = one.upload()
        for fold_id in range(1, 41):
            one.post("submissionfold/", fold_body(fold_id, 1, raw_data_id if fold_id == 1 else None))
            give_result(one.postgres_url, blobs_url, fold_id)
        answers = at_once([partial(post, (one, other)[n % 2], "testpredictions/new/", {}) for n in range(8)])
        got = [fold["databoard_sf_id"] for answer in answers for fold in answer.json()]
        assert sorted(got) == list(range(1, 41))


def test_a_cut_connection_leaves_the_folds_new(gateway: Gateway, blobs_url: str) -> None:
    """A client that hangs up in mid-body, of a long answer or a short one, gets the same folds again (row 81)."""
    raw_data_id = gateway.upload()
    for values in (2_000_000, 1000):
        fold_id = values
        gateway.post("submissionfold/", fold_body(fold_id, fold_id, raw_data_id))
        give_result(gateway.postgres_url, blobs_url, fold_id, values=values)
        hang_up_after(gateway, 600)
        found: list[Any] = []

        def is_new_again(found: list[Any] = found) -> bool:
            found[:] = gateway.post("testpredictions/new/", {}).json()
            return bool(found)

        wait_until(is_new_again, seconds=10)
        assert [fold["databoard_sf_id"] for fold in found] == [fold_id]
        assert gateway.post("testpredictions/new/", {}).json() == []


def hang_up_after(gateway: Gateway, count: int) -> None:
    """Ask for new predictions, read some bytes of the answer and reset the connection."""
    with asking(gateway, "testpredictions/new/", {}) as connection:
        received = 0
        while received < count:
            received += len(connection.recv(min(200, count - received)))


@contextmanager
def asking(gateway: Gateway, path: str, body: Any) -> Iterator[socket.socket]:
    """POST something over a connection of one's own."""
    parts = urlsplit(gateway.url)
    prepared = requests.Request("POST", f"{gateway.url}/runapp/{path}", json=body, auth=USER).prepare()
    lines = [f"POST {prepared.path_url} HTTP/1.1", f"Host: {parts.netloc}"]
    lines += [f"{name}: {value}" for name, value in prepared.headers.items()]
    with socket.create_connection((parts.hostname, parts.port), timeout=10) as connection:
        connection.sendall(("\r\n".join(lines) + "\r\n\r\n").encode() + prepared.body)
        yield connection


def test_a_claim_lapses_when_its_gateway_dies(start: Start, blobs_url: str) -> None:
    """What a gateway gave out and did not live to record is nobody else's for a minute, then new again."""
    with start(DATARUN_CRASH_AT="gateway.before_fetched") as doomed:
        doomed.post("submissionfold/", fold_body(1, 1, doomed.upload()))
        give_result(doomed.postgres_url, blobs_url, 1)
        assert len(doomed.post("testpredictions/new/", {}).json()) == 1
        doomed.process.wait(5)
    with start() as gateway:
        assert gateway.post("testpredictions/new/", {}).json() == []
        gateway.query("update intake.fetch_claim set claimed_until = claimed_until - interval '60 s'")
        assert len(gateway.post("testpredictions/new/", {}).json()) == 1


def test_a_reader_may_ask_for_a_position(gateway: Gateway) -> None:
    """Datarun-Min-Position makes a read wait for a write, and says 503 when it does not come."""
    position = gateway.post("submissionfold/", fold_body(1, 1, gateway.upload())).headers["Datarun-Position"]
    assert gateway.get("submissionfold/1/", headers={"Datarun-Min-Position": position}).status_code == 200
    assert gateway.get("rawdata/", headers={"Datarun-Min-Position": "pending"}).status_code == 200
    far = gateway.get("rawdata/", headers={"Datarun-Min-Position": "nowhere:0:5"})
    assert far.status_code == 503
    assert "Retry-After" in far.headers
    assert gateway.get("rawdata/", headers={"Datarun-Min-Position": "x:y:z"}).status_code == 400


def test_a_post_waits_for_its_own_projection(
    kafka: str, postgres_url: str, topic_prefix: str, blobs_url: str, tmp_path: Path
) -> None:
    """An answer comes soon after the projector told of the event, and after a second at the latest."""
    create_topics(kafka, prefix=topic_prefix)
    with running_gateway(
        tmp_path, kafka=kafka, postgres_url=postgres_url, blobs_url=blobs_url, prefix=topic_prefix
    ) as gateway:
        # The first request of an account pays for its hash, and for the first connections.
        gateway.upload("first")
        slow = timed(lambda: gateway.upload("one"))
        assert 0.9 < slow < 2
        projecting = threading.Timer(0.3, pretend_projected, (postgres_url, topic_prefix))
        projecting.start()
        soon = timed(lambda: gateway.upload("two"))
        projecting.join()
        assert 0.2 < soon < 0.9


def timed(call: Callable[[], object]) -> float:
    """Return how many seconds a call takes."""
    started = time.monotonic()
    call()
    return time.monotonic() - started


def test_accounts_are_added_once_and_let_in(gateway: Gateway) -> None:
    """An account that is added is let in, wherever its password has umlauts; a second one of its name is refused."""
    accounts.add(gateway.postgres_url, "bénédicte", "pässwörd")
    credentials = tuple(part.encode() for part in ("bénédicte", "pässwörd"))
    assert requests.get(f"{gateway.url}/runapp/rawdata/", auth=credentials, timeout=10).status_code == 200
    with pytest.raises(DatarunError, match="exists already"):
        accounts.add(gateway.postgres_url, "bénédicte", "other")
    for name, password in (("", "x"), ("a:b", "x"), ("a", ""), ("a", "x" * 2000), ("a\n", "x")):
        with pytest.raises(DatarunError):
            accounts.add(gateway.postgres_url, name, password)
