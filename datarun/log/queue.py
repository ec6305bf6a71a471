"""The work queue on Kafka share groups: one topic of one partition a queue, one consumer each, polled by priority.

librdkafka's ShareConsumer is a preview, so no guarantee rests on it: leases, deliveries and first-terminal-wins do.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from functools import partial
from itertools import chain

import structlog
from confluent_kafka import AcknowledgeType, IllegalStateException, KafkaException, Message, ShareConsumer

from datarun.errors import LogUnavailable
from datarun.log import REQUEUED, EventLog, Position, Record, Work
from datarun.log.brokers import Brokers, client_config
from datarun.log.kafka import stored
from datarun.topics import SHARE_GROUP_CONFIG, Catalogue, Topic

IDLE_SECONDS = 0.005
FETCH_SECONDS = 0.02
"""How long a poll waits that must fetch first, measured: p50 2 ms, p95 7 ms. An open fetch answers without waiting."""
SEEN_SECONDS = 0.1
"""The same for a queue whose work was drained a moment ago: it is there, unless another consumer has it by now."""
APPEND_SECONDS = 10.0
FETCH_WAIT_MS = 100
FETCH_BYTES = 8192
"""The broker reads so much of a backlog to hand out one record of it; with librdkafka's 1 MiB that takes it 5 ms."""
REQUEUE_AT = int(SHARE_GROUP_CONFIG["share.delivery.count.limit"]) - 2
"""Releasing a record this often delivered would soon archive it unread; it is appended anew instead."""

log = structlog.get_logger(__name__)


class KafkaWorkQueue:
    """A WorkQueue over share groups; used by one thread."""

    def __init__(
        self, brokers: Brokers | str, queues: Sequence[tuple[str, Topic]], *, catalogue: Catalogue, event_log: EventLog
    ) -> None:
        self._log = event_log
        self._held: set[str] = set()
        self._fetching: set[str] = set()
        self._seen: set[str] = set()
        self._consumers = {
            name: _consumer(brokers, name, catalogue.full_name(topic), catalogue.share_group(topic))
            for name, topic in queues
        }

    def take(self, order: Sequence[str] | None = None) -> Work | None:
        """Return the next work of the first queue that has any, or None after 5 ms.

        A queue whose last work is neither accepted nor released yet is passed over: Kafka hands out no more of it.
        """
        asked = self._consumers if order is None else order
        idle = [name for name in asked if name not in self._held]
        for place, name in enumerate(idle):
            work = self._poll(name, self._patience(name))
            if work is not None:
                return self._overtaken(work, idle[:place])
        if idle:
            return self._poll(idle[0], IDLE_SECONDS)
        time.sleep(IDLE_SECONDS)
        return None

    def drain(self) -> Iterator[Work]:
        """Yield what open fetches have locked meanwhile; call it again and again while nothing can be taken.

        A poll that found nothing leaves a fetch open that locks the next record for as long as it likes to stay away
        from poll; one that found something leaves none. So a full consumer must look, but catches one record a queue.
        """
        for name in self._fetching - self._held:
            work = self._poll(name, 0)
            if work is not None:
                self._seen.add(name)
                yield work

    def accept(self, work: Work) -> None:
        """Finish a work for every consumer; sent at once and not waited for, so it may yet be delivered again."""
        self._held.discard(work.queue)
        self._acknowledge(work.queue, [(work, AcknowledgeType.ACCEPT)])

    def release(self, work: Work) -> None:
        """Give a work back; near the delivery limit it is appended anew and this copy accepted, so none is archived."""
        self._held.discard(work.queue)
        self._give_back(work)

    def close(self) -> None:
        """Leave the groups; what was not accepted goes back."""
        for consumer in self._consumers.values():
            consumer.close()

    def _poll(self, name: str, seconds: float) -> Work | None:
        consumer = self._consumers[name]
        try:
            messages = [message for message in consumer.poll(seconds) if message.error() is None]
        except KafkaException as error:
            raise LogUnavailable(str(error)) from error
        if not messages:
            self._fetching.add(name)
            return None
        self._fetching.discard(name)
        first, *rest = [_work(name, message) for message in messages]
        self._held.add(name)
        if rest:
            # A foreign producer's batch is handed out whole; each release would bring all of it nearer to its limit.
            log.info("queue.batch_taken_apart", queue=name, offset=first.record.offset, records=len(messages))
            self._requeue(name, rest)
        return first

    def _patience(self, name: str) -> float:
        if name in self._fetching:
            return 0
        if name in self._seen:
            self._seen.discard(name)
            return SEEN_SECONDS
        return FETCH_SECONDS

    def _overtaken(self, work: Work, before: Sequence[str]) -> Work:
        """Return what came meanwhile into a queue that was asked before, and give the work back; else the work."""
        for name in before:
            try:
                earlier = self._poll(name, 0)
            except LogUnavailable:
                # What is in hand must not be dropped: who asks next is told.
                return work
            if earlier is not None:
                self.release(work)
                return earlier
        return work

    def _give_back(self, work: Work) -> None:
        if work.delivery_count >= REQUEUE_AT:
            self._requeue(work.queue, [work])
        else:
            self._acknowledge(work.queue, [(work, AcknowledgeType.RELEASE)])

    def _requeue(self, name: str, works: Sequence[Work]) -> None:
        """Append works anew, each alone in its batch, and accept the old copies; release those that the log refuses."""
        copies = [(work, self._log.append(_copy(work))) for work in works]
        deadline = time.monotonic() + APPEND_SECONDS
        kinds = {True: AcknowledgeType.ACCEPT, False: AcknowledgeType.RELEASE}
        self._acknowledge(name, [(work, kinds[_is_appended(copy, deadline)]) for work, copy in copies])

    def _acknowledge(self, name: str, works: Sequence[tuple[Work, AcknowledgeType]]) -> None:
        consumer = self._consumers[name]
        try:
            for work, kind in works:
                consumer.acknowledge(_message(work), kind)
            # The broker takes a millisecond or two to store it, which nobody needs to wait for.
            consumer.commit_async()
        except (KafkaException, IllegalStateException) as error:
            _say_failed(name, [work.record.offset for work, _ in works], error)


def _consumer(brokers: Brokers | str, name: str, topic: str, group: str) -> ShareConsumer:
    consumer = ShareConsumer(
        {
            **client_config(brokers),
            "group.id": group,
            "share.acknowledgement.mode": "explicit",
            "max.poll.records": 1,
            "max.poll.interval.ms": 86_400_000,
            "fetch.wait.max.ms": FETCH_WAIT_MS,
            # librdkafka wants the first to be no smaller than the second; a larger record is fetched all the same.
            "fetch.max.bytes": FETCH_BYTES,
            "message.max.bytes": FETCH_BYTES,
            "reconnect.backoff.max.ms": 1000,
            "log_level": 2,
        }
    )
    consumer.set_acknowledgement_commit_callback(partial(_say_answered, name))
    consumer.subscribe([topic])
    return consumer


def _say_answered(queue: str, offsets: Mapping[object, Collection[int]], error: KafkaException | None) -> None:
    if error is not None:
        _say_failed(queue, sorted(chain.from_iterable(offsets.values())), error)


def _say_failed(queue: str, offsets: Sequence[int], error: Exception) -> None:
    log.warning("queue.not_acknowledged", queue=queue, offsets=offsets, error=str(error))


def _copy(work: Work) -> Record:
    record = work.record
    headers = tuple((name, value) for name, value in record.headers if value is not None and name != REQUEUED)
    headers += ((REQUEUED, f"{record.partition}:{record.offset}".encode()),)
    return Record(record.topic, record.key or b"", record.value or b"", headers, single=True)


def _is_appended(copy: Future[Position], deadline: float) -> bool:
    try:
        copy.result(max(0.0, deadline - time.monotonic()))
    except (LogUnavailable, FutureTimeoutError) as error:
        log.warning("queue.requeue_failed", error=str(error))
        return False
    return True


def _message(work: Work) -> Message:
    if not isinstance(work.token, Message):
        raise TypeError(f"{work} was not taken from this queue")
    return work.token


def _work(name: str, message: Message) -> Work:
    return Work(queue=name, record=stored(message), delivery_count=message.delivery_count() or 1, token=message)
