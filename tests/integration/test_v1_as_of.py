"""`?as_of=` on a real log: what /v1 told at a moment is told again after everything has changed."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from datarun.events import FoldFailed, FoldLost, FoldStarted
from tests.gateways import fold_body, packed, wait_until
from tests.histories import run_event
from tests.sites import Site, running_site


@pytest.fixture(scope="module")
def site(kafka: str, module_postgres_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Run a gateway beside a projector."""
    with running_site(kafka, module_postgres_url, tmp_path_factory.mktemp("v1"), "v1past.") as running:
        yield running


def moment(site: Site) -> str:
    """Return a moment that all before it is projected at, and that what comes is later than."""
    wait_until(lambda: site.installation.caught_up(site.log))
    time.sleep(0.02)
    named = datetime.now(UTC).isoformat()
    time.sleep(0.02)
    return named


def then(site: Site, path: str, at: str, **options: Any) -> Any:
    """GET what is told of a moment."""
    return site.get(path, params={"as_of": at}, **options)


def everything(site: Site, path: str, at: str | None = None) -> list[Any]:
    """Return the items of every page."""
    found, following, parameters = [], path, {"as_of": at} if at else {}
    while following:
        page = site.get(following.removeprefix("/v1/"), params=parameters)
        found += page["items"]
        following, parameters = page["next"], {}
    return found


def force(site: Site, fold: int, submission: int, what: str, **fields: Any) -> None:
    """Have a fold run anew."""
    answer = site.gateway.post("submissionfold/", fold_body(fold, submission, force=what, **fields))
    assert answer.status_code == 201, answer.text


def change_everything(site: Site, folds: list[int], other: int, *, whole: int, plain: int) -> None:
    """Go on in every way there is."""
    first = folds[0]
    assert site.ask("POST", f"folds/{folds[1]}/retry").ok
    assert site.ask("POST", f"folds/{folds[2]}/cancel").ok
    assert site.ask("PATCH", f"folds/{folds[4]}", json={"priority": "L"}).ok
    force(site, first, first, "submission_fold")
    files = {"classifier.py": packed("class Classifier: pass\n")}
    force(site, folds[3], first, "submission, submission_fold", files=files)
    site.append(run_event(FoldFailed, other), run_event(FoldStarted, first, attempt=2))
    assert site.gateway.post("rawdata/split/", {"raw_data_id": plain, "held_out_test": 0.5}).ok
    site.fold(whole)
    wait_until(lambda: site.get(f"folds/{folds[2]}")["state"] == "ERROR")
    moment(site)


def test_what_was_told_at_a_moment_is_told_again(site: Site) -> None:
    """Folds, submissions, datasets and splits, after forces, retries, cancels, new versions and new splits."""
    whole, plain = site.dataset(is_split=True), site.dataset()
    first = site.fold(whole)
    folds = [first, *(site.fold(submission=first, priority="H") for _ in range(4))]
    other = site.fold(plain)
    site.tested(first)
    site.append(run_event(FoldFailed, folds[1]), run_event(FoldStarted, folds[2]), run_event(FoldLost, folds[3]))
    at = moment(site)
    of = f"dataset_id={whole}&limit=2"
    paths = [
        *(f"folds/{number}" for number in (*folds, other)),
        *(f"datasets/{number}" for number in (whole, plain)),
        f"datasets/{whole}/split",
        f"submissions/{first}",
        f"submissions/{other}",
    ]
    lists = [f"folds?{of}", f"folds?{of}&state=TODO", "folds?state=ERROR", f"folds?submission_id={other}", "datasets"]
    before = {path: site.get(path) for path in paths} | {path: everything(site, path) for path in lists}
    assert {one["state"] for one in before[f"folds?{of}"]} == {"TESTED", "ERROR", "STARTED", "TODO"}
    change_everything(site, folds, other, whole=whole, plain=plain)
    for path in paths:
        again, told = then(site, path, at), before[path]
        if path == f"submissions/{first}":
            # The log has no time of a version, and the gateway none of one that was replaced.
            assert (again.pop("accepted_at"), bool(told.pop("accepted_at"))) == (None, True)
            assert site.get(path)["version"] == 2
        assert again == told, path
    for path in lists:
        assert everything(site, path, at) == before[path], path
    assert then(site, f"folds/{first}", moment(site)) == site.get(f"folds/{first}")
    assert site.get(f"folds/{first}")["attempt"] == 2


def test_what_was_not_there_yet_is_not_found(site: Site) -> None:
    """Before it was accepted; the list of a moment before everything is empty."""
    at = moment(site)
    raw_data_id = site.dataset()
    fold = site.fold(raw_data_id)
    moment(site)
    for path in (f"folds/{fold}", f"submissions/{fold}", f"datasets/{raw_data_id}", f"datasets/{raw_data_id}/split"):
        assert site.ask("GET", path, params={"as_of": at}).status_code == 404
    assert then(site, f"folds?dataset_id={raw_data_id}", at)["items"] == []
    for early in ("0001-01-01", "1969-12-31T23:59", "2001-01-01T00:00:00+02:00"):
        assert then(site, "folds", early) == then(site, "datasets", early) == {"items": [], "next": None}


def test_participants_see_their_own_past_alone(site: Site) -> None:
    """Also of a number that was another's fold before."""
    own, others = site.fold(), site.fold()
    site.give_to("participant", own)
    at = moment(site)
    assert then(site, f"folds/{own}", at, role="participant")["id"] == own
    assert [one["id"] for one in then(site, "folds", at, role="participant")["items"]] == [own]
    assert then(site, f"submissions/{own}", at, role="participant")["id"] == own
    for path in (f"folds/{others}", f"submissions/{others}"):
        assert site.ask("GET", path, role="participant", params={"as_of": at}).status_code == 404
    force(site, others, own, "submission_fold")
    wait_until(lambda: site.get(f"folds/{others}")["submission_id"] == own)
    moment(site)
    assert site.ask("GET", f"folds/{others}", role="participant").status_code == 200
    assert site.ask("GET", f"folds/{others}", role="participant", params={"as_of": at}).status_code == 404
    assert then(site, f"folds/{others}", at)["submission_id"] == others


def test_what_is_no_moment_of_the_past_is_refused(site: Site) -> None:
    """With the parameter named, and what it should be."""
    tomorrow = (datetime.now(UTC) + timedelta(days=1)).isoformat()
    fold = site.fold()
    wrong = {"": "moment_parsing", "yesterday": "moment_parsing", "2026-13-01": "moment_parsing"}
    wrong |= {"2026-01-01T00:00\x00": "moment_parsing", "9" * 400: "moment_parsing", tomorrow: "future"}
    for path in (f"folds/{fold}", "folds", "datasets", "datasets/1", "datasets/1/split", f"submissions/{fold}"):
        for text, code in wrong.items():
            answer = site.ask("GET", path, params={"as_of": text})
            assert (answer.status_code, answer.headers["Content-Type"]) == (400, "application/problem+json"), path
            assert [(one["pointer"], one["code"]) for one in answer.json()["errors"]] == [("?/as_of", code)]


def test_a_time_with_a_plus_that_nobody_quoted_is_understood(site: Site) -> None:
    """It arrives as a space."""
    fold = site.fold()
    at = moment(site)
    assert "+00:00" in at
    assert site.get(f"folds/{fold}?as_of={at}")["id"] == fold
