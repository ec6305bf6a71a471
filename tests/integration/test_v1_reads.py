"""What /v1 tells: lists in pages, folds with their history and why they wait, predictions in four forms, problems."""

from __future__ import annotations

import io
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pandas as pd
import pytest
import requests

from datarun.events import FoldFailed, FoldLost, FoldStarted, RunningFold
from tests.gateways import query, wait_until
from tests.histories import heartbeat, run_event
from tests.sites import Site, running_site

PROBLEM = "application/problem+json"
JSON = {"Content-Type": "application/json"}


@pytest.fixture(scope="module")
def site(kafka: str, module_postgres_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Run a gateway beside a projector."""
    with running_site(kafka, module_postgres_url, tmp_path_factory.mktemp("v1"), "v1reads.") as running:
        yield running


def pages(site: Site, path: str) -> list[list[Any]]:
    """Return the items of every page, following `next`."""
    found, following = [], path
    while following:
        answer = site.ask("GET", following.removeprefix("/v1/"))
        assert answer.status_code == 200, answer.text
        following = answer.json()["next"]
        assert answer.links.get("next", {}).get("url") == following
        found.append(answer.json()["items"])
    return found


def test_datasets_are_listed_in_pages_with_their_split(site: Site) -> None:
    """Each with files, rows and how its split stands; one that is only accepted is there as well."""
    plain, split = site.dataset(), site.dataset(is_split=True)
    listed = [one for page in pages(site, "datasets?limit=1") for one in page]
    assert [one["id"] for one in listed][-2:] == [plain, split]
    assert (listed[-1]["rows"], listed[-1]["target_column"], listed[-1]["uploaded_by"]) == (150, "species", "ada")
    assert len(listed[-1]["files"][0]["sha256"]) == 64
    assert (listed[-2]["split"]["state"], listed[-1]["split"]["state"]) == ("none", "done")
    assert site.get(f"datasets/{split}")["split"] == site.get(f"datasets/{split}/split")
    assert site.get(f"datasets/{split}/split")["train_rows"] == 75
    query(site.installation.postgres_url, "delete from rm.dataset where raw_data_id = %s", plain)
    assert site.get(f"datasets/{plain}")["name"] == listed[-2]["name"]
    assert site.ask("GET", "datasets/999999").status_code == 404


def test_splits_are_listed_with_what_they_made(site: Site) -> None:
    """By dataset, state and task; as it was asked for until it is made; what the parts are, organisers alone see."""
    done, pending, plain = site.dataset(is_split=True), site.dataset(), site.dataset()
    asked = site.ask("POST", f"datasets/{pending}/split", json={"held_out_test": 0.25, "random_state": 7}).json()
    listed = {one["dataset_id"]: one for page in pages(site, "splits?limit=1") for one in page}
    assert plain not in listed
    assert (listed[pending]["state"], listed[pending]["random_state"], listed[pending]["parts"]) == ("pending", 7, None)
    assert (listed[done]["state"], listed[done]["held_out_test"], listed[done]["train_rows"]) == ("done", 0.5, 75)
    parts = {part["name"]: part for part in listed[done]["parts"]}
    assert (parts["test"]["sha256"], parts["train"]["size"]) == (site.blobs.put(b"test").sha256, 5)
    assert site.get(f"splits/{done}") == listed[done]
    assert site.get(f"splits?dataset_id={pending}")["items"] == [listed[pending]]
    assert site.get("splits", params={"task_id": asked["task_id"]})["items"] == [listed[pending]]
    assert pending not in [one["dataset_id"] for page in pages(site, "splits?state=done") for one in page]
    assert listed[done].items() >= site.get(f"datasets/{done}/split").items()
    assert site.ask("GET", f"splits/{plain}").status_code == 404
    seen = site.get(f"splits/{done}", role="participant")
    assert seen == listed[done] | {"parts": None}
    query(site.installation.postgres_url, "delete from rm.dataset where raw_data_id = %s", pending)
    assert site.get(f"splits/{pending}") == listed[pending]


def test_folds_are_found_by_what_they_are(site: Site) -> None:
    """By state, cause, dataset, submission, priority and who asked; projected or only accepted."""
    raw_data_id = site.dataset()
    first = site.fold(raw_data_id)
    others = [site.fold(submission=first, priority="H") for _ in range(3)]
    site.append(run_event(FoldFailed, others[0]), run_event(FoldStarted, others[1]))
    of = f"dataset_id={raw_data_id}"
    assert [[one["id"] for one in page] for page in pages(site, f"folds?{of}&limit=2")][:2] == [
        [first, others[0]],
        others[1:],
    ]

    def found(filters: str) -> list[int]:
        return [one["id"] for page in pages(site, f"folds?{of}&{filters}") for one in page]

    assert found("state=TODO") == [first, others[2]]
    assert found("state=STARTED") == [others[1]]
    assert found("cause=user_error") == found("state=ERROR") == [others[0]]
    assert found("priority=L") == [first]
    assert found(f"submission_id={first}&requested_by=ada") == [first, *others]
    assert found("requested_by=nobody") == []
    query(site.installation.postgres_url, "delete from rm.fold where fold_id = any(%s)", [first, others[1]])
    assert found("state=TODO") == [first, *others[1:]]
    submission = site.get(f"submissions/{first}")
    assert (submission["dataset_id"], submission["version"]) == (raw_data_id, 1)
    assert submission["folds"] == {"ERROR": 1, "TODO": 1}
    assert first in [one["id"] for page in pages(site, "submissions?limit=2") for one in page]
    assert [one["id"] for one in site.get(f"submissions?{of}")["items"]] == [first]
    assert site.get("submissions?dataset_id=999999")["items"] == []


def test_a_fold_tells_how_it_ended_and_a_list_leaves_out_what_is_long(site: Site) -> None:
    """Stage, cause, fault, message and metrics of its newest attempt; of an earlier one nothing."""
    fold = site.fold()
    site.append(run_event(FoldFailed, fold))
    shown = site.get(f"folds/{fold}")
    assert (shown["state"], shown["cause"], shown["fault"], shown["runner_id"]) == (
        "ERROR",
        "user_error",
        "user",
        "runner-0",
    )
    assert shown["message"]
    assert shown["metrics"]["train_time"] == 0.0
    [listed] = site.get(f"folds?submission_id={fold}")["items"]
    assert "message" not in listed
    assert listed.items() <= shown.items()
    assert site.gateway.post(
        "submissionfold/",
        {"databoard_sf_id": fold, "databoard_s_id": fold, "force": "submission_fold"}
        | {"train_is": "eJxjYIAAAAAIAAE=", "test_is": "eJxjYIAAAAAIAAE="},
    ).ok
    again = site.get(f"folds/{fold}")
    assert (again["state"], again["attempt"], again["cause"], again["metrics"]) == ("TODO", 2, None, None)


@pytest.mark.parametrize("shape", [(3, 2), (4,), (2, 2, 2)])
def test_predictions_come_as_npy_csv_parquet_and_json(site: Site, shape: tuple[int, ...]) -> None:
    """The same numbers to the last bit, by the query or by the Accept header; before the end there are none."""
    array = np.random.default_rng(len(shape)).normal(size=shape) * 1e-7
    fold = site.fold()
    path = f"folds/{fold}/predictions/test"
    assert site.ask("GET", path).status_code == 404
    site.tested(fold, array)
    npy = site.ask("GET", path)
    assert (npy.headers["Content-Type"], npy.headers["Datarun-Shape"]) == (
        "application/x-npy",
        ",".join(map(str, shape)),
    )
    assert np.array_equal(np.load(io.BytesIO(npy.content)), array)
    flat = array.reshape(len(array), -1)
    csv = site.ask("GET", path, headers={"Accept": "text/html;q=0.9, text/csv"})
    assert np.array_equal(pd.read_csv(io.BytesIO(csv.content)).to_numpy(), flat)
    parquet = site.ask("GET", path, params={"format": "parquet"})
    assert np.array_equal(pd.read_parquet(io.BytesIO(parquet.content)).to_numpy(), flat)
    told = site.get(f"folds/{fold}/predictions/full-train?format=json")
    assert np.array_equal(np.array(told["predictions"]), array)
    assert (told["shape"], told["part"], told["attempt"]) == (list(shape), "full-train", 1)


def test_predictions_that_the_store_lost_are_no_crash(site: Site) -> None:
    """They cannot be read now: 503, and a shape that does not fit its bytes is a conflict."""
    fold = site.fold()
    site.tested(fold, np.array([[1.0, float("nan")], [float("inf"), 2.0]]))
    path = f"folds/{fold}/predictions/test"
    assert site.get(f"{path}?format=json")["predictions"] == [[1.0, None], [None, 2.0]]
    query(site.installation.postgres_url, "update rm.fold set test_shape = '{5,5}' where fold_id = %s", fold)
    assert site.ask("GET", path).status_code == 409
    lost = f"{'0' * 64}:32"
    statement = "update rm.fold set test_shape = '{2,2}', test_predictions = %s where fold_id = %s"
    query(site.installation.postgres_url, statement, lost, fold)
    assert site.ask("GET", path).status_code == 503


def test_the_history_of_a_fold_is_what_the_log_says(site: Site) -> None:
    """Every event of every delivery in order, and the newest request; another fold's are not among them."""
    fold, other = site.fold(), site.fold()
    site.append(run_event(FoldStarted, fold), run_event(FoldStarted, other), run_event(FoldLost, fold))
    site.append(run_event(FoldStarted, fold, delivery=2), run_event(FoldFailed, fold, delivery=2))
    history = site.get(f"folds/{fold}/history")
    assert history["complete"]
    told = [(one["event"], one["attempt"], one["delivery"]) for one in history["events"]]
    assert told == [
        ("FoldRequested", 1, 1),
        ("FoldStarted", 1, 1),
        ("FoldLost", 1, 1),
        ("FoldStarted", 1, 2),
        ("FoldFailed", 1, 2),
    ]
    assert all(one["data"]["fold_id"] == fold and one["event_id"] for one in history["events"])


def test_a_fold_is_waited_for_until_it_has_ended(site: Site) -> None:
    """With `Prefer: wait`; one that has ended, and who asks for no wait, is answered at once; so is a past."""
    fold = site.fold()
    with ThreadPoolExecutor(1) as others:
        asked = others.submit(site.ask, "GET", f"folds/{fold}", headers={"Prefer": "wait=29"})
        site.append(run_event(FoldStarted, fold))
        assert site.get(f"folds/{fold}")["state"] == "STARTED"
        assert not asked.done()
        site.append(run_event(FoldFailed, fold))
        answer = asked.result(29)
    assert (answer.json()["state"], answer.headers["Preference-Applied"]) == ("ERROR", "wait=29")
    ended = site.ask("GET", f"folds/{fold}", headers={"Prefer": "respond-async, wait=29"})
    assert (ended.status_code, "Preference-Applied" in ended.headers) == (200, False)
    waiting = site.ask("GET", f"folds/{site.fold()}", headers={"Prefer": "wait=1"})
    assert (waiting.json()["state"], waiting.headers["Preference-Applied"]) == ("TODO", "wait=1")


def test_a_fold_says_why_it_is_not_done(site: Site) -> None:
    """It waits for its split, for runners, for others before it; it runs; it has ended."""
    raw_data_id = site.dataset()
    assert site.gateway.post("rawdata/split/", {"raw_data_id": raw_data_id, "held_out_test": 0.5}).ok
    assert site.get(f"folds/{site.fold(raw_data_id)}/why")["reason"] == "split"
    done, fold, later = (site.fold(priority="H") for _ in range(3))
    site.tested(done)
    ahead = site.get(f"folds/{fold}/why")
    assert (ahead["reason"], ahead["slots"]) == ("no-runner", 0)
    site.append(heartbeat("runner-1", 1, running=(RunningFold(fold_id=9_999, attempt=1, delivery=1),)))
    queued = site.get(f"folds/{later}/why")
    assert (queued["reason"], queued["position"] - ahead["position"], queued["slots"]) == ("queue", 1, 1)
    assert queued["seconds_to_start"] > 0
    site.append(run_event(FoldStarted, fold))
    running = site.get(f"folds/{fold}/why")
    assert (running["reason"], running["runner_id"]) == ("running", "runner-0")
    assert site.get(f"folds/{later}/why")["position"] == queued["position"] - 1
    site.append(run_event(FoldLost, fold))
    assert site.get(f"folds/{fold}/why")["reason"] == "between-deliveries"
    site.append(run_event(FoldFailed, fold))
    assert site.get(f"folds/{fold}/why")["reason"] == "ended"


def test_runners_are_listed(site: Site) -> None:
    """Who lives with how many slots."""
    site.append(heartbeat("runner-7", 3))
    query(site.installation.postgres_url, "update rm.runner set seen_at = now() - interval '1 h' where runner_id = 'x'")
    [runner] = [one for one in site.get("runners")["items"] if one["id"] == "runner-7"]
    assert (runner["alive"], runner["slots"], runner["free"], runner["sandbox_level"]) == (True, 1, 1, 3)
    statement = "update rm.runner set seen_at = now() - interval '1 h' where runner_id = 'runner-7'"
    query(site.installation.postgres_url, statement)
    assert [one["alive"] for one in site.get("runners?after=runner-6")["items"]] == [False]


def test_participants_see_their_own_work_alone(site: Site) -> None:
    """Another's fold is not found, not listed, and neither are its submission or predictions."""
    fold = site.fold()
    site.tested(fold)
    own = site.fold()
    site.give_to("participant", own)
    for path in ("", "/why", "/history", "/predictions/test"):
        assert site.ask("GET", f"folds/{fold}{path}", role="participant").status_code == 404
    assert site.ask("GET", f"folds/{own}", role="participant").status_code == 200
    assert [one["id"] for one in site.get("folds", role="participant")["items"]] == [own]
    assert [one["id"] for one in site.get("folds?requested_by=ada", role="participant")["items"]] == [own]
    assert site.get("folds?requested_by=participant", role="participant")["items"] == []
    assert [one["id"] for one in site.get("submissions", role="participant")["items"]] == [own]
    assert site.ask("GET", f"submissions/{fold}", role="participant").status_code == 404
    assert site.ask("GET", "dead-letters", role="participant").status_code == 403
    assert site.ask("GET", "folds", role="runner").status_code == 403


@pytest.mark.parametrize(
    ("method", "path", "options", "status"),
    [
        ("GET", "nothing", {}, 404),
        ("GET", "folds/0", {}, 404),
        ("GET", "folds/2147483648", {}, 404),
        ("GET", "folds/１", {}, 404),  # noqa: RUF001 - a full-width digit
        ("GET", "folds/1/predictions/train", {}, 404),
        ("DELETE", "folds/1", {}, 405),
        ("GET", "folds", {"headers": {"Accept": "image/png"}}, 406),
        ("GET", "folds?limit=0", {}, 400),
        ("GET", "folds?limit=1.0", {}, 400),
        ("GET", "folds?limit=1&limit=2", {}, 400),
        ("GET", "folds?unknown=1", {}, 400),
        ("GET", "folds?requested_by=%00", {}, 400),
        ("GET", "folds?requested_by=%ff", {}, 200),
        ("GET", "folds", {"auth": None}, 401),
        ("GET", "folds", {"auth": ("ada", "wrong")}, 401),
        ("POST", "folds/1/cancel", {"data": "x", "headers": {"Content-Type": "text/plain"}}, 415),
        ("POST", "folds/1/cancel", {"data": "{", "headers": JSON}, 400),
        ("POST", "folds/1/cancel", {"json": {"reason": 1, "other": 2}}, 400),
        ("POST", "folds/1/cancel", {"headers": {"Content-Length": "99999999999", **JSON}}, 413),
    ],
)
def test_problems_are_those_of_rfc_9457(site: Site, method: str, path: str, options: Any, status: int) -> None:
    """Whatever is wrong, the answer says what, in one form, and where its kind is described."""
    answer = site.ask(method, path, **options)
    assert answer.status_code == status, answer.text
    if status == 200:
        return
    problem = answer.json()
    assert answer.headers["Content-Type"].startswith(PROBLEM)
    assert (problem["status"], bool(problem["detail"]), len(problem["request_id"])) == (status, True, 32)
    kind = requests.get(f"{site.gateway.url}{problem['type']}", timeout=30).json()
    assert (kind["status"], kind["title"]) == (status, problem["title"])
    if status == 405:
        assert answer.headers["Allow"] == "GET,HEAD,PATCH"


def test_each_thing_that_is_wrong_is_pointed_at(site: Site) -> None:
    """By a JSON pointer into the body, or by the parameter's name."""
    body = site.ask("POST", "folds/1/cancel", json={"reason": 1, "other": 2}).json()
    assert sorted((one["pointer"], one["code"]) for one in body["errors"]) == [
        ("/other", "extra_forbidden"),
        ("/reason", "string_type"),
    ]
    asked = site.ask("GET", "folds?limit=x").json()
    assert [(one["pointer"], one["code"]) for one in asked["errors"]] == [("?/limit", "int_parsing")]


def test_a_reader_sees_what_it_wrote(site: Site) -> None:
    """A position that is not projected yet is waited for, and refused when it does not come."""
    wait_until(lambda: site.installation.caught_up(site.log))
    answer = site.ask("GET", "folds", headers={"Datarun-Min-Position": "v1reads.fold-events:0:999999"})
    assert (answer.status_code, answer.headers["Content-Type"]) == (503, PROBLEM)
