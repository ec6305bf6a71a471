"""What /v1 accepts: datasets in parts, splits, folds, retries, another priority; each once, whatever is repeated."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import requests

from datarun.envelope import decode
from datarun.events import DataSplit, DataUploaded, Event, FoldFailed, FoldFenced, FoldRequested, FoldStarted, Split
from datarun.topics import TOPICS
from tests.gateways import CSV, query, wait_until
from tests.histories import run_event
from tests.sites import Site, running_site

BOUNDARY = "multipart/form-data; boundary=x"
SOURCE = {"classifier.py": "class Classifier: ...\n"}


@pytest.fixture(scope="module")
def site(kafka: str, module_postgres_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Run a gateway beside a projector."""
    with running_site(kafka, module_postgres_url, tmp_path_factory.mktemp("v1"), "v1writes.") as running:
        yield running


def logged(site: Site, key: int, *kinds: type[Event]) -> list[Any]:
    """Return the events of a key of some kinds."""
    ends = site.log.end_offsets([site.installation.catalogue.full_name(topic) for topic in TOPICS])
    records = [record for batch in site.log.read(dict.fromkeys(ends, 0), until_end=True) for record in batch]
    events = [decode(record.value, record.headers) for record in records if record.key == b"%d" % key]
    return [event for event in events if isinstance(event, kinds)]


def upload(site: Site, name: str, *, known: dict[str, str] | None = None, **options: Any) -> requests.Response:
    """Upload a dataset in parts; files that are known are not sent."""
    fields = {"name": name, "target_column": "species", "workflow_elements": "classifier"}
    fields |= {"known": json.dumps(known)} if known else {}
    files = {} if known else {"files": ("data.csv", CSV)}
    parts = {**{field: (None, value) for field, value in fields.items()}, **files}
    return site.ask("POST", "datasets", files=parts, **options)


def fold_body(site: Site, **fields: Any) -> dict[str, Any]:
    """Return the body of a new submission's first fold."""
    number = next(site.numbers)
    body = {"id": number, "submission_id": number, "files": SOURCE, "train_is": [0, 2, 1], "test_is": [3]}
    return {**body, "dataset_id": fields.pop("dataset_id", None) or site.dataset()} | fields


def test_a_dataset_comes_in_parts_and_what_is_known_is_not_sent(site: Site) -> None:
    """Its files are stored and named by their sha256; the next dataset with the same file has it by name alone."""
    sha256 = hashlib.sha256(CSV.encode()).hexdigest()
    missing = upload(site, "parts0", known={"data.csv": "0" * 64})
    assert (missing.status_code, missing.json()["missing"]) == (409, ["data.csv"])
    first = upload(site, "parts1")
    assert first.status_code == 201, first.text
    told = first.json()
    assert (told["sha256"], told["rows"]) == ({"data.csv": sha256}, 150)
    assert first.headers["Location"] == f"/v1/datasets/{told['id']}"
    second = upload(site, "parts2", known={"data.csv": sha256})
    assert (second.status_code, second.json()["sha256"]) == (201, told["sha256"])
    [event] = logged(site, told["id"], DataUploaded)
    assert (event.files[0].blob.sha256, event.files[0].blob.media_type) == (sha256, "text/csv")
    assert upload(site, "parts1").json()["errors"][0]["detail"] == "There is a dataset with this name already."


@pytest.mark.parametrize(
    ("parts", "status", "pointer"),
    [
        ({}, 415, None),
        ({"name": (None, "x")}, 400, "/workflow_elements"),
        ({"files": ("../x.csv", CSV)}, 400, "/files/..~1x.csv"),
        ({"files": ("x.csv", "a,b\n1\n")}, 400, "/files/x.csv"),
        ({"files": ("x.csv", CSV), "target_column": (None, "nothing")}, 400, "/target_column"),
        ({"files": ("x.csv", CSV), "name": (None, "a\0b")}, 400, "/name"),
        ({"files": ("x.csv", CSV), "name": (None, b"\xff")}, 400, "/name"),
        ({"files": ("x.csv", CSV), "name": (None, "../x")}, 400, "/name"),
        ({"files": ("x.csv", CSV), "other": (None, "x")}, 400, "/other"),
        ({"files": ("x.csv", CSV), "known": (None, "[")}, 400, "/known"),
        ({"files": ("x.csv", CSV), "known": (None, '{"y.csv": "../../etc"}')}, 400, "/known/y.csv"),
        ({"files": ("x.csv", CSV), "workflow_elements": (None, "x" * 70_000)}, 413, None),
    ],
)
def test_bad_parts_are_refused(site: Site, parts: dict[str, Any], status: int, pointer: str | None) -> None:
    """With what is wrong and where, and no dataset is claimed."""
    fields = {"name": "bad", "target_column": "species", "workflow_elements": "classifier"}
    full = {name: (None, value) for name, value in fields.items()} | parts if "files" in parts else parts
    answer = site.ask("POST", "datasets", **({"files": full} if full else {"json": {}}))
    assert answer.status_code == status, answer.text
    if pointer is not None:
        assert pointer in [one["pointer"] for one in answer.json()["errors"]]
    assert query(site.installation.postgres_url, "select * from intake.dataset where name = 'bad'") == []


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"", BOUNDARY),
        (b"--x\r\n", BOUNDARY),
        (b"--x\r\nContent-Disposition: form-data; name=a\r\n\r\nvalue", BOUNDARY),
        (b"nothing", "multipart/form-data"),
        (b"--x\r\n\xff\xfe: \x00\r\n\r\n\r\n--x--\r\n", BOUNDARY),
        (b"--x\r\nContent-Type: multipart/mixed; boundary=y\r\n\r\n--y--\r\n--x--", BOUNDARY),
        (
            b'--x\r\nContent-Disposition: form-data; name="a"; filename*=x\r\n\r\n--x--',
            BOUNDARY,
        ),
        (b"--x\r\n" + b"A: " + b"a" * 100_000 + b"\r\n\r\n--x--", BOUNDARY),
    ],
)
def test_a_body_that_is_no_multipart_body_is_refused(site: Site, content: bytes, kind: str) -> None:
    """400, however it is broken."""
    answer = site.ask("POST", "datasets", data=content, headers={"Content-Type": kind})
    assert answer.status_code == 400, answer.text


def test_a_split_is_accepted_once(site: Site) -> None:
    """Asked for again it is the same task; another one is another task."""
    number = site.dataset()
    first = site.ask("POST", f"datasets/{number}/split", json={"held_out_test": 0.5})
    assert first.status_code == 202, first.text
    again = site.ask("POST", f"datasets/{number}/split", json={"held_out_test": 0.5})
    assert again.json() == first.json()
    assert site.ask("POST", f"datasets/{number}/split", json={"held_out_test": 1}).status_code == 400
    assert site.ask("POST", f"datasets/{number}/split", json={}).status_code == 400
    assert site.ask("POST", "datasets/999999/split", json={"held_out_test": 0.5}).status_code == 404


def test_a_fold_is_accepted_with_plain_text_and_numbers(site: Site) -> None:
    """Its request is the same event as one of the 2016 interface."""
    body = fold_body(site, priority="H")
    answer = site.ask("POST", "folds", json=body)
    assert answer.status_code == 201, answer.text
    [event] = logged(site, body["id"], FoldRequested)
    assert (event.task_id, event.priority, event.train_is.size) == (answer.json()["task_id"], "H", 24)
    assert site.blobs.get(event.files[0].blob).decode() == SOURCE["classifier.py"]
    following = {"id": next(site.numbers), "submission_id": body["id"], "train_is": [1]}
    assert site.ask("POST", "folds", json=following).status_code == 201
    taken = site.ask("POST", "folds", json=body).json()
    assert [(one["pointer"], one["detail"]) for one in taken["errors"]] == [
        ("/fold_id", "There is a fold with this number already.")
    ]


@pytest.mark.parametrize(
    "wrong",
    [
        {"id": 0},
        {"id": "7"},
        {"id": True},
        {"train_is": []},
        {"train_is": [1, 1]},
        {"train_is": [-1]},
        {"train_is": [1.0]},
        {"train_is": [2**31]},
        {"priority": "low"},
        {"force": "all"},
        {"files": {}},
        {"files": {"classifier.py": {"base64": "???"}}},
        {"files": {"classifier.py": {"base64": "A"}}},
        {"files": {"../classifier.py": ""}},
        {"files": {"other.py": ""}},
        {"dataset_id": 999_999},
        {"unknown": 1},
    ],
)
def test_bad_folds_are_refused(site: Site, wrong: dict[str, Any]) -> None:
    """400, and no fold is claimed."""
    body = fold_body(site) | wrong
    answer = site.ask("POST", "folds", json=body)
    assert answer.status_code == 400, answer.text
    assert (
        query(
            site.installation.postgres_url, "select * from intake.fold where submission_id = %s", body["submission_id"]
        )
        == []
    )


def test_a_key_gives_the_first_answer_again(site: Site) -> None:
    """Ten at once are one acceptance and one answer; with another body the key is refused, for another account new."""
    body, key = fold_body(site), {"Idempotency-Key": "a-key-of-mine"}
    with ThreadPoolExecutor(10) as threads:
        answers = list(threads.map(lambda _: site.ask("POST", "folds", json=body, headers=key), range(10)))
    assert {answer.status_code for answer in answers} == {201}
    assert len({answer.text for answer in answers}) == 1
    assert sum("Idempotency-Replayed" in answer.headers for answer in answers) == 9
    assert len(logged(site, body["id"], FoldRequested)) == 1
    other = site.ask("POST", "folds", json=body | {"priority": "H"}, headers=key)
    assert (other.status_code, other.json()["type"]) == (422, "/v1/problems/key-reused")
    assert site.ask("POST", "folds", json=body, headers=key, role="organiser").status_code == 400
    assert site.ask("POST", "folds", json=body, headers={"Idempotency-Key": "no key"}).status_code == 400
    for attempt in (2, 2):
        forced = site.ask(
            "POST", "folds", json=body | {"force": "submission_fold"}, headers={"Idempotency-Key": "again"}
        )
        assert (forced.status_code, forced.json()["attempt"]) == (201, attempt)
    named = [upload(site, "keyed", headers={"Idempotency-Key": "upload"}) for _ in range(2)]
    assert [answer.status_code for answer in named] == [201, 201]
    assert named[0].json() == named[1].json()


def test_a_fold_that_has_ended_is_retried(site: Site) -> None:
    """As it was asked for, for who asked for it; one that waits or was replaced is not."""
    body = fold_body(site, priority="H")
    assert site.ask("POST", "folds", json=body).status_code == 201
    assert site.ask("POST", f"folds/{body['id']}/retry").status_code == 409
    site.append(run_event(FoldFailed, body["id"]))
    answer = site.ask("POST", f"folds/{body['id']}/retry", role="organiser")
    assert (answer.status_code, answer.json()["attempt"]) == (202, 2)
    first, second = logged(site, body["id"], FoldRequested)
    same = {"attempt", "task_id"}
    assert first.model_dump(exclude=same) == second.model_dump(exclude=same)
    assert logged(site, body["id"], FoldFenced) == []
    site.append(run_event(FoldFailed, body["id"], attempt=2))
    newer = {"id": next(site.numbers), "submission_id": body["id"], "train_is": [0], "force": "submission"}
    assert site.ask("POST", "folds", json=newer).status_code == 201
    assert site.ask("POST", f"folds/{body['id']}/retry").status_code == 409
    assert site.ask("POST", "folds/999999/retry").status_code == 404


def test_failed_folds_are_retried_together(site: Site) -> None:
    """Those of a submission or a cause, or these; what has not failed is left alone, and said so."""
    body = fold_body(site)
    assert site.ask("POST", "folds", json=body).status_code == 201
    others = [site.fold(submission=body["id"]) for _ in range(2)]
    site.append(run_event(FoldFailed, body["id"]), run_event(FoldFailed, others[0]))
    answer = site.ask("POST", "retry", json={"submission_id": body["id"], "cause": "user_error"})
    assert answer.status_code == 200, answer.text
    assert answer.json()["retried"] == [{"id": number, "attempt": 2} for number in (body["id"], others[0])]
    named = site.ask("POST", "retry", json={"fold_ids": [others[1], 999_999]}).json()
    assert (named["retried"], [one["id"] for one in named["left_alone"]]) == ([], [others[1], 999_999])
    assert site.ask("POST", "retry", json={}).status_code == 400
    wait_until(lambda: len(logged(site, others[0], FoldRequested)) == 2)


def test_a_waiting_fold_changes_its_queue(site: Site) -> None:
    """As a new attempt in the other queue; the one before is fenced, so no attempt is ever in both."""
    body = fold_body(site)
    assert site.ask("POST", "folds", json=body).status_code == 201
    path = f"folds/{body['id']}"
    assert site.ask("PATCH", path, json={"priority": "L"}).json()["attempt"] == 1
    changed = site.ask("PATCH", path, json={"priority": "H"})
    assert (changed.status_code, changed.json()["attempt"], changed.json()["priority"]) == (202, 2, "H")
    assert [(event.attempt, event.priority) for event in logged(site, body["id"], FoldRequested)] == [
        (2, "H"),
        (1, "L"),
    ]
    assert [(fence.attempt, fence.cause) for fence in logged(site, body["id"], FoldFenced)] == [(1, "superseded")]
    site.append(run_event(FoldStarted, body["id"], attempt=1))
    assert site.get(path)["state"] == "TODO"
    site.append(run_event(FoldStarted, body["id"], attempt=2))
    refused = site.ask("PATCH", path, json={"priority": "L"})
    assert (refused.status_code, refused.json()["state"]) == (409, "STARTED")


def test_a_fold_that_waits_for_its_split_changes_its_queue_too(site: Site) -> None:
    """Both requests follow when the data is split, the first one fenced."""
    number = site.dataset()
    assert site.ask("POST", f"datasets/{number}/split", json={"held_out_test": 0.5}).status_code == 202
    body = fold_body(site, dataset_id=number)
    assert site.ask("POST", "folds", json=body).status_code == 201
    assert site.ask("PATCH", f"folds/{body['id']}", json={"priority": "H"}).json()["attempt"] == 2
    blob = site.blobs.put(b"part")
    split = Split(kind="standard", task_id="t", train=blob, test=blob, train_rows=75, test_rows=75)
    site.append(DataSplit(raw_data_id=number, attempt=1, task_id="t", split=split, runner_id="runner"))
    wait_until(lambda: len(logged(site, body["id"], FoldRequested)) == 2)
    wait_until(lambda: [fence.attempt for fence in logged(site, body["id"], FoldFenced)] == [1])


def test_participants_touch_their_own_work_alone(site: Site) -> None:
    """They send folds of their own; another's fold or submission, retries and priorities are not theirs."""
    number = site.dataset()
    body = fold_body(site, dataset_id=number)
    assert site.ask("POST", "folds", json=body, role="participant").status_code == 201
    again = body | {"force": "submission_fold"}
    assert site.ask("POST", "folds", json=again, role="participant").status_code == 201
    others = fold_body(site, dataset_id=number)
    assert site.ask("POST", "folds", json=others).status_code == 201
    forced = site.ask("POST", "folds", json=others | {"force": "submission_fold"}, role="participant")
    assert forced.status_code == 403
    joined = {"id": next(site.numbers), "submission_id": others["id"], "train_is": [0]}
    assert site.ask("POST", "folds", json=joined, role="participant").status_code == 403
    for method, path in (("POST", f"folds/{body['id']}/retry"), ("PATCH", f"folds/{body['id']}"), ("POST", "retry")):
        assert site.ask(method, path, json={"priority": "H"}, role="participant").status_code == 403
    assert upload(site, "theirs", role="participant").status_code == 403
