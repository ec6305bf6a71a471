"""Runners that are handed what was begun before: a group that forgot all, a taker that died; among real servers."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient

from datarun import tokens
from datarun.db import connect
from datarun.events import Event, FoldFailed, FoldStarted, FoldTested, Priority, RunnerHeartbeat
from datarun.log.admin import create_topics
from datarun.log.kafka import KafkaLog
from datarun.projection.offsets import read_offsets
from datarun.projection.share import Ground as Projection
from datarun.projection.share import project_share
from datarun.topics import FOLD_EVENTS, PROJECTED, QUEUES, RUNNER_STATUS, Catalogue
from tests.gateways import Gateway, running_gateway
from tests.histories import requested, run_event
from tests.projecting import Installation, wait_until
from tests.sleeping import Ground, ground, sleeping

FOLDS = int(os.environ.get("DATARUN_TEST_FOLDS", "1400"))
"""How many a share group forgets, three quarters of them of one queue: more than the gateway tells of at once."""
SECONDS = 60


@dataclass
class Site:
    """An installation with a projector, runners that only sleep, and gateways as they are started."""

    installation: Installation
    ground: Ground
    blobs_url: str

    @contextmanager
    def gateway(self) -> Iterator[Gateway]:
        """Run a gateway, and tell the runners that start from now on of it."""
        with running_gateway(
            self.installation.folder / "gateway",
            kafka=self.installation.kafka,
            postgres_url=self.installation.postgres_url,
            blobs_url=self.blobs_url,
            prefix=self.installation.catalogue.prefix,
        ) as running:
            self.tell_of(running.url)
            yield running

    def tell_of(self, url: str) -> None:
        """Write down the gateway's URL and a token where runners look."""
        token = tokens.make()
        tokens.add(self.installation.postgres_url, token, "runner", role="runner")
        names = ("kafka", "postgres_url", "blobs", "user", "password")
        told = dict.fromkeys(names, "x") | {"gateway_url": url, "runner_token": token}
        (self.ground.folder / "connection.json").write_text(json.dumps(told))

    def events(self, *kinds: type[Event]) -> list[Event]:
        """Return the events of some kinds."""
        return [event for _, event in self.ground.stored(FOLD_EVENTS) if isinstance(event, kinds)]

    def started(self, fold_id: int) -> list[tuple[int, int]]:
        """Return the attempts and deliveries of a fold that were started."""
        events = [event for event in self.events(FoldStarted) if event.key == str(fold_id)]
        return [(event.attempt, event.delivery) for event in events if isinstance(event, FoldStarted)]

    def has_ended(self, fold_id: int) -> bool:
        """Tell whether a fold has its result."""
        return any(event.key == str(fold_id) for event in self.events(FoldFailed, FoldTested))

    def skipped(self) -> int:
        """Return how many requests the newest runner says it skipped."""
        beats = [event for _, event in self.ground.stored(RUNNER_STATUS) if isinstance(event, RunnerHeartbeat)]
        return beats[-1].skipped if beats else 0


@pytest.fixture
def site(kafka: str, postgres_url: str, blobs_url: str, topic_prefix: str, tmp_path: Path) -> Iterator[Site]:
    """Make the topics of a fresh installation."""
    create_topics(kafka, prefix=topic_prefix)
    catalogue = Catalogue(topic_prefix)
    with ground(kafka, catalogue, tmp_path) as made:
        yield Site(Installation(kafka, postgres_url, catalogue, tmp_path), made, blobs_url)


def project(site: Site) -> None:
    """Bring the log into the read model by the plain loop."""
    installation = site.installation
    ends = site.ground.log.end_offsets([installation.catalogue.full_name(topic) for topic in PROJECTED])
    place = Projection(
        lambda: KafkaLog(installation.kafka),
        lambda: connect(installation.postgres_url),
        installation.catalogue,
        "rm",
    )
    with closing(connect(installation.postgres_url)) as connection, connection, connection.cursor() as cursor:
        here = read_offsets(cursor, schema="rm")
    project_share(place, {tp: here.get(tp, 0) for tp in ends}, ends)


def forget(site: Site) -> None:
    """Delete what the share groups know, as when a cluster is restored without it."""
    client = AdminClient({"bootstrap.servers": site.installation.kafka})
    names = [site.installation.catalogue.share_group(topic) for topic in QUEUES.values()]

    def is_deleted(name: str) -> bool:
        try:
            client.delete_consumer_groups([name])[name].result(10)
        except KafkaException as error:
            # Its last member may still be leaving.
            return error.args[0].code() == KafkaError.GROUP_ID_NOT_FOUND
        return True

    for name in names:
        wait_until(lambda: is_deleted(name), SECONDS)  # noqa: B023 - waited for at once


def test_a_group_that_forgot_a_thousand_finished_folds_runs_none_of_them(site: Site) -> None:
    """It hands all of them out again; nothing starts but what is new."""
    with site.installation.projector() as projector, site.gateway():
        projector.wait_ready()
        [first] = site.ground.start_ready()
        site.ground.append([sleeping(FOLDS + 1, 0.01, Priority.HIGH), sleeping(FOLDS + 2, 0.01)])
        wait_until(lambda: site.has_ended(FOLDS + 1) and site.has_ended(FOLDS + 2), SECONDS)
        first.signal()
        assert first.wait() == 0
    requests = [requested(n, priority=Priority.HIGH if n % 4 else Priority.LOW) for n in range(1, FOLDS + 1)]
    site.ground.append(requests)
    for kind in (FoldStarted, FoldTested):
        site.ground.append(run_event(kind, number) for number in range(1, FOLDS + 1))
    project(site)
    forget(site)
    with site.installation.projector() as projector, site.gateway():
        projector.wait_ready()
        began = time.monotonic()
        site.ground.start_ready()
        wait_until(lambda: site.skipped() == FOLDS + 2, SECONDS * 4)
        took = time.monotonic() - began
        print(f"{FOLDS + 2} requests skipped {took:.1f} s after a start")  # noqa: T201 - shown with -s
        site.ground.append([sleeping(FOLDS + 3, 0.01)])
        wait_until(lambda: site.has_ended(FOLDS + 3), SECONDS)
        assert len(site.events(FoldStarted)) == FOLDS + 3
        assert site.skipped() == FOLDS + 2


@pytest.mark.parametrize(
    ("crash_at", "started"), [("runner.after_take", [(1, 1)]), ("runner.after_started", [(1, 1), (1, 2)])]
)
def test_a_request_whose_taker_died_is_started_once_a_delivery(
    site: Site, crash_at: str, started: list[tuple[int, int]]
) -> None:
    """Before FoldStarted the next runner starts it; after, only the reaper's next delivery is started."""
    with site.installation.projector() as projector, site.gateway():
        projector.wait_ready()
        site.ground.start(crash_at=crash_at)
        site.ground.append([sleeping(1, 0.01)])
        site.ground.runners[-1].wait()
        site.ground.start_ready()
        wait_until(lambda: site.has_ended(1), SECONDS)
        assert site.started(1) == started


def test_what_was_taken_before_waits_for_the_gateway(site: Site) -> None:
    """While nobody can tell whether it was begun it is not started, nor lost; other queues go on."""
    with site.installation.projector() as projector:
        projector.wait_ready()
        with site.gateway() as gateway:
            url = gateway.url
        site.ground.start(crash_at="runner.after_take")
        site.ground.append([sleeping(1, 0.01, Priority.HIGH)])
        site.ground.runners[-1].wait()
        site.tell_of(url)
        [runner] = site.ground.start_ready()
        wait_until(lambda: "gateway.cannot_confirm" in runner.output.read_text(), SECONDS)
        site.ground.append([sleeping(2, 0.01, Priority.LOW)])
        wait_until(lambda: site.has_ended(2), SECONDS)
        assert site.started(1) == []
        wait_until(lambda: "request.not_confirmed" in runner.output.read_text(), SECONDS)
        assert site.started(1) == []


def test_a_runner_without_a_gateway_says_so_and_starts_what_is_young(site: Site) -> None:
    """What a taker that died had waits for nobody."""
    site.ground.start(crash_at="runner.after_take")
    site.ground.append([sleeping(1, 0.01)])
    site.ground.runners[-1].wait()
    [runner] = site.ground.start_ready()
    assert "runner.no_gateway" in runner.output.read_text()
    wait_until(lambda: site.has_ended(1), SECONDS)
    assert (site.started(1), site.skipped()) == ([(1, 1)], 0)
