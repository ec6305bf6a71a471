"""What the rest of datarun needs of a log and of a work queue; Kafka implements both, memory does for unit tests.

Delivery is at least once, order holds per topic and partition, and there is no conditional append.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

REQUEUED = "datarun-requeued"
"""Header of a record that a consumer appended anew instead of giving it back: it may be older than it looks."""


class TopicPartition(NamedTuple):
    """One ordered sequence of records."""

    topic: str
    partition: int


class Position(NamedTuple):
    """Where a record is in the log."""

    topic: str
    partition: int
    offset: int


@dataclass(frozen=True, slots=True)
class Record:
    """A record to append; `single` keeps it alone in its batch, as a share group needs it."""

    topic: str
    key: bytes
    value: bytes
    headers: tuple[tuple[str, bytes], ...] = ()
    single: bool = False


class StoredRecord(NamedTuple):
    """A record as the log holds it; the timestamp (ms) is the broker's or the producer's and orders nothing."""

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes | None]] = ()
    timestamp_ms: int = 0

    @property
    def position(self) -> Position:
        """Where this record is."""
        return Position(self.topic, self.partition, self.offset)


@dataclass(frozen=True, slots=True)
class Work:
    """A record taken from a queue: this consumer's alone until it is accepted, released or its lock lapses."""

    queue: str
    record: StoredRecord
    delivery_count: int
    token: object = field(repr=False, compare=False)


class EventLog(Protocol):
    """Append and read records."""

    def append(self, record: Record) -> Future[Position]:
        """Append a record; the future ends when all in-sync replicas have it, or with LogUnavailable."""
        ...

    def read(
        self, start: Mapping[TopicPartition, int], *, until_end: bool = False, idle_seconds: float = 0.1
    ) -> Iterator[list[StoredRecord]]:
        """Yield batches from the given offsets on, an empty one when idle; with `until_end` stop at the present end."""
        ...

    def end_offsets(self, topics: Sequence[str]) -> dict[TopicPartition, int]:
        """Return, for every partition of the topics, the offset the next one to read will get."""
        ...

    def start_offsets(self, topics: Sequence[str]) -> dict[TopicPartition, int]:
        """Return, for every partition of the topics, the first offset that is kept."""
        ...

    def offsets_at(self, partitions: Iterable[TopicPartition], timestamp_ms: int) -> dict[TopicPartition, int]:
        """Return each partition's first offset that is not older than a moment, or its end; raises LogUnavailable."""
        ...

    def close(self) -> None:
        """Send what is unsent, within a bound, and let go."""
        ...


class WorkQueue(Protocol):
    """Take work from queues."""

    def take(self, order: Sequence[str] | None = None) -> Work | None:
        """Return the next work of the first queue that has any, or None after a few milliseconds.

        `order` names the queues to ask; by default all, as they were given.
        """
        ...

    def drain(self) -> Iterator[Work]:
        """Yield what open fetches have locked meanwhile; call it again and again while nothing can be taken."""
        ...

    def accept(self, work: Work) -> None:
        """Finish a work for every consumer; not waited for: a lock that lapses first delivers it again."""
        ...

    def release(self, work: Work) -> None:
        """Give a work back; another consumer gets it at once."""
        ...

    def close(self) -> None:
        """Release what is held and leave."""
        ...
