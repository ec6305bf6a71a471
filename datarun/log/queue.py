"""The work queue on Kafka share groups: one topic of one partition a queue, one consumer each, polled by priority.

librdkafka's ShareConsumer is a preview, so no guarantee rests on it: leases, deliveries and first-terminal-wins do.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import TimeoutError as FutureTimeoutError

import structlog
from confluent_kafka import AcknowledgeType, IllegalStateException, KafkaException, Message, ShareConsumer

from datarun.errors import LogUnavailable
from datarun.log import EventLog, Record, Work
from datarun.log.kafka import stored
from datarun.topics import SHARE_GROUP_CONFIG, Catalogue, Topic

POLL_SECONDS = 0.005
COMMIT_SECONDS = 10.0
FETCH_WAIT_MS = 100
REQUEUE_AT = int(SHARE_GROUP_CONFIG["share.delivery.count.limit"]) - 2
"""Releasing a record this often delivered would soon archive it unread; it is appended anew instead."""

log = structlog.get_logger(__name__)


class KafkaWorkQueue:
    """A WorkQueue over share groups; used by one thread. Queues come in the order of their priority."""

    def __init__(
        self, bootstrap: str, queues: Sequence[tuple[str, Topic]], *, catalogue: Catalogue, event_log: EventLog
    ) -> None:
        self._log = event_log
        self._held: set[str] = set()
        self._fetching: set[str] = set()
        self._consumers = {
            name: _consumer(bootstrap, catalogue.full_name(topic), catalogue.share_group(topic))
            for name, topic in queues
        }

    def take(self) -> Work | None:
        """Return the next work of the first queue that has any, or None after 5 ms a queue.

        A queue whose last work is neither accepted nor released yet is passed over: Kafka hands out no more of it.
        """
        for name in self._idle():
            work = self._poll(name, POLL_SECONDS)
            if work is not None:
                return work
        return None

    def drain(self) -> Iterator[Work]:
        """Yield what open fetches have locked meanwhile; call it again and again while nothing can be taken.

        A poll that found nothing leaves a fetch open that locks the next record for as long as it likes to stay away
        from poll; one that found something leaves none. So a full consumer must look, but catches one record a queue.
        """
        for name in self._idle():
            if name in self._fetching:
                work = self._poll(name, POLL_SECONDS)
                if work is not None:
                    yield work

    def accept(self, work: Work) -> bool:
        """Finish a work for every consumer; False if its lock had lapsed, so that it may be delivered again."""
        self._held.discard(work.queue)
        return self._acknowledge(work, AcknowledgeType.ACCEPT)

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
        for work in rest:  # a foreign producer's multi-record batch
            self._give_back(work)
        return first

    def _idle(self) -> list[str]:
        return [name for name in self._consumers if name not in self._held]

    def _give_back(self, work: Work) -> None:
        requeued = work.delivery_count >= REQUEUE_AT and self._requeue(work)
        self._acknowledge(work, AcknowledgeType.ACCEPT if requeued else AcknowledgeType.RELEASE)

    def _acknowledge(self, work: Work, kind: AcknowledgeType) -> bool:
        consumer = self._consumers[work.queue]
        try:
            consumer.acknowledge(_message(work), kind)
            failures: list[Exception] = [error for error in consumer.commit_sync(COMMIT_SECONDS).values() if error]
        except (KafkaException, IllegalStateException) as error:
            failures = [error]
        if failures:
            log.warning("queue.not_acknowledged", queue=work.queue, offset=work.record.offset, error=str(failures[0]))
        return not failures

    def _requeue(self, work: Work) -> bool:
        record = work.record
        headers = tuple((name, value) for name, value in record.headers if value is not None)
        copy = Record(record.topic, record.key or b"", record.value or b"", headers, single=True)
        try:
            self._log.append(copy).result(COMMIT_SECONDS)
        except (LogUnavailable, FutureTimeoutError) as error:
            log.warning("queue.requeue_failed", queue=work.queue, offset=record.offset, error=str(error))
            return False
        return True


def _consumer(bootstrap: str, topic: str, group: str) -> ShareConsumer:
    consumer = ShareConsumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": group,
            "share.acknowledgement.mode": "explicit",
            "max.poll.records": 1,
            "max.poll.interval.ms": 86_400_000,
            "fetch.wait.max.ms": FETCH_WAIT_MS,
            "reconnect.backoff.max.ms": 1000,
            "log_level": 2,
        }
    )
    consumer.subscribe([topic])
    return consumer


def _message(work: Work) -> Message:
    if not isinstance(work.token, Message):
        raise TypeError(f"{work} was not taken from this queue")
    return work.token


def _work(name: str, message: Message) -> Work:
    return Work(queue=name, record=stored(message), delivery_count=message.delivery_count() or 1, token=message)
