"""The Faust app: one agent over every projected topic, acknowledging what is committed in the read model.

Only `noack().noack_take()` loses nothing when an agent fails, and only if the process then ends: Faust acknowledges
in `finally` everywhere else. So whatever is unexpected here ends the process, and the supervisor starts it anew.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Mapping
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import faust
import structlog
from faust.types import TP
from mode import CrashingSupervisor

from datarun.log import StoredRecord, TopicPartition
from datarun.projection.apply import Applied
from datarun.projection.offsets import Offsets
from datarun.settings import Settings
from datarun.topics import PROJECTED
from services.projector.credentials import credentials_of
from services.projector.fetches import Fetches, Run, stored, transport_of

FETCHES_A_BATCH = 1
WITHIN_SECONDS = 0.05
"""Only how often an idle stream looks around: a batch of one is full at once."""
EXIT_UNEXPECTED = 70

log = structlog.get_logger(__name__)


class Sink(Protocol):
    """Where records go, and how far they have come."""

    def apply(self, records: list[StoredRecord]) -> Applied:
        """Commit records; returns only then."""
        ...

    def positions(self, starts: Offsets) -> Offsets:
        """Return where to read on, given the first offset each partition still has."""
        ...


@dataclass(frozen=True, slots=True)
class Group:
    """The consumer group, and how long Kafka waits for a member that was killed."""

    name: str
    session_seconds: float


@dataclass(frozen=True, slots=True)
class Shell:
    """What the app is put into: the executor has one thread, `on_ready` is told how many records are left."""

    sink: Sink
    executor: Executor
    datadir: Path
    on_ready: Callable[[int], None]


def make_app(settings: Settings, group: Group, shell: Shell) -> faust.App:
    """Return the projector's app."""
    behind = [0]

    async def positions(starts: Mapping[TP, int], ends: Mapping[TP, int]) -> Mapping[TP, int]:
        first = {TopicPartition(*tp): offset for tp, offset in starts.items()}
        offsets = await asyncio.get_running_loop().run_in_executor(shell.executor, shell.sink.positions, first)
        found = {tp: offsets[TopicPartition(*tp)] for tp in ends}
        _refuse_other_log(found, ends)
        behind[0] = sum(ends[tp] - found[tp] for tp in ends)
        return found

    app = faust.App(
        group.name,
        broker=f"kafka://{settings.kafka}",
        broker_credentials=credentials_of(settings.brokers.security),
        store="memory://",
        datadir=str(shell.datadir),
        autodiscover=False,
        web_enabled=False,
        topic_allow_declare=False,
        topic_disable_leader=True,
        consumer_auto_offset_reset="earliest",
        consumer_max_fetch_size=1024**2,
        # Topics made after the projector was started are found this soon.
        consumer_metadata_max_age_ms=10_000,
        broker_commit_interval=1.0,
        broker_session_timeout=group.session_seconds,
        broker_heartbeat_interval=group.session_seconds / 6,
        broker_rebalance_timeout=10.0,
        broker_request_timeout=30.0,
        stream_wait_empty=False,
        # What waits is not applied together, so it had better wait in Kafka.
        stream_buffer_maxsize=1,
        agent_supervisor=CrashingSupervisor,
        worker_redirect_stdouts=False,
    )
    app.transport = transport_of(app, positions)
    app.on_startup_finished = lambda: _tell(shell.on_ready, behind)
    topics = [settings.catalogue.full_name(topic) for topic in PROJECTED]
    app.agent(app.topic(*topics, schema=Fetches()), name="projector", concurrency=1)(_agent(shell.sink, shell.executor))
    return app


def _agent(sink: Sink, executor: Executor) -> Callable[[Any], Any]:
    async def project(stream: Any) -> None:
        loop = asyncio.get_running_loop()
        async for events in stream.noack().noack_take(FETCHES_A_BATCH, within=WITHIN_SECONDS):
            runs = [run for event in events for run in event.message.value]
            try:
                await loop.run_in_executor(executor, _project, sink, runs)
            except Exception:
                log.exception("projector.failed")
                os._exit(EXIT_UNEXPECTED)
            for event in events:
                await stream.ack(event)

    return project


def _project(sink: Sink, runs: list[Run]) -> None:
    applied = sink.apply([record for run in runs for record in stored(run)])
    if applied.dead:
        log.warning("projector.dead_letters", count=applied.dead)


async def _tell(on_ready: Callable[[int], None], behind: list[int]) -> None:
    on_ready(behind[0])


def _refuse_other_log(positions: Mapping[TP, int], ends: Mapping[TP, int]) -> None:
    ahead = [f"{tp.topic}[{tp.partition}] {positions[tp]} > {ends[tp]}" for tp in ends if positions[tp] > ends[tp]]
    if ahead:
        # Reading on would skip as many new records as the read model is ahead.
        log.critical("projector.read_model_ahead_of_log", partitions=ahead, advice="another Kafka? drop the schema rm")
        os._exit(EXIT_UNEXPECTED)
