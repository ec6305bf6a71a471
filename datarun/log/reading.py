"""Reading one record again, from where it is known to be."""

from __future__ import annotations

import time
from contextlib import closing

from datarun.errors import LogUnavailable
from datarun.log import EventLog, Position, StoredRecord, TopicPartition

READ_SECONDS = 5.0


def record_at(log: EventLog, position: Position, *, seconds: float = READ_SECONDS) -> StoredRecord | None:
    """Return the record at a position, None if the log has it no more; raises LogUnavailable when it stays silent."""
    deadline = time.monotonic() + seconds
    start = {TopicPartition(position.topic, position.partition): position.offset}
    with closing(log.read(start)) as batches:  # type: ignore[type-var]
        for batch in batches:
            if batch:
                return batch[0] if batch[0].offset == position.offset else None
            if time.monotonic() > deadline:
                break
    raise LogUnavailable(f"{position} could not be read again")
