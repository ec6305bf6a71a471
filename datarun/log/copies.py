"""Copies of records: each says where it was copied from, so that no copy goes round in a circle.

A request is marked as handed out before: runners start it only if the gateway says that it is still open.
"""

from __future__ import annotations

from datarun.log import REQUEUED, Position, Record, StoredRecord
from datarun.topics import Kind, Topic

REPLAYED = "datarun-replayed"
"""Header of a copy, once for each time it was copied: cluster/topic:partition:offset of what it is a copy of."""


def copy_of(record: StoredRecord, *, cluster: str, topic: Topic, name: str) -> Record:
    """Return a record's copy for a topic, which Kafka knows by `name`; `cluster` is the id of where the record is."""
    is_queued = topic.kind is Kind.QUEUE
    headers = [(header, value) for header, value in record.headers if value is not None and header != REQUEUED]
    if is_queued:
        headers.append((REQUEUED, f"{record.partition}:{record.offset}".encode()))
    headers.append((REPLAYED, f"{cluster}/{_text(record.position)}".encode()))
    return Record(name, record.key or b"", record.value or b"", tuple(headers), single=is_queued)


def came_from(record: StoredRecord, *, cluster: str, topic: str) -> bool:
    """Tell whether the record, or what it is a copy of, was copied from this topic of this cluster."""
    origin = f"{cluster}/{topic}:".encode()
    return any(name == REPLAYED and value is not None and value.startswith(origin) for name, value in record.headers)


def _text(position: Position) -> str:
    return f"{position.topic}:{position.partition}:{position.offset}"
