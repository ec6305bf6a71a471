"""The event log and the work queue in memory, for unit tests; the same conformance suite holds them to Kafka's ways."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from time import time

from datarun.log import Position, Record, StoredRecord, TopicPartition, Work
from datarun.partitioner import partition_of
from datarun.topics import Catalogue, Topic


class MemoryLog:
    """An EventLog in memory; lost with its process."""

    def __init__(self, catalogue: Catalogue) -> None:
        self._catalogue = catalogue
        self._partitions: dict[TopicPartition, list[StoredRecord]] = {}
        self._grown = threading.Condition()

    def append(self, record: Record) -> Future[Position]:
        """Append a record; the future has ended when this returns."""
        count = self._catalogue.topic(record.topic).partitions
        tp = TopicPartition(record.topic, partition_of(record.key, count))
        with self._grown:
            records = self._partitions.setdefault(tp, [])
            stored = StoredRecord(
                tp.topic, tp.partition, len(records), record.key, record.value, record.headers, int(time() * 1000)
            )
            records.append(stored)
            self._grown.notify_all()
        future: Future[Position] = Future()
        future.set_result(stored.position)
        return future

    def read(
        self, start: Mapping[TopicPartition, int], *, until_end: bool = False, idle_seconds: float = 0.1
    ) -> Iterator[list[StoredRecord]]:
        """Yield batches from the given offsets on, an empty one when idle; with `until_end` stop at the present end."""
        position = dict(start)
        end = self.end_offsets(sorted({tp.topic for tp in start}))
        while not (until_end and all(position[tp] >= end[tp] for tp in start)):
            with self._grown:
                batch = self._after(position)
                if not batch:
                    self._grown.wait(idle_seconds)
                    batch = self._after(position)
            for record in batch:
                position[TopicPartition(record.topic, record.partition)] = record.offset + 1
            yield batch

    def end_offsets(self, topics: Sequence[str]) -> dict[TopicPartition, int]:
        """Return, for every partition of the topics, the offset the next record will get."""
        return {
            (tp := TopicPartition(topic, partition)): len(self._partitions.get(tp, ()))
            for topic in topics
            for partition in range(self._catalogue.topic(topic).partitions)
        }

    def start_offsets(self, topics: Sequence[str]) -> dict[TopicPartition, int]:
        """Return 0 for every partition of the topics."""
        return dict.fromkeys(self.end_offsets(topics), 0)

    def offsets_at(self, partitions: Iterable[TopicPartition], timestamp_ms: int) -> dict[TopicPartition, int]:
        """Return each partition's first offset that is not older than a moment, or its end."""
        found = {tp: self._partitions.get(tp, []) for tp in partitions}
        return {
            tp: next((record.offset for record in records if record.timestamp_ms >= timestamp_ms), len(records))
            for tp, records in found.items()
        }

    def close(self) -> None:
        """Nothing is unsent."""

    def _after(self, position: Mapping[TopicPartition, int]) -> list[StoredRecord]:
        return [record for tp, offset in position.items() for record in self._partitions.get(tp, [])[offset:]]


class MemoryWorkQueue:
    """A WorkQueue over a MemoryLog; consumers that share `state` are one group."""

    def __init__(
        self, log: MemoryLog, queues: Sequence[tuple[str, Topic]], *, catalogue: Catalogue, state: QueueState
    ) -> None:
        self._log = log
        self._queues = {name: TopicPartition(catalogue.full_name(topic), 0) for name, topic in queues}
        self._state = state
        self._held: list[Work] = []

    def take(self, order: Sequence[str] | None = None) -> Work | None:
        """Return the next work of the first queue that has any, or None."""
        for name in self._queues if order is None else order:
            tp = self._queues[name]
            work = self._state.acquire(name, self._log, tp)
            if work is not None:
                self._held.append(work)
                return work
        return None

    def drain(self) -> Iterator[Work]:
        """Nothing is ever in flight."""
        return iter(())

    def accept(self, work: Work) -> None:
        """Finish a work for every consumer."""
        self._held.remove(work)

    def release(self, work: Work) -> None:
        """Give a work back; another consumer gets it at once."""
        self._held.remove(work)
        self._state.give_back(work)

    def close(self) -> None:
        """Release what is held."""
        for work in list(self._held):
            self.release(work)


class QueueState:
    """What a share group remembers: the next offset of each queue and what was given back."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._next: dict[TopicPartition, int] = {}
        self._returned: dict[str, deque[Work]] = {}

    def acquire(self, queue: str, log: MemoryLog, tp: TopicPartition) -> Work | None:
        """Hand out what was given back first, then the next unread record."""
        with self._lock:
            returned = self._returned.setdefault(queue, deque())
            if returned:
                again = returned.popleft()
                return Work(queue, again.record, again.delivery_count + 1, object())
            unread = log.read({tp: self._next.get(tp, 0)}, until_end=True)
            record = next((record for batch in unread for record in batch), None)
            if record is None:
                return None
            self._next[tp] = record.offset + 1
            return Work(queue, record, 1, object())

    def give_back(self, work: Work) -> None:
        """Remember a released work for the next consumer."""
        with self._lock:
            self._returned.setdefault(work.queue, deque()).append(work)
