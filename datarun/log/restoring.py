"""Records put back where they were: in their partition, in their order, with their time.

While that goes on the topics take a producer's time; then they take the broker's again, as the catalogue says.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable

from confluent_kafka import KafkaError, KafkaException, Message, Producer
from confluent_kafka.admin import (  # type: ignore[attr-defined]
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewTopic,
)

from datarun.errors import LogUnavailable
from datarun.log import REQUEUED, StoredRecord
from datarun.log.admin import TIMEOUT_SECONDS
from datarun.log.brokers import Brokers, client_config
from datarun.log.kafka import producer_config
from datarun.topics import Catalogue, Kind, Topic

TIME = "message.timestamp.type"
IN_FLIGHT = 20_000
FLUSH_SECONDS = 60.0


class Restoration:
    """Writes to the topics of one installation, which nobody else does meanwhile."""

    def __init__(self, brokers: Brokers | str, *, catalogue: Catalogue) -> None:
        self._catalogue = catalogue
        self._admin = AdminClient({**client_config(brokers), "log_level": 2})
        config = {**producer_config(brokers), "linger.ms": 20}
        self._events = Producer(config)
        self._queues = Producer({**config, "batch.num.messages": 1})
        self._lock = threading.Lock()
        self._error: KafkaError | None = None

    def open(self, topics: Iterable[Topic]) -> None:
        """Make missing topics, and let all take the time of their records; raises LogUnavailable."""
        topics = list(topics)
        try:
            known = self._admin.list_topics(timeout=TIMEOUT_SECONDS).topics
            missing = [topic for topic in topics if self._catalogue.full_name(topic) not in known]
            wanted = [
                NewTopic(
                    self._catalogue.full_name(topic),
                    num_partitions=topic.partitions,
                    replication_factor=-1,
                    config={**topic.config, TIME: "CreateTime"},
                )
                for topic in missing
            ]
            for future in self._admin.create_topics(wanted).values() if wanted else ():
                future.result(TIMEOUT_SECONDS)
            self._take_time([topic for topic in topics if topic not in missing], "CreateTime")
        except KafkaException as error:
            raise LogUnavailable(str(error)) from error

    def append(self, record: StoredRecord) -> None:
        """Put one record back; it is there when `flush` has returned. Raises LogUnavailable.

        A request is marked as handed out before: runners start it only if the gateway says that it is still open.
        """
        topic = self._catalogue.topic(record.topic)
        headers = [(name, value) for name, value in record.headers if name != REQUEUED or topic.kind is not Kind.QUEUE]
        if topic.kind is Kind.QUEUE:
            headers.append((REQUEUED, f"{record.partition}:{record.offset}".encode()))
        producer = self._queues if topic.kind is Kind.QUEUE else self._events
        while len(producer) >= IN_FLIGHT:
            producer.poll(0.05)
        self._check()
        try:
            producer.produce(
                record.topic,
                key=record.key,
                value=record.value,
                headers=headers,  # type: ignore[arg-type]
                partition=record.partition,
                timestamp=max(record.timestamp_ms, 0),
                on_delivery=self._delivered,
            )
        except (BufferError, KafkaException) as error:
            raise LogUnavailable(str(error)) from error
        producer.poll(0)

    def flush(self) -> None:
        """Return when the log has all that was appended; raises LogUnavailable."""
        for producer in (self._events, self._queues):
            if producer.flush(FLUSH_SECONDS):
                raise LogUnavailable("the log did not take everything in time")
        self._check()

    def finish(self, topics: Iterable[Topic]) -> None:
        """Let topics take the broker's time again; raises LogUnavailable."""
        try:
            self._take_time(topics, "LogAppendTime")
        except KafkaException as error:
            raise LogUnavailable(str(error)) from error

    def _take_time(self, topics: Iterable[Topic], whose: str) -> None:
        entry = ConfigEntry(TIME, whose, incremental_operation=AlterConfigOpType.SET)
        names = [self._catalogue.full_name(topic) for topic in topics]
        resources = [ConfigResource(ConfigResource.Type.TOPIC, name, incremental_configs=[entry]) for name in names]
        for future in self._admin.incremental_alter_configs(resources).values() if resources else ():
            future.result(TIMEOUT_SECONDS)

    def _delivered(self, error: KafkaError | None, _message: Message) -> None:
        if error is not None:
            with self._lock:
                self._error = self._error or error

    def _check(self) -> None:
        with self._lock:
            if self._error is not None:
                raise LogUnavailable(str(self._error))
