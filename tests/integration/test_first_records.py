"""What a producer is told of as delivered is there, also when its partition was only about to be led."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

from confluent_kafka import KafkaError, Message, Producer
from confluent_kafka.admin import AdminClient, NewTopic

from datarun.log.kafka import KafkaLog, producer_config
from tests.brokers import running_broker

ROUNDS = 10
TOPICS, PARTITIONS, RECORDS = 20, 3, 4


def test_the_first_records_of_new_topics_are_there(cache: Path, tmp_path: Path) -> None:
    """A broker names the leader of a new partition a moment before it takes records for it."""
    told: list[KafkaError | None] = []

    def delivered(error: KafkaError | None, _: Message) -> None:
        told.append(error)

    with running_broker(cache, tmp_path / "kafka") as broker, closing(KafkaLog(broker.kafka.bootstrap)) as log:
        admin = AdminClient({"bootstrap.servers": broker.kafka.bootstrap})
        # One record a request, and a client that hears of the leaders at once, so that many requests fall into it.
        impatient = {"batch.num.messages": 1, "topic.metadata.refresh.fast.interval.ms": 5}
        producer = Producer({**producer_config(broker.kafka.bootstrap), **impatient})
        for number in range(ROUNDS):
            names = [f"new-{number}-{place}" for place in range(TOPICS)]
            made = admin.create_topics([NewTopic(name, PARTITIONS, replication_factor=1) for name in names])
            for _ in range(RECORDS):
                for name in names:
                    for partition in range(PARTITIONS):
                        producer.produce(name, value=b"x", partition=partition, on_delivery=delivered)
                producer.poll(0)
            assert producer.flush(60) == 0
            for future in made.values():
                future.result(10)
            assert set(log.end_offsets(names).values()) == {RECORDS}
            for future in admin.delete_topics(names).values():
                future.result(10)

    assert told == [None] * (ROUNDS * TOPICS * PARTITIONS * RECORDS)
