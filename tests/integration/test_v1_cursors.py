"""What is new to whom: cursors with acknowledgement and redelivery, waits, and a stream that misses nothing."""

from __future__ import annotations

import itertools
import json
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
import requests

from datarun.events import FoldFailed, FoldStarted, FoldTested
from tests.gateways import USER, wait_until
from tests.histories import cancelled, run_event
from tests.sites import Site, running_site


@pytest.fixture(scope="module")
def site(kafka: str, module_postgres_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Run a gateway beside a projector."""
    with running_site(kafka, module_postgres_url, tmp_path_factory.mktemp("v1"), "v1cursors.") as running:
        yield running
        # The gateway has to stop in time although somebody still follows it.
        left_open = stream(running)
    left_open.close()


def news(site: Site, cursor: str, **options: Any) -> list[int]:
    """Return the folds that are new to a cursor, in all portions, acknowledging each."""
    found: list[int] = []
    while True:
        told = site.get(f"cursors/{cursor}/new", **options)
        found += [one["id"] for one in told["items"]]
        if told["ack"] is not None:
            assert acknowledge(site, cursor, told["ack"], **options) == 204
        if not told["more"]:
            return found


def acknowledge(site: Site, cursor: str, ack: str, **options: Any) -> int:
    """Acknowledge what a cursor was told."""
    options.pop("params", None)
    return site.ask("POST", f"cursors/{cursor}/ack", json={"ack": ack}, **options).status_code


def test_what_ended_is_new_until_it_is_acknowledged(site: Site) -> None:
    """Tested or failed, again and again, and to every cursor for itself; a cursor that is forgotten begins anew."""
    folds = [site.fold(priority="H") for _ in range(3)]
    news(site, "mine")
    site.tested(folds[0])
    site.append(run_event(FoldFailed, folds[1]), run_event(FoldStarted, folds[2]))
    first, again = (site.get("cursors/mine/new") for _ in range(2))
    assert [(one["id"], one["state"]) for one in first["items"]] == [(folds[0], "TESTED"), (folds[1], "ERROR")]
    assert first == again
    early = first["ack"]
    assert acknowledge(site, "mine", early) == 204
    assert site.get("cursors/mine/new")["items"] == []
    site.append(cancelled(folds[2], attempt=1))
    assert news(site, "mine") == [folds[2]]
    assert acknowledge(site, "mine", early) == 204
    assert news(site, "mine") == []
    assert set(folds) <= set(news(site, "another"))
    assert site.ask("DELETE", "cursors/mine").status_code == 204
    assert set(folds) <= set(news(site, "mine"))
    legacy = site.gateway.post("testpredictions/new/", {}).json()
    assert folds[0] in [one["databoard_sf_id"] for one in legacy]


def test_portions_leave_nothing_out(site: Site) -> None:
    """However few are asked for at a time, each comes once."""
    news(site, "portions")
    folds = [site.fold() for _ in range(5)]
    site.append(*[run_event(FoldTested, fold) for fold in folds])
    assert sorted(news(site, "portions", params={"limit": 2})) == folds


def test_only_how_the_newest_attempt_ended_is_new(site: Site) -> None:
    """Neither the second end of an attempt nor one that was superseded."""
    news(site, "newest")
    twice, forced = site.fold(), site.fold()
    site.append(run_event(FoldTested, twice), run_event(FoldTested, forced))
    assert sorted(news(site, "newest")) == [twice, forced]
    site.append(run_event(FoldFailed, twice, delivery=2))
    assert site.ask("POST", f"folds/{forced}/retry").status_code == 202
    assert news(site, "newest") == []
    site.append(run_event(FoldFailed, forced, attempt=1, delivery=3), run_event(FoldFailed, forced, attempt=2))
    assert news(site, "newest") == [forced]


def test_a_client_may_wait_for_news(site: Site) -> None:
    """The answer comes when a fold ends, long before the wait is over; a short wait ends with nothing."""
    news(site, "waiting")
    fold = site.fold()
    answers: list[requests.Response] = []
    asking = threading.Thread(
        target=lambda: answers.append(site.ask("GET", "cursors/waiting/new", headers={"Prefer": "wait=25"}))
    )
    began = time.monotonic()
    asking.start()
    time.sleep(0.5)
    site.append(run_event(FoldTested, fold))
    asking.join(30)
    assert time.monotonic() - began < 20
    assert (answers[0].headers["Preference-Applied"], [one["id"] for one in answers[0].json()["items"]]) == (
        "wait=25",
        [fold],
    )
    acknowledge(site, "waiting", answers[0].json()["ack"])
    nothing = site.ask("GET", "cursors/waiting/new", headers={"Prefer": "respond-async, wait=1"})
    assert (nothing.json()["items"], nothing.json()["more"]) == ([], False)


def test_participants_hear_of_their_own_folds_alone(site: Site) -> None:
    """By their cursors and by the stream; and a cursor of the same name is another account's own."""
    own, other = site.fold(), site.fold()
    site.give_to("participant", own)
    site.append(run_event(FoldTested, own), run_event(FoldTested, other))
    assert news(site, "mine", role="participant") == [own]
    headers = {"Authorization": f"Bearer {site.token('participant')}"}
    with stream(site, auth=None, headers=headers, params={"start": "beginning"}) as lines:
        assert next(lines)["data"]["fold_id"] == own


@pytest.mark.parametrize("ack", ["", "x", "A" * 128 + "=", "_" * 128, 7])
def test_what_is_no_place_is_refused(site: Site, ack: Any) -> None:
    """400, as an acknowledgement and as an id of the stream."""
    assert acknowledge(site, "mine", ack) == 400
    refused = site.ask("GET", "events", headers={"Last-Event-ID": str(ack)})
    assert (refused.status_code, refused.headers["Content-Type"]) == (400, "application/problem+json")
    assert site.ask("GET", "cursors/-x/new").status_code == 404


class stream:  # noqa: N801 - used as a function
    """The events of a stream, one by one; leaving it cuts the connection."""

    def __init__(self, site: Site, **options: Any) -> None:
        options = {"auth": USER} | options
        self._answer = requests.get(f"{site.gateway.url}/v1/events", stream=True, timeout=30, **options)
        assert self._answer.status_code == 200, self._answer.text

    def __enter__(self) -> Iterator[dict[str, Any]]:
        lines = (line.decode() for line in self._answer.iter_lines(chunk_size=1))
        self.began = next(lines)
        return (one for one in self._events(itertools.chain([self.began], lines)) if "data" in one)

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Cut the connection."""
        self._answer.close()

    @staticmethod
    def _events(lines: Iterator[str]) -> Iterator[dict[str, Any]]:
        event: dict[str, Any] = {}
        for line in lines:
            name, _, value = line.partition(": ")
            if not line:
                yield event
                event = {}
            else:
                event[name] = json.loads(value) if name == "data" else value


def test_a_stream_goes_on_where_it_was_cut(site: Site) -> None:
    """From the last id a client saw, nothing is missing and nothing comes twice, whenever it comes back."""
    fold = site.fold()
    events = [run_event(FoldStarted, fold), run_event(FoldFailed, fold)]
    with stream(site) as live:
        site.append(events[0])
        seen = next(live)
        assert (seen["event"], seen["data"]["fold_id"], seen["data"]["runner_id"]) == ("FoldStarted", fold, "runner-0")
    site.append(events[1])
    with stream(site, headers={"Last-Event-ID": seen["id"]}) as resumed:
        assert next(resumed)["event"] == "FoldFailed"
        site.append(run_event(FoldStarted, fold, attempt=2))
        later = next(resumed)
        assert (later["event"], later["data"]["attempt"]) == ("FoldStarted", 2)


def test_followers_let_go_of_what_they_held(site: Site) -> None:
    """More clients than may follow at once come and go, one after the other, and the next one is served."""
    for _ in range(40):
        with stream(site):
            pass
    wait_until(lambda: site.ask("GET", "cursors/mine/new").status_code == 200)
