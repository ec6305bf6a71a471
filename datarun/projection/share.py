"""A share of the log's partitions, projected by one loop: what a rebuild does, in this process or in several.

Because the projection commutes, shares may be projected side by side: one decodes while another writes.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from psycopg2.extensions import connection as Connection

from datarun.log import EventLog, StoredRecord, TopicPartition
from datarun.projection.holes import apply_over_holes
from datarun.projection.offsets import Offsets
from datarun.topics import Catalogue

RECORDS_A_BATCH = 10_000
BYTES_A_BATCH = 32 * 1024**2


@dataclass(frozen=True, slots=True)
class Ground:
    """Where records come from and where rows go; it can be sent to another process."""

    open_log: Callable[[], EventLog]
    open_database: Callable[[], Connection]
    catalogue: Catalogue
    schema: str


def project_share(ground: Ground, start: Offsets, until: Offsets) -> int:
    """Apply the records of some partitions from `start` up to `until` and return how many there were."""
    with opened(ground) as (event_log, connection), _uncollected():
        return project(ground, event_log, connection, start, until)


def project(ground: Ground, event_log: EventLog, connection: Connection, start: Offsets, until: Offsets) -> int:
    """Do the same with a log and a database that are open."""
    return sum(
        apply_over_holes(
            batch, connection, catalogue=ground.catalogue, open_log=lambda: event_log, schema=ground.schema
        ).count
        for batch in batches(event_log, start, until)
    )


@contextmanager
def opened(ground: Ground) -> Iterator[tuple[EventLog, Connection]]:
    """Yield a log to read and a database to write, closed in the end."""
    event_log, connection = ground.open_log(), ground.open_database()
    try:
        with connection, connection.cursor() as cursor:
            # As in the projector: what a crash of Postgres takes, it takes with its offsets.
            cursor.execute("set synchronous_commit = off")
        yield event_log, connection
    finally:
        connection.close()
        event_log.close()


@contextmanager
def _uncollected() -> Iterator[None]:
    """Keep the garbage collector still: looking for cycles, which records never form, takes a third of the time."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def batches(event_log: EventLog, start: Offsets, until: Offsets) -> Iterator[list[StoredRecord]]:
    """Yield the records of some partitions from `start` up to `until`, thousands at a time."""
    batch: list[StoredRecord] = []
    size = 0
    for records in event_log.read(start, until_end=True):
        wanted = [one for one in records if one.offset < until[TopicPartition(one.topic, one.partition)]]
        batch += wanted
        size += sum(len(one.value or b"") for one in wanted)
        if len(batch) >= RECORDS_A_BATCH or size >= BYTES_A_BATCH:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch
