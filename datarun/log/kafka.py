"""The event log on Kafka: one producer factory with the one partitioner, and plain reading by offset.

librdkafka's default partitioner puts keys elsewhere than Java's and aiokafka's; murmur2_random is the shared one.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import closing
from functools import partial
from typing import Any

from confluent_kafka import Consumer, IsolationLevel, KafkaError, KafkaException, Message, Producer
from confluent_kafka import TopicPartition as KafkaTopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec  # type: ignore[attr-defined]

from datarun.errors import LogUnavailable
from datarun.log import Position, Record, StoredRecord, TopicPartition
from datarun.log.brokers import Brokers, client_config

READ_BATCH = 2000
FETCH_WAIT_MS = 50
FOLLOW_WAIT_MS = 500
"""Who follows the log is answered when something comes, as before; each answer that nothing did costs the broker."""
FOLLOW_PAUSE_MS = 50
"""How late who follows may see a record behind others: not every record is then fetched by itself."""
CLOSE_SECONDS = 10.0
ASK_SECONDS = 10.0
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.05, 0.5
_OUTDATED = (KafkaError.FENCED_LEADER_EPOCH, KafkaError.UNKNOWN_LEADER_EPOCH)
"""What is answered to who believes in a leader that is no more, or in one the broker has not heard of yet."""
_PASSING = (*_OUTDATED, KafkaError.LEADER_NOT_AVAILABLE, KafkaError.NOT_LEADER_FOR_PARTITION)
"""What is answered while leaders change: the same question has an answer a moment later."""


def producer_config(brokers: Brokers | str, *, delivery_timeout_seconds: float = 30.0) -> dict[str, Any]:
    """Return the settings every producer of datarun has: idempotent, all replicas, the murmur2 partitioner."""
    return {
        **client_config(brokers),
        "acks": "all",
        "enable.idempotence": True,
        # A broker takes any first number of a producer it has no memory of. With two requests under way it could refuse
        # the first, because it was only about to lead the partition, and take the second: the first would then be told
        # as delivered and be nowhere (KAFKA-15591).
        "max.in.flight": 1,
        "partitioner": "murmur2_random",
        "linger.ms": 0,
        "delivery.timeout.ms": int(delivery_timeout_seconds * 1000),
        "reconnect.backoff.max.ms": 1000,
        "socket.keepalive.enable": True,
        "log.connection.close": False,
        # An unreachable broker is told through the futures and the log of who waits, not by librdkafka's stderr.
        "log_level": 2,
    }


class KafkaLog:
    """An EventLog on Kafka: at least once, acknowledged by all in-sync replicas."""

    def __init__(self, brokers: Brokers | str, *, delivery_timeout_seconds: float = 30.0) -> None:
        self._brokers = brokers
        config = producer_config(brokers, delivery_timeout_seconds=delivery_timeout_seconds)
        self._events = Producer(config)
        # A share fetch takes whole batches, so a queue's records travel one a batch.
        self._queues = Producer({**config, "batch.num.messages": 1})
        self._admin = self._asking()
        self._counts: dict[str, int] = {}
        self._closing = threading.Event()
        self._pollers = [
            threading.Thread(target=self._poll, args=(producer,), daemon=True, name="kafka-producer")
            for producer in (self._events, self._queues)
        ]
        for poller in self._pollers:
            poller.start()

    def append(self, record: Record) -> Future[Position]:
        """Append a record; the future ends when all in-sync replicas have it, or with LogUnavailable."""
        future: Future[Position] = Future()
        producer = self._queues if record.single else self._events
        try:
            producer.produce(
                record.topic,
                key=record.key,
                value=record.value,
                headers=list(record.headers),
                on_delivery=partial(_delivered, future),
            )
        except BufferError:
            future.set_exception(LogUnavailable("the producer's queue is full"))
        except KafkaException as error:
            future.set_exception(LogUnavailable(str(error)))
        return future

    def read(
        self, start: Mapping[TopicPartition, int], *, until_end: bool = False, idle_seconds: float = 0.1
    ) -> Iterator[list[StoredRecord]]:
        """Yield batches from the given offsets on, an empty one when idle; with `until_end` stop at the present end."""
        here = dict(start)
        if until_end or self._is_far(here):
            yield from self._read_to_end(here, idle_seconds)
        if not until_end:
            with closing(self._reader(tells_end=False)) as consumer:
                consumer.assign([KafkaTopicPartition(tp.topic, tp.partition, offset) for tp, offset in here.items()])
                while True:
                    yield self._batch(consumer, idle_seconds)[0]

    def _is_far(self, here: Mapping[TopicPartition, int]) -> bool:
        """Tell whether who follows from here on has much to read first; nobody knows while the broker is away."""
        try:
            end = self.end_offsets(sorted({tp.topic for tp in here}))
        except LogUnavailable:
            return False
        return sum(max(0, end.get(tp, 0) - offset) for tp, offset in here.items()) > READ_BATCH

    def _read_to_end(self, here: dict[TopicPartition, int], idle_seconds: float) -> Iterator[list[StoredRecord]]:
        """Yield batches up to the present end, and move there."""
        end = self.end_offsets(sorted({tp.topic for tp in here}))
        with closing(self._reader(tells_end=True)) as consumer:
            consumer.assign([KafkaTopicPartition(tp.topic, tp.partition, offset) for tp, offset in here.items()])
            while not all(offset >= end.get(tp, 0) for tp, offset in here.items()):
                batch, ends = self._batch(consumer, idle_seconds)
                yield batch
                here |= self._positions(consumer, here) | ends

    @staticmethod
    def _batch(consumer: Consumer, idle_seconds: float) -> tuple[list[StoredRecord], dict[TopicPartition, int]]:
        """Return what comes, and the partitions of which that is all there is."""
        messages = consumer.consume(READ_BATCH, idle_seconds)
        told = [message for message in messages if message.error() is not None]
        usable = [message for message in messages if message.error() is None] if told else messages
        return list(map(stored, usable)), dict(_ends(told))

    def end_offsets(self, topics: Sequence[str]) -> dict[TopicPartition, int]:
        """Return, for every partition of the topics, the offset the next record will get."""
        return self._offsets(topics, OffsetSpec.latest())  # type: ignore[no-untyped-call]

    def start_offsets(self, topics: Sequence[str]) -> dict[TopicPartition, int]:
        """Return, for every partition of the topics, the first offset that is kept."""
        return self._offsets(topics, OffsetSpec.earliest())  # type: ignore[no-untyped-call]

    def offsets_at(self, partitions: Iterable[TopicPartition], timestamp_ms: int) -> dict[TopicPartition, int]:
        """Return each partition's first offset that is not older than a moment, or its end; raises LogUnavailable."""
        wanted = list(partitions)
        # In this order: what is appended between the two answers is not older than the moment, and has an offset.
        ends = self._offsets_of(wanted, OffsetSpec.latest())  # type: ignore[no-untyped-call]
        found = self._offsets_of(wanted, OffsetSpec.for_timestamp(timestamp_ms))
        return {tp: found[tp] if found[tp] >= 0 else end for tp, end in ends.items()}

    def _offsets(self, topics: Sequence[str], spec: OffsetSpec) -> dict[TopicPartition, int]:
        return self._offsets_of(
            [TopicPartition(topic, n) for topic in topics for n in range(self._partitions_of(topic))], spec
        )

    def _offsets_of(self, partitions: Iterable[TopicPartition], spec: OffsetSpec) -> dict[TopicPartition, int]:
        asked = {KafkaTopicPartition(*tp): spec for tp in partitions}
        found = self._found(asked, isolation_level=IsolationLevel.READ_COMMITTED)
        return {TopicPartition(tp.topic, tp.partition): offset for tp, offset in found.items()}

    def _asking(self) -> AdminClient:
        return AdminClient({**client_config(self._brokers), "log_level": 2, "reconnect.backoff.max.ms": 1000})

    def _found(self, asked: Any, **options: Any) -> dict[KafkaTopicPartition, int]:
        if not asked:
            return {}
        deadline, pause = time.monotonic() + ASK_SECONDS, FIRST_PAUSE_SECONDS
        while True:
            try:
                return self._list_offsets(asked, options)
            except KafkaException as error:
                code = error.args[0].code()
                if code not in _PASSING or time.monotonic() + pause > deadline:
                    raise LogUnavailable(str(error)) from error
            if code in _OUTDATED:
                # A client goes on to ask in the old leader's name for minutes; a new one knows the present.
                self._admin = self._asking()
            time.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE_SECONDS)

    def _list_offsets(self, asked: Any, options: Any) -> dict[KafkaTopicPartition, int]:
        answers = self._admin.list_offsets(asked, request_timeout=ASK_SECONDS, **options)
        return {tp: answer.result().offset for tp, answer in answers.items()}

    def _partitions_of(self, topic: str) -> int:
        """Return how many partitions a topic has: that never changes, and asking for each costs a round trip."""
        if not self._counts.get(topic):
            try:
                found = self._admin.list_topics(topic, timeout=ASK_SECONDS).topics[topic]
            except KafkaException as error:
                raise LogUnavailable(str(error)) from error
            self._counts[topic] = len(found.partitions)
        return self._counts[topic]

    def close(self) -> None:
        """Send what is unsent, for ten seconds at the most, and let go."""
        for producer in (self._events, self._queues):
            producer.flush(CLOSE_SECONDS)
        self._closing.set()
        for poller in self._pollers:
            poller.join(CLOSE_SECONDS)

    def _reader(self, *, tells_end: bool) -> Consumer:
        following = {"queued.min.messages": 1, "fetch.queue.backoff.ms": FOLLOW_PAUSE_MS}
        return Consumer(
            {
                **client_config(self._brokers),
                **({} if tells_end else following),
                "group.id": "datarun-reader",
                "enable.auto.commit": False,
                "auto.offset.reset": "earliest",
                "isolation.level": "read_committed",
                # A partition may end in a hole, which moves no position.
                "enable.partition.eof": tells_end,
                "queued.max.messages.kbytes": 65536,
                # Partitions come in turns of so much, and so near each other what happened at about the same time.
                "max.partition.fetch.bytes": 262144,
                "fetch.wait.max.ms": FETCH_WAIT_MS if tells_end else FOLLOW_WAIT_MS,
                "log_level": 2,
            }
        )

    @staticmethod
    def _positions(consumer: Consumer, start: Mapping[TopicPartition, int]) -> dict[TopicPartition, int]:
        known = consumer.position([KafkaTopicPartition(tp.topic, tp.partition) for tp in start])
        return {TopicPartition(tp.topic, tp.partition): tp.offset for tp in known if tp.offset >= 0}

    def _poll(self, producer: Producer) -> None:
        while not self._closing.is_set():
            producer.poll(0.1)


def stored(message: Message) -> StoredRecord:
    """Return a Kafka message as the rest of datarun knows it."""
    # Not by its class's own __new__, which is written in Python: a rebuild does this a million times over.
    return tuple.__new__(
        StoredRecord,
        (
            message.topic(),
            message.partition(),
            message.offset(),
            message.key(),
            message.value(),
            message.headers() or (),
            message.timestamp()[1],
        ),
    )


def _ends(messages: Iterable[Message]) -> Iterator[tuple[TopicPartition, int]]:
    """Yield what these tell of ends of partitions; raises LogUnavailable for what cannot be read any more."""
    for message in messages:
        error = message.error()
        if error is None:
            continue
        if error.code() == KafkaError.UNKNOWN_TOPIC_OR_PART or error.fatal():
            raise LogUnavailable(str(error))
        if error.code() == KafkaError._PARTITION_EOF:  # noqa: SLF001 - librdkafka's own codes
            yield TopicPartition(message.topic() or "", message.partition() or 0), message.offset() or 0


def _delivered(future: Future[Position], error: KafkaError | None, message: Message) -> None:
    if error is not None:
        future.set_exception(LogUnavailable(str(error)))
    else:
        future.set_result(Position(message.topic() or "", message.partition() or 0, message.offset() or 0))
