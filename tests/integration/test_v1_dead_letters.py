"""Dead letters below /v1, in /metrics, in `datarun dlq ls` and `projection status`: one list, whoever shows it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
import requests
from prometheus_client.parser import text_string_to_metric_families
from typer.testing import CliRunner

from datarun.cli import app
from datarun.dead_letters.ledger import Ledger
from datarun.dead_letters.letters import decision_record, text_of
from datarun.envelope import encode
from datarun.errors import Undecodable
from datarun.events import FoldTested
from datarun.log import Position, Record
from datarun.log.memory import MemoryLog
from datarun.log.reading import record_at
from datarun.topics import DATA_EVENTS, ENVIRONMENTS, FOLD_REQUESTS_LOW, Catalogue
from services.runner.publisher import Publisher
from tests.gateways import query, wait_until
from tests.histories import CONTEXT, run_event
from tests.sites import Site, running_site


@pytest.fixture(scope="module")
def site(kafka: str, module_postgres_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Run a gateway beside a projector."""
    with running_site(kafka, module_postgres_url, tmp_path_factory.mktemp("letters"), "letters.") as running:
        yield running


def dlq(site: Site, *arguments: str) -> str:
    """Run `datarun dlq` and return what it printed."""
    installation = site.installation
    servers = ["--kafka", installation.kafka, "--postgres", installation.postgres_url]
    options = [*servers, "--topic-prefix", installation.catalogue.prefix, "--dir", str(installation.folder)]
    result = CliRunner().invoke(app, [*arguments, *options], env={"COLUMNS": "200"})
    assert result.exit_code == 0, result.output
    return result.output


def listed(site: Site, state: str = "open", *, limit: int = 100) -> list[dict[str, Any]]:
    """Return the letters of every page."""
    found, following = [], f"/v1/dead-letters?state={state}&limit={limit}"
    while following:
        page = site.get(following.removeprefix("/v1/"))
        found += page["items"]
        following = page["next"]
    assert [one["position"] for one in found] == list(dict.fromkeys(one["position"] for one in found))
    return found


def positions(site: Site, state: str = "open", *, limit: int = 100) -> list[str]:
    """Return where the letters are."""
    return [one["position"] for one in listed(site, state, limit=limit)]


def everywhere(site: Site) -> list[str]:
    """Return the open letters, having seen that everybody who counts or lists them says the same."""
    found = positions(site)
    assert found == [json.loads(line)["position"] for line in dlq(site, "dlq", "ls", "--json").splitlines()]
    text = requests.get(f"{site.gateway.url}/metrics", timeout=30).text
    samples = {one.name: one.value for family in text_string_to_metric_families(text) for one in family.samples}
    assert samples["datarun_dead_letters"] == len(found)
    [row] = [line for line in dlq(site, "projection", "status").splitlines() if "│ rm " in line]
    assert row.split("│")[5].strip() == str(len(found))
    return found


def misplaced(site: Site, fold_id: int) -> str:
    """Append a result to the topic of the datasets, which the projector refuses."""
    record = encode(run_event(FoldTested, fold_id), catalogue=site.installation.catalogue, context=CONTEXT)
    name = site.installation.catalogue.full_name(DATA_EVENTS)
    place = site.log.append(Record(name, record.key, record.value, record.headers)).result(30)
    wait_until(lambda: site.installation.caught_up(site.log))
    return text_of(place)


def of_runner(site: Site) -> str:
    """Have a runner refuse a record that the projector never reads."""
    name = site.installation.catalogue.full_name(ENVIRONMENTS)
    place = site.log.append(Record(name, b"1", b"\xff" * 5000, (("ce_type", b"x"),))).result(30)
    return refused_by_runner(site, place)


def refused_by_runner(site: Site, place: Position) -> str:
    """Have a runner refuse a record."""
    record = record_at(site.log, place)
    assert record is not None
    Publisher(site.log, catalogue=site.installation.catalogue, source="t").dead_letter(record, Undecodable("no JSON"))
    return text_of(place)


def test_a_letter_is_open_until_somebody_deals_with_it(site: Site) -> None:
    """Retried or dropped it is told with who and when, and counted nowhere any more; also of what runners found."""
    before = everywhere(site)
    retried, dropped, found = misplaced(site, 7), misplaced(site, 8), of_runner(site)
    assert set(everywhere(site)) == {*before, retried, dropped, found}
    shown = {one["position"]: one for one in listed(site)}
    assert (shown[found]["found_by"], shown[found]["value"], shown[found]["size"]) == (["runner"], None, 5000)
    assert (shown[retried]["reason"], shown[retried]["found_by"]) == ("misrouted", ["projector"])
    assert (shown[retried]["decision"], "test_predictions" in shown[retried]["value"]) == (None, True)
    dlq(site, "dlq", "retry", retried, "--execute")
    dlq(site, "dlq", "drop", dropped, found, "--note", "of a test")
    assert everywhere(site) == before
    assert retried in positions(site, "retried")
    assert {dropped, found} <= set(positions(site, "dropped"))
    assert not {dropped, found} & set(positions(site, "retried"))
    decided = {one["position"]: one["decision"] for one in listed(site, "all")}
    assert (decided[dropped]["kind"], decided[dropped]["note"]) == ("dropped", "of a test")
    assert (decided[retried]["kind"], bool(decided[retried]["by"]), decided[retried]["at"][:2]) == (
        "retried",
        True,
        "20",
    )


def test_pages_meet_whoever_found_the_letters(site: Site) -> None:
    """Each letter once, in the order of positions, however small the pages are."""
    queue = site.installation.catalogue.full_name(FOLD_REQUESTS_LOW)
    both = site.log.append(Record(queue, b"1", b"\x00", (("ce_type", b"x"),))).result(30)
    places = [misplaced(site, 9), of_runner(site), misplaced(site, 10), of_runner(site), refused_by_runner(site, both)]
    wait_until(lambda: site.installation.caught_up(site.log))
    every = positions(site, "all")
    still_open = everywhere(site)
    assert set(places) <= set(still_open) <= set(every)
    for limit in (1, 2, 3):
        assert positions(site, "all", limit=limit) == every
        assert positions(site, limit=limit) == still_open
    [one] = [one for one in listed(site) if one["position"] == text_of(both)]
    assert one["found_by"] == ["projector", "runner"]
    dlq(site, "dlq", "drop", *places)
    assert not set(places) & set(positions(site))


def test_a_long_value_is_cut(site: Site) -> None:
    """Its size is told all the same."""
    statement = "insert into rm.dead_letter values ('a', 0, 1, 'undecodable', 'no', null, %s, '[]')"
    query(site.installation.postgres_url, statement, b"\xff" * 5000)
    letter = listed(site)[0]
    assert (letter["position"], letter["size"], len(letter["value"])) == ("a:0:1", 5000, 2000)
    query(site.installation.postgres_url, "delete from rm.dead_letter where topic = 'a'")


def test_the_answer_to_a_wrong_state_says_so(site: Site) -> None:
    """It is none of the four."""
    answer = site.ask("GET", "dead-letters", params={"state": "lost"})
    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (400, "?/state")


def test_a_flood_of_letters_takes_no_more_memory_than_is_kept_for_them() -> None:
    """What is beyond is left out, and said to be; a ledger reads each record once."""
    catalogue = Catalogue("flood.")
    log = MemoryLog(catalogue)
    ledger = Ledger(log, catalogue=catalogue, most=2)
    assert not ledger.read_on().letters
    for offset in range(3):
        about = f"flood.fold-events:0:{offset}".encode()
        headers = (("datarun-position", about), ("datarun-reason", b"r" * 10_000))
        log.append(Record("flood.dead-letters", b"1", b"", headers))
    known = ledger.read_on()
    assert ([one.offset for one in known.letters], known.is_full) == ([0, 1], True)
    assert {len(one.reason) for one in known.letters.values()} == {2000}
    place = Position("flood.fold-events", 0, 1)
    log.append(decision_record(place, "dropped", by="ada", note="", catalogue=catalogue))
    assert ledger.read_on().decided("dropped") == [place]
    assert [one.offset for one in ledger.read_on().open()] == [0]
    assert ledger.read_on() is ledger.read_on()
