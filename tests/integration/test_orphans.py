"""Results whose requests nobody has seen: no fold for anybody, a dead letter after a while, whole once they come."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import pytest
import requests
from prometheus_client.parser import text_string_to_metric_families
from psycopg2.extensions import connection as Connection
from typer.testing import CliRunner

from datarun.cli import app
from datarun.db import connect
from datarun.dead_letters.ledger import patience
from datarun.dead_letters.letters import text_of
from datarun.events import FoldFailed, FoldStarted, FoldTested, FoldTrained
from datarun.log import Position, StoredRecord, TopicPartition
from datarun.log.memory import MemoryLog
from datarun.projection.apply import apply
from datarun.readmodel.dead_letters import ListedLetter, count_open, list_letters
from datarun.readmodel.orphans import PATIENCE_SECONDS, Patience
from tests.gateways import wait_until
from tests.histories import CATALOGUE, Log, cancelled, requested, run_event
from tests.sites import Site, running_site

SECONDS = 2.0
"""The site's patience."""


@pytest.fixture(scope="module")
def site(kafka: str, module_postgres_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Run an impatient gateway beside a projector."""
    folder = tmp_path_factory.mktemp("orphans")
    with running_site(kafka, module_postgres_url, folder, "orphans.", DATARUN_ORPHAN_SECONDS=str(SECONDS)) as running:
        yield running


@pytest.fixture
def connection(postgres_url: str) -> Iterator[Connection]:
    """Open the test's database."""
    opened = connect(postgres_url)
    yield opened
    opened.close()


def _command(site: Site, *arguments: str, code: int = 0) -> str:
    installation = site.installation
    servers = ["--kafka", installation.kafka, "--postgres", installation.postgres_url]
    options = [*servers, "--topic-prefix", installation.catalogue.prefix, "--dir", str(installation.folder)]
    environment = {"COLUMNS": "200", "DATARUN_ORPHAN_SECONDS": str(SECONDS)}
    result = CliRunner().invoke(app, [*arguments, *options], env=environment)
    assert result.exit_code == code, result.output
    return result.output


def _letters(site: Site, state: str = "open", *, limit: int = 100) -> dict[str, Any]:
    found, following = [], f"/v1/dead-letters?state={state}&limit={limit}"
    while following:
        page = site.get(following.removeprefix("/v1/"))
        found += page["items"]
        following = page["next"]
    assert [one["position"] for one in found] == list(dict.fromkeys(one["position"] for one in found))
    return {one["position"]: one for one in found}


def _metrics(site: Site) -> dict[str, float]:
    text = requests.get(f"{site.gateway.url}/metrics", timeout=30).text
    families = text_string_to_metric_families(text)
    return {one.name + one.labels.get("state", ""): one.value for family in families for one in family.samples}


def _said_by_all(site: Site) -> set[str]:
    """Return the open letters, having seen that everybody who counts or lists them says the same."""
    found = set(_letters(site))
    assert found == {json.loads(line)["position"] for line in _command(site, "dlq", "ls", "--json").splitlines()}
    assert _metrics(site)["datarun_dead_letters"] == len(found)
    [row] = [line for line in _command(site, "projection", "status").splitlines() if "│ rm " in line]
    assert row.split("│")[5].strip() == str(len(found))
    return found


def _place_of(site: Site, fold_id: int) -> str:
    """Return where a fold's last run is."""
    found = [one for one in site.installation.stored(site.log) if one.key == b"%d" % fold_id]
    return text_of([one for one in found if one.topic.endswith("fold-events")][-1].position)


def test_a_result_without_a_request_is_a_dead_letter_in_the_end(site: Site) -> None:
    """With its position, key and type; it cannot be retried, and is told of no more once somebody drops it."""
    site.tested(901)
    site.append(run_event(FoldTrained, 902))
    places = {_place_of(site, 901), _place_of(site, 902)}
    wait_until(lambda: places <= set(_letters(site)), seconds=30)
    assert places <= _said_by_all(site)
    letters = {place: one for place, one in _letters(site).items() if place in places}
    told = {(one["reason"], one["key"], one["detail"], *one["headers"][0]) for one in letters.values()}
    assert told == {
        ("orphan", "901", "attempt 1 of fold 901 was never asked for", "ce_type", "datarun.FoldTested.v1"),
        ("orphan", "902", "attempt 1 of fold 902 was never asked for", "ce_type", "datarun.FoldTrained.v1"),
    }
    assert {(*one["found_by"], one["value"], one["decision"]) for one in letters.values()} == {
        ("projector", None, None)
    }
    place = _place_of(site, 902)
    assert "its request is missing" in _command(site, "dlq", "retry", place, code=1)
    assert "FoldTrained" in _command(site, "dlq", "show", place)
    _command(site, "dlq", "drop", place, "--note", "of a test")
    assert place not in _said_by_all(site)
    assert _letters(site, "dropped")[place]["decision"]["note"] == "of a test"


def _folds_shown(site: Site) -> dict[str, list[int]]:
    """Return the folds that each list shows, each state's count and each submission's."""
    new = site.gateway.post("testpredictions/new/", {})
    counted = _metrics(site)
    return {
        "runapp": [one["databoard_sf_id"] for one in site.gateway.get("submissionfold/").json()],
        "new": [one["databoard_sf_id"] for one in new.json()] if new.status_code == 200 else [],
        "v1": [one["id"] for one in site.get("folds?limit=1000")["items"]],
        "tested": [one["id"] for one in site.get("folds?limit=1000&state=TESTED")["items"]],
        "cursor": [one["id"] for one in site.get("cursors/orphans/new?limit=1000")["items"]],
        "submissions": [sum(one["folds"].values()) for one in site.get("submissions")["items"]],
        "counted": [int(count) for name, count in counted.items() if name.startswith("datarun_folds")],
    }


def test_no_list_of_folds_shows_a_result_without_a_request(site: Site) -> None:
    """Nor is it counted, nor handed out as new; one with a request is shown by each."""
    site.tested(site.fold())
    _folds_shown(site)
    # What is counted is counted anew every few seconds.
    before = _folds_shown(site)
    known = site.fold()
    for number in (903, known):
        site.tested(number)
    assert site.ask("GET", "folds/903").status_code == 404
    assert site.ask("GET", "folds/903/predictions").status_code == 404
    assert site.gateway.get("submissionfold/903/").status_code == 404
    after = _folds_shown(site)
    shown = {
        name: [one for one in after[name] if one not in before[name]] for name in ("runapp", "new", "v1", "tested")
    }
    assert list(shown.values()) == [[known]] * 4
    assert set(after["cursor"]) - set(before["cursor"]) == {known}
    assert sum(after["submissions"]) == sum(before["submissions"]) + 1
    wait_until(lambda: sum(_folds_shown(site)["counted"]) == len(after["v1"]), seconds=30)


def test_a_request_that_comes_later_completes_the_fold_and_there_is_no_letter_any_more(site: Site) -> None:
    """Nothing is lost: the fold is tested and its predictions are new."""
    number = 911
    site.tested(number)
    place = _place_of(site, number)
    wait_until(lambda: place in _letters(site), seconds=30)
    site.append(requested(number))
    assert place not in _said_by_all(site)
    assert place not in _letters(site, "all")
    assert site.get(f"folds/{number}")["state"] == "TESTED"
    new = site.gateway.post("testpredictions/new/", {})
    assert new.status_code == 200, new.text
    assert number in [one["databoard_sf_id"] for one in new.json()]


def test_a_killed_projector_and_pages_of_any_size_tell_each_orphan_once(site: Site) -> None:
    """Beside refused records; what comes behind a flood of them is projected as ever."""
    numbers = range(1001, 1041)
    site.append(*[run_event(FoldTested, number) for number in numbers])
    wait_until(lambda: len(_letters(site)) >= len(numbers), seconds=30)
    found = _letters(site)
    with site.installation.projector() as another:
        another.wait_ready()
        another.kill()
    for limit in (3, 16):
        assert list(_letters(site, limit=limit)) == list(found)
    assert _said_by_all(site) == set(found)
    site.append(*[requested(number) for number in numbers])
    assert not {one["key"] for one in _letters(site, "all").values()} & {str(number) for number in numbers}


def _orphans(connection: Connection, overdue: Patience) -> list[ListedLetter]:
    with connection, connection.cursor() as cursor:
        found = list_letters(cursor, after=Position("", -1, -1), limit=100, patience=overdue)
        assert count_open(cursor, decided=[], others=[], patience=overdue) == len(found)
        places = [one.position for one in found]
        assert count_open(cursor, decided=places[:1], others=places[1:], patience=overdue) == len(places[1:])
    return found


def _aged(log: Log, ages: dict[int, float]) -> list[StoredRecord]:
    """Return a log's records as if their folds' had come so many seconds ago, by the broker's clock."""
    now_ms = time.time() * 1000
    return [one._replace(timestamp_ms=int(now_ms - ages[int(one.key or b"0")] * 1000)) for one in log]


def test_a_run_waits_a_minute_for_its_request(connection: Connection) -> None:
    """By the broker's clock. A cancellation may come before its request; of a known fold an attempt may be unknown."""
    log = Log()
    for event in (
        run_event(FoldTested, 1),
        run_event(FoldTested, 2),
        cancelled(3),
        requested(4),
        run_event(FoldTested, 4, attempt=2),
        requested(5),
        run_event(FoldTested, 5),
        run_event(FoldStarted, 6),
        run_event(FoldFailed, 6),
        requested(7, attempt=2),
        run_event(FoldTested, 7),
    ):
        log.append(event)
    ages = {1: PATIENCE_SECONDS - 20, **dict.fromkeys(range(2, 8), PATIENCE_SECONDS + 1)}
    apply(_aged(log, ages), connection, catalogue=CATALOGUE)
    found = _orphans(connection, patience(MemoryLog(CATALOGUE), catalogue=CATALOGUE, seconds=PATIENCE_SECONDS))
    told = {one.key: (one.detail, one.headers[0][1]) for one in found}
    assert told == {
        b"2": ("attempt 1 of fold 2 was never asked for", "datarun.FoldTested.v1"),
        b"4": ("attempt 2 of fold 4 was never asked for", "datarun.FoldTested.v1"),
        b"6": ("attempt 1 of fold 6 was never asked for", "datarun.FoldFailed.v1"),
    }
    records = {one.position: one for one in log}
    assert all(records[one.position].key == one.key for one in found)


def test_a_read_model_that_has_not_seen_the_requests_tells_of_no_orphan(connection: Connection) -> None:
    """One that is made anew has many runs before it has their requests."""
    log = Log()
    log.append(run_event(FoldTested, 1))
    apply(_aged(log, {1: 1000}), connection, catalogue=CATALOGUE)
    topic = "test.fold-events"
    queue = TopicPartition("test.fold-requests.low", 0)
    assert _orphans(connection, Patience(topic, 1.0, {queue: 1})) == []
    assert [one.key for one in _orphans(connection, Patience(topic, 1.0, {queue: 0}))] == [b"1"]
    early = Log()
    early.append(requested(1, attempt=2))
    apply(list(early), connection, catalogue=CATALOGUE)
    assert _orphans(connection, Patience(topic, 1.0, {queue: 1})) == []
