"""Applying records of a log with holes: a gap is looked up in the log, and passed over when nothing was ever there."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from psycopg2.extensions import connection as Connection

from datarun.log import EventLog, StoredRecord, TopicPartition
from datarun.log.holes import is_hole
from datarun.projection.apply import Applied, apply
from datarun.projection.offsets import Gap, lock_offsets, move_offsets
from datarun.readmodel import SCHEMA
from datarun.topics import Catalogue

OpenLog = Callable[[], EventLog]


def apply_over_holes(
    records: Sequence[StoredRecord],
    connection: Connection,
    *,
    catalogue: Catalogue,
    open_log: OpenLog,
    schema: str = SCHEMA,
) -> Applied:
    """Bring records into the read model as `apply` does; raises Gap only where records are missing in truth.

    Raises LogUnavailable as well, having changed nothing: the same call may then be made again.
    """
    for _ in range(len(records)):
        try:
            return apply(records, connection, catalogue=catalogue, schema=schema)
        except Gap as gap:
            if not is_hole(open_log(), gap.partition, gap.expected, gap.found):
                raise
            pass_over(connection, gap.partition, gap.expected, gap.found, schema=schema)
    return apply(records, connection, catalogue=catalogue, schema=schema)


def pass_over(connection: Connection, tp: TopicPartition, start: int, stop: int, *, schema: str = SCHEMA) -> None:
    """Move the projection from the first offset of a hole to the first after it, if it stands there."""
    with connection, connection.cursor() as cursor:
        if lock_offsets(cursor, [tp], schema=schema)[tp] == start:
            move_offsets(cursor, {tp: stop}, schema=schema)
