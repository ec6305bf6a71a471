"""How the topics of a broker differ from the catalogue, and what to do about each; nothing is changed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass

from datarun.envelope import check_route, decode
from datarun.errors import Misrouted, Rejected
from datarun.log import EventLog, StoredRecord, TopicPartition
from datarun.topics import TOPICS, Catalogue, Kind, Topic

LOOKED_AT = 200
"""Of each partition so many of the last records say how their producers work."""


@dataclass(frozen=True, slots=True)
class Difference:
    """What is not as declared, and the remedy."""

    what: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.what}; {self.remedy}"


def missing(name: str) -> Difference:
    """Return that a topic is not there."""
    return Difference(f"{name} is missing", "datarun topics create")


def other_partitions(name: str, found: int, topic: Topic) -> Difference:
    """Return that a topic has another number of partitions."""
    return Difference(
        f"{name}: {found} partitions, the catalogue says {topic.partitions}",
        "a partition count can never change without taking keys from their order: use another --topic-prefix, or,"
        " if nothing is in it, delete the topic and run `datarun topics create`",
    )


def other_config(name: str, key: str, found: str | None, declared: str) -> Difference:
    """Return that a topic keeps or stamps its records in another way."""
    return Difference(
        f"{name}: {key}={found}, the catalogue says {declared}",
        f"kafka-configs.sh --alter --entity-type topics --entity-name {name} --add-config {key}=[{declared}]",
    )


def other_group(name: str) -> Difference:
    """Return that a share group would hand out records in another way."""
    return Difference(f"the share group {name} has other settings", "datarun topics create")


def other_producers(event_log: EventLog, catalogue: Catalogue) -> list[Difference]:
    """Return which of the last records were written with another key or partitioner than their event's."""
    found = []
    for topic in TOPICS:
        if topic.carries and topic.kind is not Kind.STATE:
            found += list(_foreign(event_log, catalogue, topic))
    return found


def _foreign(event_log: EventLog, catalogue: Catalogue, topic: Topic) -> Iterator[Difference]:
    """Yield the first misrouted record of each partition."""
    ends = event_log.end_offsets([catalogue.full_name(topic)])
    start = {tp: max(end - LOOKED_AT, 0) for tp, end in ends.items() if end}
    seen: set[TopicPartition] = set()
    for batch in event_log.read(start, until_end=True) if start else ():
        for record in batch:
            tp = TopicPartition(record.topic, record.partition)
            why = None if tp in seen else _misrouted(record, catalogue)
            if why is not None:
                seen.add(tp)
                yield Difference(
                    f"{record.topic}[{record.partition}] offset {record.offset}: {why}",
                    "write with datarun.producer, or as docs/producers.md says",
                )


def _misrouted(record: StoredRecord, catalogue: Catalogue) -> str | None:
    with suppress(Rejected):
        event = decode(record.value, record.headers)
        try:
            check_route(event, record, catalogue=catalogue)
        except Misrouted as error:
            return str(error)
    return None
