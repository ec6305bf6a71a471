"""Holes: offsets that no reader will ever see. Kafka's transactions leave them, for their ends and what they took back.

A hole is not a gap: what was deleted, or skipped by mistake, was there to be read once.
"""

from __future__ import annotations

from contextlib import closing

from datarun.log import EventLog, TopicPartition


def is_hole(log: EventLog, tp: TopicPartition, start: int, stop: int) -> bool:
    """Tell whether the log holds nothing to read from `start` to before `stop`; raises LogUnavailable."""
    if log.start_offsets([tp.topic])[tp] > start:
        return False
    with closing(log.read({tp: start}, until_end=True)) as batches:  # type: ignore[type-var]
        for batch in batches:
            if batch:
                return batch[0].offset >= stop
    return True
