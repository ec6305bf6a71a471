"""Cancelling and forcing folds at a gateway with a real projector behind it: the answers, and what the log gets."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import requests

from datarun import tokens
from datarun.envelope import decode
from datarun.events import (
    DataSplit,
    Event,
    FoldCancelled,
    FoldFenced,
    FoldLost,
    FoldRequested,
    FoldStarted,
    FoldTested,
    Split,
)
from datarun.log.admin import create_topics
from datarun.log.kafka import KafkaLog
from datarun.topics import TOPICS, Catalogue
from tests.gateways import USER, Gateway, fold_body, query, running_gateway, wait_until
from tests.histories import blob, run_event
from tests.projecting import Installation

REASONS = (b"[]", b'{"reason": 1}', b'{"reason": "\\u0000"}', b'{"reason": "' + b"x" * 201 + b'"}', b"{")
numbers = count(7)


@pytest.fixture(scope="module")
def installation(kafka: str, module_postgres_url: str, tmp_path_factory: pytest.TempPathFactory) -> Installation:
    """Make the topics of a fresh installation."""
    create_topics(kafka, prefix="cancel.")
    return Installation(kafka, module_postgres_url, Catalogue("cancel."), tmp_path_factory.mktemp("cancel"))


@pytest.fixture(scope="module")
def log(kafka: str) -> Iterator[KafkaLog]:
    """Open the session's log."""
    opened = KafkaLog(kafka)
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def gateway(installation: Installation) -> Iterator[Gateway]:
    """Run a gateway beside a projector."""
    blobs = installation.folder / "blobs"
    blobs.mkdir()
    with (
        installation.projector() as projector,
        running_gateway(
            installation.folder / "gateway",
            kafka=installation.kafka,
            postgres_url=installation.postgres_url,
            blobs_url=blobs.as_uri(),
            prefix=installation.catalogue.prefix,
        ) as running,
    ):
        projector.wait_ready()
        yield running


@dataclass
class Fold:
    """A fold of a dataset of its own, as a client and the log see it."""

    id: int
    raw_data_id: int
    gateway: Gateway
    installation: Installation
    log: KafkaLog

    def request(self, **fields: Any) -> None:
        """Have it accepted."""
        first = {} if fields else {"raw_data_id": self.raw_data_id}
        answer = self.gateway.post("submissionfold/", fold_body(self.id, self.id, **first, **fields))
        assert answer.status_code == 201, answer.text

    def cancel(self, **options: Any) -> requests.Response:
        """Cancel it as the test's account."""
        return cancel(self.gateway, self.id, **options)

    def split(self) -> None:
        """Have its dataset split by a runner that does not exist."""
        body = {"raw_data_id": self.raw_data_id, "held_out_test": 0.5}
        assert self.gateway.post("rawdata/split/", body).ok

    def show(self) -> dict[str, Any]:
        """Return it as clients see it."""
        shown: dict[str, Any] = self.gateway.get(f"submissionfold/{self.id}/").json()
        return shown

    def append(self, *events: Event) -> None:
        """Append events."""
        self.installation.append(self.log, events)

    def logged(self, *kinds: type[Event]) -> list[Any]:
        """Return its events of some kinds, each topic's in order."""
        ends = self.log.end_offsets([self.installation.catalogue.full_name(topic) for topic in TOPICS])
        records = [record for batch in self.log.read(dict.fromkeys(ends, 0), until_end=True) for record in batch]
        events = [decode(record.value, record.headers) for record in records if record.key == b"%d" % self.id]
        return [event for event in events if isinstance(event, kinds)]

    def row(self, columns: str) -> tuple[Any, ...]:
        """Return some columns of the read model."""
        statement = f"select {columns} from rm.fold where fold_id = %s"  # noqa: S608 - a test's own names
        rows = query(self.installation.postgres_url, statement, self.id)
        return tuple(rows[0]) if rows else ()


@pytest.fixture
def fold(gateway: Gateway, installation: Installation, log: KafkaLog) -> Fold:
    """Return a fold that is not requested yet."""
    number = next(numbers)
    return Fold(number, gateway.upload(f"data{number}"), gateway, installation, log)


def cancel(gateway: Gateway, fold_id: int, **options: Any) -> requests.Response:
    """Cancel a fold as the test's account."""
    return requests.post(f"{gateway.url}/v1/folds/{fold_id}/cancel", auth=USER, timeout=30, **options)


def test_a_waiting_fold_is_cancelled_once(fold: Fold) -> None:
    """Ten at once have the same answer, the log has one fence and one end, and clients read who did it and why."""
    fold.request()
    with ThreadPoolExecutor(10) as threads:
        answers = list(threads.map(lambda _: fold.cancel(json={"reason": "a mistake"}), range(10)))
    told = {"fold_id": fold.id, "attempt": 1, "state": "ERROR", "cause": "cancelled", "cancelled_by": USER[0]}
    assert [(answer.status_code, answer.json()) for answer in answers] == [(200, told | {"reason": "a mistake"})] * 10
    [fence] = fold.logged(FoldFenced)
    assert (fence.attempt, fence.cause) == (1, "cancelled")
    assert len(fold.logged(FoldCancelled)) == 1
    shown = fold.show()
    assert (shown["state"], shown["log_messages"]) == ("ERROR", f"\nCancelled by {USER[0]}: a mistake - ERROR(train)\n")
    assert fold.row("stage, cause, fault") == ("train", "cancelled", "user")


def test_a_cancelled_fold_may_be_forced(fold: Fold) -> None:
    """The next attempt waits as any other, is not fenced, and can be cancelled in its turn."""
    fold.request()
    assert fold.cancel().status_code == 200
    fold.request(force="submission_fold")
    assert fold.show()["state"] == "TODO"
    assert [(fence.attempt, fence.cause) for fence in fold.logged(FoldFenced)] == [(1, "cancelled")]
    assert (fold.cancel().json()["attempt"], len(fold.logged(FoldCancelled))) == (2, 2)


def test_forcing_fences_the_attempt_before_unless_it_has_ended(fold: Fold) -> None:
    """A fold that runs or waits is superseded; one that has ended needs no fence."""
    fold.request()
    fold.request(force="submission_fold")
    assert [(fence.attempt, fence.cause) for fence in fold.logged(FoldFenced)] == [(1, "superseded")]
    fold.append(run_event(FoldTested, fold.id, attempt=2))
    wait_until(lambda: fold.show()["state"] == "TESTED")
    fold.request(force="submission_fold")
    assert [fence.attempt for fence in fold.logged(FoldFenced)] == [1]


def test_what_has_ended_or_never_was_cannot_be_cancelled(fold: Fold) -> None:
    """409 with its state, 404; and nothing is recorded."""
    fold.request()
    fold.append(run_event(FoldTested, fold.id))
    wait_until(lambda: fold.show()["state"] == "TESTED")
    refused = fold.cancel()
    assert (refused.status_code, refused.json()["state"]) == (409, "TESTED")
    assert cancel(fold.gateway, 999_999).status_code == 404
    assert cancel(fold.gateway, 2**31).status_code == 404
    assert fold.logged(FoldFenced, FoldCancelled) == []


def test_a_result_that_came_first_stays(fold: Fold) -> None:
    """A fold that ended before the read model knew is answered 409, though it was recorded as cancelled."""
    fold.request()
    query(fold.installation.postgres_url, "insert into intake.cancellation values (%s, 1, 'ada', '')", fold.id)
    fold.append(run_event(FoldTested, fold.id))
    wait_until(lambda: fold.show()["state"] == "TESTED")
    assert fold.cancel().status_code == 409


def test_what_is_no_reason_is_refused(fold: Fold) -> None:
    """With what is wrong with it, and nothing is cancelled."""
    fold.request()
    for body in REASONS:
        answer = fold.cancel(data=body, headers={"Content-Type": "application/json"})
        assert answer.status_code == 400, answer.text
    assert fold.show()["state"] == "TODO"


def test_a_fold_that_waits_for_its_split_is_cancelled_and_its_request_fenced(fold: Fold) -> None:
    """Its request follows when the data is split, after the fence: a replay knows it, and no runner starts it."""
    fold.split()
    fold.request()
    assert fold.logged(FoldRequested) == []
    assert fold.cancel().status_code == 200
    fold.request(force="submission_fold")
    split = Split(kind="standard", task_id="t", train=blob(1), test=blob(2), train_rows=9, test_rows=9)
    fold.append(DataSplit(raw_data_id=fold.raw_data_id, attempt=1, task_id="t", split=split, runner_id="runner"))
    wait_until(lambda: len(fold.logged(FoldRequested)) == 2)
    assert [event.attempt for event in fold.logged(FoldRequested)] == [1, 2]
    assert [fence.attempt for fence in fold.logged(FoldFenced)] == [1]
    assert fold.show()["state"] == "TODO"


def test_forcing_a_fold_that_waits_for_a_split_fences_its_first_attempt(fold: Fold) -> None:
    """The fence does not wait for the split."""
    fold.split()
    fold.request()
    fold.request(force="submission_fold")
    wait_until(lambda: [fence.attempt for fence in fold.logged(FoldFenced)] == [1])


def test_late_events_of_a_superseded_attempt_change_nothing(fold: Fold) -> None:
    """What an old attempt still says after the new one was asked for is history; so is what follows a cancellation."""
    fold.request()
    fold.request(force="submission_fold")
    fold.append(run_event(FoldTested, fold.id, attempt=1))
    wait_until(lambda: fold.row("run_rank") == (9,))
    assert fold.show()["state"] == "TODO"
    assert fold.cancel().status_code == 200
    fold.append(run_event(FoldStarted, fold.id, attempt=2), run_event(FoldTested, fold.id, attempt=2))
    wait_until(lambda: fold.installation.caught_up(fold.log))
    shown = fold.show()
    assert (shown["state"], shown["test_predictions"]) == ("ERROR", None)


def open_requests(gateway: Gateway, queue: str, **parameters: Any) -> requests.Response:
    """Ask which requests of a queue are open."""
    return requests.get(f"{gateway.url}/v1/queues/{queue}/open", params=parameters, auth=USER, timeout=30)


def test_open_is_what_nobody_has_begun(fold: Fold) -> None:
    """A request is open, where it was last appended, until its delivery is started; nothing of an ended attempt is."""
    fold.request(priority="H", raw_data=fold.raw_data_id, files=fold_body(1, 1, 1)["files"])
    [first] = fold.row("request_offset")

    def found() -> list[int]:
        answer = open_requests(fold.gateway, "H", **{"from": first})
        assert answer.status_code == 200, answer.text
        assert (answer.json()["from"], answer.json()["until"]) == (first, answer.json()["end"])
        return [offset - first for offset in answer.json()["open"]]

    assert found() == [0]
    [request] = fold.logged(FoldRequested)
    fold.append(request)
    assert found() == [1]
    fold.append(run_event(FoldStarted, fold.id))
    assert found() == []
    fold.append(request.model_copy(update={"delivery": 2}))
    assert found() == [2]
    fold.append(run_event(FoldLost, fold.id))
    assert found() == [2]
    fold.append(run_event(FoldStarted, fold.id, delivery=2), request.model_copy(update={"delivery": 3}))
    assert found() == [3]
    fold.request(force="submission_fold", priority="H")
    assert found() == [4]
    assert fold.cancel().status_code == 200
    assert found() == []


def test_a_page_of_open_requests_is_bounded(fold: Fold) -> None:
    """At most a thousand offsets, none behind the end of the log, and only numbers."""
    fold.request()
    whole = open_requests(fold.gateway, "L").json()
    assert (whole["from"], whole["until"]) == (0, whole["end"])
    one = open_requests(fold.gateway, "L", **{"from": whole["end"] - 1, "limit": 1}).json()
    assert one["open"] == [whole["end"] - 1]
    behind = open_requests(fold.gateway, "L", **{"from": whole["end"] + 5}).json()
    assert (behind["until"], behind["open"]) == (whole["end"] + 5, [])
    for wrong in ({"from": "-1"}, {"from": "x"}, {"from": "9" * 30}, {"limit": "0"}, {"limit": "1001"}):
        assert open_requests(fold.gateway, "L", **wrong).status_code == 400
    assert open_requests(fold.gateway, "data").status_code == 404


def test_roles_open_their_own_paths(gateway: Gateway, installation: Installation) -> None:
    """Organisers cancel, participants and runners do not; runners ask what is open, organisers do not."""
    made = {role: tokens.make() for role in ("organiser", "participant", "runner")}
    for role, token in made.items():
        tokens.add(installation.postgres_url, token, role, role=role)

    def status(role: str, method: str, path: str) -> int:
        headers = {"Authorization": f"Bearer {made[role]}"}
        return requests.request(method, f"{gateway.url}{path}", headers=headers, timeout=30).status_code

    cancelling = {role: status(role, "POST", "/v1/folds/999999/cancel") for role in made}
    assert cancelling == {"organiser": 404, "participant": 403, "runner": 403}
    asking = {role: status(role, "GET", "/v1/queues/H/open") for role in made}
    assert asking == {"organiser": 403, "participant": 403, "runner": 200}
    assert requests.post(f"{gateway.url}/v1/folds/7/cancel", timeout=30).status_code == 401


def test_the_command_cancels_by_way_of_the_gateway(fold: Fold, tmp_path: Path) -> None:
    """It says what happened, and what did not."""
    fold.request()
    connection = {"gateway_url": fold.gateway.url, "kafka": "", "postgres_url": "", "blobs": ""}
    (tmp_path / "connection.json").write_text(json.dumps(connection | {"user": USER[0], "password": USER[1]}))

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "datarun.cli", "fold", "cancel", *arguments, "--dir", str(tmp_path)]
        return subprocess.run(command, capture_output=True, text=True, env=os.environ, check=False)

    done = run(str(fold.id), "--reason", "no need")
    assert (done.returncode, done.stdout) == (0, f"fold {fold.id}, attempt 1: cancelled by {USER[0]}\n")
    unknown = run("999999")
    assert (unknown.returncode, unknown.stderr) == (1, "datarun: there is no fold 999999\n")
