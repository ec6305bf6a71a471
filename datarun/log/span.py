"""A stretch of some partitions between two moments, read within bounds: all of it, or an error, never a part."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass

from datarun.errors import DatarunError, Retryable
from datarun.log import EventLog, StoredRecord, TopicPartition


class TooLong(DatarunError):
    """There is more in the log than may be read for this."""

    def __init__(self, records: int) -> None:
        super().__init__(f"the log has {records:,} records between the two")
        self.records = records


class TooSlow(Retryable):
    """The log could not be read in time."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """How much may be read, and until when by the monotonic clock."""

    most_records: int
    deadline: float


@dataclass(frozen=True, slots=True)
class Span:
    """From which offset to which, exclusively, each partition is meant."""

    start: Mapping[TopicPartition, int]
    end: Mapping[TopicPartition, int]

    @classmethod
    def between(
        cls,
        log: EventLog,
        topics: Sequence[str],
        *,
        since_ms: int,
        until_ms: int,
        partitions: Collection[int] | None = None,
    ) -> Span:
        """Return what was appended from a moment to another, both included, by the broker's clock.

        Raises LogUnavailable.
        """
        known = log.end_offsets(topics)
        start, end = log.offsets_at(known, since_ms), log.offsets_at(known, until_ms + 1)
        wanted = [tp for tp in start if start[tp] < end[tp] and (partitions is None or tp.partition in partitions)]
        return cls({tp: start[tp] for tp in wanted}, {tp: end[tp] for tp in wanted})

    def __len__(self) -> int:
        return sum(self.end.values()) - sum(self.start.values())

    def records(self, log: EventLog, bounds: Bounds) -> Iterator[StoredRecord]:
        """Yield the records, each partition's in order; raises TooLong at once, TooSlow, LogUnavailable."""
        if len(self) > bounds.most_records:
            raise TooLong(len(self))
        ends = log.end_offsets(sorted({tp.topic for tp in self.start}))
        # Where the log ends a hole may be the last, which no record tells of; the reader itself stops there.
        whole = [tp for tp in self.start if self.end[tp] >= ends[tp]]
        for tps in (whole, [tp for tp in self.start if self.end[tp] < ends[tp]]):
            if tps:
                yield from self._read(log, tps, bounds)

    def _read(self, log: EventLog, tps: Sequence[TopicPartition], bounds: Bounds) -> Iterator[StoredRecord]:
        left = set(tps)
        with closing(log.read({tp: self.start[tp] for tp in tps}, until_end=True)) as batches:  # type: ignore[type-var]
            for batch in batches:
                for record in batch:
                    tp = TopicPartition(record.topic, record.partition)
                    if record.offset < self.end[tp]:
                        yield record
                    if record.offset >= self.end[tp] - 1:
                        left.discard(tp)
                if not left:
                    return
                if time.monotonic() > bounds.deadline:
                    raise TooSlow
