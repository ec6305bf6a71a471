"""Every topic: its key, partitions, retention, events, writers and readers, and the share groups that read the queues.

Partition counts are for ever: changing one maps keys anew and breaks the order of a fold's events.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from datarun import events
from datarun.errors import Misrouted
from datarun.events import Event, FoldRequested, Priority
from datarun.signatures import Signatures

EVENT_PARTITIONS = 12
DEFAULT_PREFIX = "datarun."
_BROKER_TIME = {"message.timestamp.type": "LogAppendTime"}
_FOR_EVER = {"cleanup.policy": "delete", "retention.ms": "-1", "retention.bytes": "-1", **_BROKER_TIME}

SHARE_GROUP_CONFIG = {
    "share.auto.offset.reset": "earliest",
    "share.record.lock.duration.ms": "15000",
    "share.delivery.count.limit": "10",
    "share.isolation.level": "read_committed",
}
"""Configs of every share group; Kafka's own default offset reset is `latest`, which would lose the first folds,
and its isolation level hands out what a transaction has taken back."""


class Kind(StrEnum):
    """How a topic is read: in order by offset, or taken record by record by a share group."""

    EVENTS = "events"
    QUEUE = "queue"
    STATE = "state"


@dataclass(frozen=True, slots=True)
class Topic:
    """One topic of the log; `name` is without the installation's prefix."""

    name: str
    kind: Kind
    key: str
    carries: tuple[type[Event], ...]
    writers: tuple[str, ...]
    readers: tuple[str, ...]
    partitions: int = EVENT_PARTITIONS
    config: dict[str, str] = field(default_factory=lambda: dict(_FOR_EVER), hash=False)


DATA_REQUESTS = Topic(
    "data-requests",
    Kind.QUEUE,
    "raw_data_id",
    (events.SplitRequested,),
    ("gateway", "producer", "reaper", "runner"),
    ("runner", "projector", "gateway", "verifier"),
    partitions=1,
)
DATA_EVENTS = Topic(
    "data-events",
    Kind.EVENTS,
    "raw_data_id",
    (events.DataUploaded, events.DataSplit, events.SplitFailed),
    ("gateway", "producer", "runner"),
    ("projector", "gateway", "producer"),
)
FOLD_REQUESTS_HIGH = Topic(
    "fold-requests.high",
    Kind.QUEUE,
    "fold_id",
    (FoldRequested,),
    ("gateway", "producer", "reaper", "runner"),
    ("runner", "projector", "gateway", "verifier"),
    partitions=1,
)
FOLD_REQUESTS_LOW = Topic(
    "fold-requests.low",
    Kind.QUEUE,
    "fold_id",
    (FoldRequested,),
    ("gateway", "producer", "reaper", "runner"),
    ("runner", "projector", "gateway", "verifier"),
    partitions=1,
)
FOLD_EVENTS = Topic(
    "fold-events",
    Kind.EVENTS,
    "fold_id",
    (
        events.FoldStarted,
        events.FoldTrained,
        events.FoldTested,
        events.FoldFailed,
        events.FoldLost,
        events.FoldHandedBack,
        events.FoldReproduced,
        events.FoldCancelled,
        events.PredictionsFetched,
    ),
    ("runner", "reaper", "gateway", "verifier"),
    ("projector", "gateway", "verifier"),
)
FOLD_CONTROL = Topic(
    "fold-control",
    Kind.STATE,
    "fold_id",
    (events.FoldFenced,),
    ("gateway",),
    ("runner",),
    config={"cleanup.policy": "compact", **_BROKER_TIME},
)
RUNNER_STATUS = Topic(
    "runner-status",
    Kind.STATE,
    "runner_id",
    (events.RunnerHeartbeat,),
    ("runner",),
    ("projector", "runner", "people"),
    config={"cleanup.policy": "compact,delete", "retention.ms": "3600000", "segment.ms": "600000", **_BROKER_TIME},
)
ENVIRONMENTS = Topic(
    "environments",
    Kind.EVENTS,
    "environment",
    (events.PackageRequested, events.PackageInstalled, events.PackageFailed),
    ("people", "runner"),
    ("runner", "verifier", "people"),
    partitions=1,
)
DEAD_LETTERS = Topic(
    "dead-letters",
    Kind.EVENTS,
    "the refused record's",
    (),
    ("runner", "gateway", "people"),
    ("people",),
    partitions=1,
)

TOPICS: tuple[Topic, ...] = (
    DATA_REQUESTS,
    DATA_EVENTS,
    FOLD_REQUESTS_HIGH,
    FOLD_REQUESTS_LOW,
    FOLD_EVENTS,
    FOLD_CONTROL,
    RUNNER_STATUS,
    ENVIRONMENTS,
    DEAD_LETTERS,
)
"""The whole log."""

PROJECTED: tuple[Topic, ...] = (
    DATA_REQUESTS,
    DATA_EVENTS,
    FOLD_REQUESTS_HIGH,
    FOLD_REQUESTS_LOW,
    FOLD_EVENTS,
    RUNNER_STATUS,
)
"""What the read model is made from."""

QUEUES: dict[str, Topic] = {"H": FOLD_REQUESTS_HIGH, "L": FOLD_REQUESTS_LOW, "data": DATA_REQUESTS}
"""The runner's names for the queues it can take work from."""

_BY_TYPE = {carried: topic for topic in TOPICS for carried in topic.carries}
QUEUE_OF = {Priority.HIGH: FOLD_REQUESTS_HIGH, Priority.LOW: FOLD_REQUESTS_LOW}
"""Where a fold waits."""


def topic_of(event: Event) -> Topic:
    """Return the topic an event belongs to."""
    # `isinstance` asks pydantic's metaclass: ten times as slow, a million times over in a replay.
    if type(event) is FoldRequested:
        return QUEUE_OF[event.priority]
    return _BY_TYPE[type(event)]


@dataclass(frozen=True, slots=True)
class Catalogue:
    """The topics of one installation: the catalogue under a prefix, so that tests and tenants can share a broker."""

    prefix: str = DEFAULT_PREFIX
    signatures: Signatures | None = None
    """What proves who wrote an event; without, who may append is the broker's to say alone."""

    def full_name(self, topic: Topic) -> str:
        """Return the name Kafka knows the topic by."""
        return self.prefix + topic.name

    def topic(self, full_name: str) -> Topic:
        """Return the topic of a Kafka name; raises Misrouted for a name outside the catalogue."""
        for topic in TOPICS:
            if self.prefix + topic.name == full_name:
                return topic
        message = f"topic {full_name} is not in the catalogue"
        raise Misrouted(message)

    def share_group(self, topic: Topic) -> str:
        """Return the share group of the runners that take work from a queue."""
        return f"{self.prefix}runners.{topic.name}"
