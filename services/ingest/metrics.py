"""GET /metrics for Prometheus: what this gateway answered, and how the whole installation stands at this moment.

What a server that is away would tell is left out, and its `up` is 0; the answer is 200 all the same.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from aiohttp import web
from aiohttp.typedefs import Handler
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from psycopg2.extensions import cursor as Cursor

from datarun.errors import DatabaseUnavailable, LogUnavailable
from datarun.intake import webhooks
from datarun.intake.following import read_offsets
from datarun.lifecycle import State
from datarun.log import TopicPartition
from datarun.readmodel import counts
from datarun.readmodel.counts import Depth, Fleet
from datarun.readmodel.dead_letters import count_open
from datarun.readmodel.queries import projected_offsets
from datarun.topics import FOLD_EVENTS, PROJECTED, QUEUES, Catalogue
from services.ingest.gateway import GATEWAY, Gateway
from services.ingest.letters import LETTERS, Letters, Look

ALIVE_SECONDS = 10.0
LOG_SECONDS = 2.0
COUNT_SECONDS = 15.0
"""Folds are counted anew this often at the most: it reads every row."""
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)

FoldCounts = Mapping[tuple[State, str], int]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What Postgres knows."""

    depths: Mapping[str, Depth]
    fleet: Fleet
    folds: FoldCounts
    dead_letters: int | None
    """Open ones; None before the log could be asked what was decided."""
    unsent: int
    waiting: int
    projected: Mapping[TopicPartition, int]
    webhooks: Mapping[str, int]
    webhook_places: Sequence[Sequence[int]]
    followed: Mapping[TopicPartition, int]


@dataclass(slots=True)
class Metrics:
    """The counters of one gateway process."""

    registry: CollectorRegistry = field(default_factory=CollectorRegistry)
    counted: FoldCounts = field(default_factory=dict)
    counted_until: float = 0.0
    requests: Counter = field(init=False)
    seconds: Histogram = field(init=False)
    webhook_tries: Counter = field(init=False)
    answers: dict[tuple[str, str, str], tuple[Counter, Histogram]] = field(default_factory=dict)
    """What was found by its labels before, because finding it takes longer than counting."""

    def __post_init__(self) -> None:
        """Register them."""
        labels = ("method", "route", "status")
        self.requests = Counter(
            "datarun_http_requests", "Requests answered, by route and status.", labels, registry=self.registry
        )
        self.seconds = Histogram(
            "datarun_http_request_seconds",
            "Time to the end of the answer.",
            ("route",),
            buckets=BUCKETS,
            registry=self.registry,
        )
        self.webhook_tries = Counter(
            "datarun_webhook_tries", "Messages posted to webhooks, by result.", ("result",), registry=self.registry
        )

    def count(self, method: str, route: str, status: str, seconds: float) -> None:
        """Count an answer; methods, routes and statuses are few."""
        which = (method, route, status)
        known = self.answers.get(which)
        if known is None:
            known = self.answers[which] = self.requests.labels(*which), self.seconds.labels(route)
        known[0].inc()
        known[1].observe(seconds)


METRICS = web.AppKey("metrics", Metrics)


@web.middleware
async def observe(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Count every request, also one that ends without an answer."""
    metrics = request.app[METRICS]
    resource = request.match_info.route.resource
    route = resource.canonical if resource is not None else "none"
    began = time.perf_counter()
    status = "none"
    try:
        answer = await handler(request)
        status = str(answer.status)
    finally:
        metrics.count(request.method if resource else "any", route, status, time.perf_counter() - began)
    return answer


async def show(request: web.Request) -> web.StreamResponse:
    """GET /metrics."""
    gateway, metrics = request.app[GATEWAY], request.app[METRICS]
    letters, ends = await asyncio.gather(_letters(request.app[LETTERS]), _ends(gateway))
    snapshot = await _snapshot(gateway, metrics, letters)
    once = CollectorRegistry()
    once.register(_Once([*_known(snapshot), *_log(snapshot, ends)]))
    body = generate_latest(metrics.registry) + generate_latest(once)
    return web.Response(body=body, headers={"Content-Type": CONTENT_TYPE})


class _Once:
    """A collector of what was found a moment ago."""

    def __init__(self, found: list[Metric]) -> None:
        self._found = found

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics."""
        yield from self._found


async def _letters(letters: Letters) -> Look | None:
    with suppress(TimeoutError, LogUnavailable):
        return await letters.look(seconds=LOG_SECONDS)
    return letters.last


async def _snapshot(gateway: Gateway, metrics: Metrics, letters: Look | None) -> Snapshot | None:
    await _count(gateway, metrics)
    try:
        return await gateway.database.run(lambda cursor: _look(cursor, metrics.counted, letters, gateway.catalogue))
    except DatabaseUnavailable:
        return None


async def _count(gateway: Gateway, metrics: Metrics) -> None:
    if time.monotonic() < metrics.counted_until:
        return
    # The next scrape counts again, also when this one is not done in time: the rest is told all the same.
    metrics.counted_until = time.monotonic() + COUNT_SECONDS
    with suppress(DatabaseUnavailable):
        metrics.counted = await gateway.database.run(counts.folds)


def _look(cursor: Cursor, counted: FoldCounts, letters: Look | None, catalogue: Catalogue) -> Snapshot:
    unsent, waiting = counts.unsent(cursor)
    return Snapshot(
        depths=counts.queue_depths(cursor),
        fleet=counts.fleet(cursor, alive_seconds=ALIVE_SECONDS),
        folds=counted,
        dead_letters=None if letters is None else _open_letters(cursor, letters),
        unsent=unsent,
        waiting=waiting,
        projected=projected_offsets(cursor),
        webhooks=webhooks.states(cursor),
        webhook_places=webhooks.places(cursor),
        followed=read_offsets(cursor, catalogue=catalogue),
    )


def _open_letters(cursor: Cursor, letters: Look) -> int:
    known = letters.known
    return count_open(cursor, decided=known.decided(), others=known.open(), patience=letters.patience)


async def _ends(gateway: Gateway) -> Mapping[TopicPartition, int] | None:
    try:
        async with asyncio.timeout(LOG_SECONDS):
            return await gateway.log_end.of([gateway.catalogue.full_name(topic) for topic in PROJECTED])
    except (TimeoutError, LogUnavailable):
        return None


def _known(snapshot: Snapshot | None) -> Iterator[Metric]:
    yield GaugeMetricFamily("datarun_postgres_up", "Whether Postgres answers.", float(snapshot is not None))
    if snapshot is None:
        return
    depth = GaugeMetricFamily("datarun_queue_folds", "Folds that nobody has begun.", labels=["queue"])
    waiting = GaugeMetricFamily("datarun_queue_oldest_seconds", "How long the oldest waits.", labels=["queue"])
    for queue in QUEUES:
        found = snapshot.depths.get(queue, Depth(0, 0.0))
        depth.add_metric([queue], found.folds)
        waiting.add_metric([queue], found.oldest_seconds)
    folds = GaugeMetricFamily("datarun_folds", "Folds by state, in error by cause.", labels=["state", "cause"])
    for (state, cause), count in sorted(snapshot.folds.items()):
        folds.add_metric([state.value, cause], count)
    yield from (depth, waiting, folds)
    hooks = GaugeMetricFamily("datarun_webhooks", "Webhooks by state.", labels=["state"])
    for name, count in snapshot.webhooks.items():
        hooks.add_metric([name], count)
    yield hooks
    fleet = snapshot.fleet
    for name, text, value in (
        ("datarun_runners_alive", "Runners heard within ten seconds that do not stop.", fleet.alive),
        ("datarun_runner_slots", "Slots of living runners.", fleet.slots),
        ("datarun_runner_slots_busy", "Slots of living runners that hold something.", fleet.busy),
        ("datarun_outbox_records", "Accepted events that the log has not acknowledged.", snapshot.unsent),
        ("datarun_outbox_waiting_for_split_records", "Those of them that wait for a split.", snapshot.waiting),
        ("datarun_dead_letters", "Dead letters that nobody has dealt with.", snapshot.dead_letters),
    ):
        if value is not None:
            yield GaugeMetricFamily(name, text, float(value))


def _log(snapshot: Snapshot | None, ends: Mapping[TopicPartition, int] | None) -> Iterator[Metric]:
    yield GaugeMetricFamily("datarun_kafka_up", "Whether Kafka answers.", float(ends is not None))
    if snapshot is None or ends is None:
        return
    behind: dict[str, int] = {}
    for tp, end in ends.items():
        behind[tp.topic] = behind.get(tp.topic, 0) + max(0, end - snapshot.projected.get(tp, 0))
    lag = GaugeMetricFamily("datarun_projection_lag_records", "Records not projected yet.", labels=["topic"])
    for topic, count in sorted(behind.items()):
        lag.add_metric([topic], count)
    yield lag
    text = "Records of fold-events that the webhook furthest behind has not got to."
    yield GaugeMetricFamily("datarun_webhook_behind_records", text, float(_furthest_behind(snapshot, ends)))

    unread = sum(max(0, ends[tp] - offset) for tp, offset in snapshot.followed.items() if tp in ends)
    yield GaugeMetricFamily(
        "datarun_claims_lag_records", "Records not looked at yet for what producers claim.", float(unread)
    )


def _furthest_behind(snapshot: Snapshot, ends: Mapping[TopicPartition, int]) -> int:
    topic_ends = [end for tp, end in sorted(ends.items()) if tp.topic.endswith(FOLD_EVENTS.name)]
    behind = (
        sum(max(0, end - offset) for end, offset in zip(topic_ends, place, strict=False))
        for place in snapshot.webhook_places
    )
    return max(behind, default=0)
