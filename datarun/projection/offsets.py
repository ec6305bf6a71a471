"""How far the projection has come: the offsets that are committed in the transaction of what they stand for."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, cast

from psycopg2.extensions import cursor as Cursor

from datarun.errors import DatarunError
from datarun.log import StoredRecord, TopicPartition
from datarun.projection.statements import ADD_OFFSETS, LOCK_OFFSETS, MOVE_OFFSETS, in_schema
from datarun.projection.text import json_text
from datarun.topics import Catalogue, Kind

Offsets = dict[TopicPartition, int]


class Gap(DatarunError):
    """Records between the projected offset and this one were never seen."""

    def __init__(self, partition: TopicPartition, *, expected: int, found: int) -> None:
        super().__init__(f"{partition.topic}[{partition.partition}]: expected offset {expected}, got {found}")
        self.partition, self.expected, self.found = partition, expected, found


def lock_offsets(cursor: Cursor, partitions: Iterable[TopicPartition], *, schema: str) -> Offsets:
    """Return the next offset of each partition, its row locked until the transaction ends.

    The lock serialises an old and a new owner of a partition; the order keeps two projectors from a deadlock.
    """
    wanted = sorted(partitions)
    found = _locked(cursor, wanted, schema=schema)
    if len(found) < len(wanted):
        rows = [{"topic": tp.topic, "partition": tp.partition} for tp in wanted if tp not in found]
        cursor.execute(in_schema(ADD_OFFSETS, schema), (json_text(rows),))
        found = _locked(cursor, wanted, schema=schema)
    return found


def read_offsets(cursor: Cursor, *, schema: str) -> Offsets:
    """Return the next offset of every partition the projection has seen."""
    cursor.execute(in_schema('select topic, partition, next_offset from "{schema}".projection_offset', schema))
    return {TopicPartition(topic, partition): offset for topic, partition, offset in cursor.fetchall()}


def unseen(records: Sequence[StoredRecord], offsets: Offsets, *, catalogue: Catalogue) -> list[StoredRecord]:
    """Return the records not projected yet and move the offsets past them; raises Gap where records are missing."""
    may_jump = {tp for tp in offsets if catalogue.topic(tp.topic).kind is Kind.STATE}
    fresh: list[StoredRecord] = []
    for record in records:
        # Equal to the partition, and made in a tenth of the time.
        tp = cast("TopicPartition", record[:2])
        expected = offsets[tp]
        if record.offset < expected:
            continue
        if record.offset > expected and tp not in may_jump:
            raise Gap(TopicPartition(*tp), expected=expected, found=record.offset)
        fresh.append(record)
        offsets[tp] = record.offset + 1
    return fresh


def move_offsets(cursor: Cursor, offsets: Offsets, *, schema: str) -> None:
    """Set offsets that were locked before."""
    cursor.execute(in_schema(MOVE_OFFSETS, schema), (json_text(rows(offsets)),))


def rows(offsets: Offsets) -> list[dict[str, Any]]:
    """Return the offsets as rows of their table."""
    return [{"topic": tp.topic, "partition": tp.partition, "next_offset": offset} for tp, offset in offsets.items()]


def _locked(cursor: Cursor, wanted: Sequence[TopicPartition], *, schema: str) -> Offsets:
    if not wanted:
        return {}
    cursor.execute(in_schema(LOCK_OFFSETS, schema), (tuple(wanted),))
    return {TopicPartition(topic, partition): offset for topic, partition, offset in cursor.fetchall()}
