"""Cancelling and forcing folds at a gateway with a real projector behind it: what is answered, and what the log gets."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import requests

from datarun import tokens
from datarun.envelope import decode
from datarun.events import DataSplit, Event, FoldCancelled, FoldFenced, FoldRequested, FoldStarted, FoldTested, Split
from datarun.log.admin import create_topics
from datarun.log.kafka import KafkaLog
from datarun.topics import FOLD_CONTROL, TOPICS, Catalogue
from tests.gateways import USER, Gateway, fold_body, query, running_gateway, wait_until
from tests.histories import blob, run_event
from tests.projecting import Installation


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
def gateway(installation: Installation, blobs_url: str) -> Iterator[Gateway]:
    """Run a gateway beside a projector."""
    with (
        installation.projector() as projector,
        running_gateway(
            installation.folder / "gateway",
            kafka=installation.kafka,
            postgres_url=installation.postgres_url,
            blobs_url=blobs_url,
            prefix=installation.catalogue.prefix,
        ) as running,
    ):
        projector.wait_ready()
        yield running


def cancel(gateway: Gateway, fold_id: int, **options: Any) -> requests.Response:
    """Cancel a fold as the test's account."""
    return requests.post(f"{gateway.url}/v1/folds/{fold_id}/cancel", **({"auth": USER, "timeout": 30} | options))


def request_fold(gateway: Gateway, fold_id: int, raw_data_id: int | None = None, **fields: Any) -> None:
    """Have a fold accepted."""
    answer = gateway.post("submissionfold/", fold_body(fold_id, 3, raw_data_id, **fields))
    assert answer.status_code == 201, answer.text


def logged(installation: Installation, log: KafkaLog, *kinds: type[Event]) -> list[Event]:
    """Return the events of some kinds, each topic's in order."""
    ends = log.end_offsets([installation.catalogue.full_name(topic) for topic in TOPICS])
    records = [record for batch in log.read(dict.fromkeys(ends, 0), until_end=True) for record in batch]
    events = [decode(record.value, record.headers) for record in records]
    return [event for event in events if isinstance(event, kinds)]


def test_a_waiting_fold_is_cancelled_once(gateway: Gateway, installation: Installation, log: KafkaLog) -> None:
    """Ten at once have the same answer, the log has one fence and one end, and clients read who did it and why."""
    request_fold(gateway, 7, gateway.upload())
    with ThreadPoolExecutor(10) as threads:
        answers = list(threads.map(lambda _: cancel(gateway, 7, json={"reason": "a mistake"}), range(10)))
    told = {"fold_id": 7, "attempt": 1, "state": "ERROR", "cause": "cancelled", "cancelled_by": USER[0]}
    assert [(answer.status_code, answer.json()) for answer in answers] == [(200, told | {"reason": "a mistake"})] * 10
    [fence] = logged(installation, log, FoldFenced)
    assert (fence.fold_id, fence.attempt, fence.cause) == (7, 1, "cancelled")
    assert len(logged(installation, log, FoldCancelled)) == 1
    shown = gateway.get("submissionfold/7/").json()
    assert (shown["state"], shown["log_messages"]) == ("ERROR", f"\nCancelled by {USER[0]}: a mistake - ERROR(train)\n")
    assert query(installation.postgres_url, "select stage, cause, fault from rm.fold") == [
        ("train", "cancelled", "user")
    ]


def test_a_cancelled_fold_may_be_forced(gateway: Gateway, installation: Installation, log: KafkaLog) -> None:
    """The next attempt waits as any other, is not fenced, and can be cancelled in its turn."""
    request_fold(gateway, 7, gateway.upload())
    assert cancel(gateway, 7).status_code == 200
    request_fold(gateway, 7, force="submission_fold")
    assert gateway.get("submissionfold/7/").json()["state"] == "TODO"
    assert [(fence.attempt, fence.cause) for fence in logged(installation, log, FoldFenced)] == [(1, "cancelled")]
    assert (cancel(gateway, 7).json()["attempt"], len(logged(installation, log, FoldCancelled))) == (2, 2)


def test_forcing_fences_the_attempt_before_unless_it_has_ended(
    gateway: Gateway, installation: Installation, log: KafkaLog
) -> None:
    """A fold that runs or waits is superseded; one that has ended needs no fence."""
    request_fold(gateway, 7, gateway.upload())
    request_fold(gateway, 7, force="submission_fold")
    assert [(fence.attempt, fence.cause) for fence in logged(installation, log, FoldFenced)] == [(1, "superseded")]
    installation.append(log, [run_event(FoldTested, 7, attempt=2)])
    wait_until(lambda: gateway.get("submissionfold/7/").json()["state"] == "TESTED")
    request_fold(gateway, 7, force="submission_fold")
    assert [fence.attempt for fence in logged(installation, log, FoldFenced)] == [1]


def test_what_has_ended_or_never_was_cannot_be_cancelled(
    gateway: Gateway, installation: Installation, log: KafkaLog
) -> None:
    """409 with its state, 404; and nothing is recorded."""
    request_fold(gateway, 7, gateway.upload())
    installation.append(log, [run_event(FoldTested, 7)])
    wait_until(lambda: gateway.get("submissionfold/7/").json()["state"] == "TESTED")
    refused = cancel(gateway, 7)
    assert (refused.status_code, refused.json()["state"]) == (409, "TESTED")
    assert cancel(gateway, 8).status_code == 404
    assert cancel(gateway, 2**31).status_code == 404
    assert query(installation.postgres_url, "select * from intake.cancellation") == []
    assert logged(installation, log, FoldFenced, FoldCancelled) == []


def test_a_result_that_came_first_stays(gateway: Gateway, installation: Installation, log: KafkaLog) -> None:
    """A fold that ended before the read model knew is answered 409, though a fence was sent; a repeat is too."""
    request_fold(gateway, 7, gateway.upload())
    installation.append(log, [run_event(FoldTested, 7)])
    query(installation.postgres_url, "insert into intake.cancellation values (7, 1, 'ada', '')")
    wait_until(lambda: gateway.get("submissionfold/7/").json()["state"] == "TESTED")
    assert cancel(gateway, 7).status_code == 409


@pytest.mark.parametrize(
    "body", [b"[]", b'{"reason": 1}', b'{"reason": "\\u0000"}', b'{"reason": "' + b"x" * 201 + b'"}', b"{"]
)
def test_what_is_no_reason_is_refused(gateway: Gateway, body: bytes) -> None:
    """With what is wrong with it, and nothing is cancelled."""
    request_fold(gateway, 7, gateway.upload())
    answer = cancel(gateway, 7, data=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == 400, answer.text
    assert gateway.get("submissionfold/7/").json()["state"] == "TODO"


def test_a_fold_that_waits_for_its_split_is_cancelled_and_its_request_fenced(
    gateway: Gateway, installation: Installation, log: KafkaLog
) -> None:
    """Its request follows in the log when the data is split, after the fence: a replay knows it, no runner starts it."""
    raw_data_id = gateway.upload()
    assert gateway.post("rawdata/split/", {"raw_data_id": raw_data_id, "held_out_test": 0.5}).ok
    request_fold(gateway, 7, raw_data_id)
    assert logged(installation, log, FoldRequested) == []
    assert cancel(gateway, 7).status_code == 200
    request_fold(gateway, 7, force="submission_fold")
    split = Split(kind="standard", task_id="t", train=blob(1), test=blob(2), train_rows=9, test_rows=9)
    installation.append(
        log, [DataSplit(raw_data_id=raw_data_id, attempt=1, task_id="t", split=split, runner_id="runner")]
    )
    wait_until(lambda: len(logged(installation, log, FoldRequested)) == 2)
    assert [event.attempt for event in logged(installation, log, FoldRequested)] == [1, 2]
    assert [fence.attempt for fence in logged(installation, log, FoldFenced)] == [1]
    assert gateway.get("submissionfold/7/").json()["state"] == "TODO"


def test_forcing_a_fold_that_waits_for_a_split_fences_its_first_attempt(
    gateway: Gateway, installation: Installation, log: KafkaLog
) -> None:
    """The fence does not wait for the split."""
    raw_data_id = gateway.upload()
    assert gateway.post("rawdata/split/", {"raw_data_id": raw_data_id, "held_out_test": 0.5}).ok
    request_fold(gateway, 7, raw_data_id)
    request_fold(gateway, 7, force="submission_fold")
    wait_until(lambda: [fence.attempt for fence in logged(installation, log, FoldFenced)] == [1])


def test_late_events_of_a_superseded_attempt_change_nothing(
    gateway: Gateway, installation: Installation, log: KafkaLog
) -> None:
    """What an old attempt still says after the new one was asked for is history; so is what follows a cancellation."""
    request_fold(gateway, 7, gateway.upload())
    request_fold(gateway, 7, force="submission_fold")
    installation.append(log, [run_event(FoldTested, 7, attempt=1)])
    wait_until(lambda: query(installation.postgres_url, "select run_rank from rm.fold") == [(9,)])
    assert gateway.get("submissionfold/7/").json()["state"] == "TODO"
    assert cancel(gateway, 7).status_code == 200
    installation.append(log, [run_event(FoldStarted, 7, attempt=2), run_event(FoldTested, 7, attempt=2)])
    wait_until(lambda: installation.caught_up(log))
    shown = gateway.get("submissionfold/7/").json()
    assert (shown["state"], shown["test_predictions"]) == ("ERROR", None)


def test_roles_open_their_own_paths(gateway: Gateway, installation: Installation) -> None:
    """Organisers cancel, participants and runners do not; runners ask what is open, organisers do not."""
    made = {role: tokens.make() for role in ("organiser", "participant", "runner")}
    for role, token in made.items():
        tokens.add(installation.postgres_url, token, role, role=role)

    def status(role: str, method: str, path: str) -> int:
        headers = {"Authorization": f"Bearer {made[role]}"}
        return requests.request(method, f"{gateway.url}{path}", headers=headers, timeout=30).status_code

    cancelling = {role: status(role, "POST", "/v1/folds/7/cancel") for role in made}
    assert cancelling == {"organiser": 404, "participant": 403, "runner": 403}
    asking = {role: status(role, "GET", "/v1/queues/H/open") for role in made}
    assert asking == {"organiser": 403, "participant": 403, "runner": 200}
    assert requests.post(f"{gateway.url}/v1/folds/7/cancel", timeout=30).status_code == 401


def test_the_command_cancels_by_way_of_the_gateway(
    gateway: Gateway, installation: Installation, tmp_path: Path
) -> None:
    """It says what happened, and what did not."""
    request_fold(gateway, 7, gateway.upload())
    folder = tmp_path / "stack"
    folder.mkdir()
    connection = {"gateway_url": gateway.url, "kafka": "", "postgres_url": "", "blobs": ""}
    (folder / "connection.json").write_text(json.dumps(connection | {"user": USER[0], "password": USER[1]}))

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "datarun.cli", "fold", "cancel", *arguments, "--dir", str(folder)]
        return subprocess.run(command, capture_output=True, text=True, env=os.environ, check=False)

    done = run("7", "--reason", "no need")
    assert (done.returncode, done.stdout) == (0, f"fold 7, attempt 1: cancelled by {USER[0]}\n")
    unknown = run("8")
    assert (unknown.returncode, unknown.stderr) == (1, "datarun: there is no fold 8\n")


def test_fences_are_kept_by_compaction(installation: Installation) -> None:
    """A runner that starts later must still learn of them."""
    assert FOLD_CONTROL.config["cleanup.policy"] == "compact"
