"""What the queue over share groups does with the record it has in hand when the broker goes."""

from __future__ import annotations

from typing import Any

import pytest
from confluent_kafka import AcknowledgeType, KafkaError, KafkaException, Message

from datarun.log import queue as queue_module
from datarun.log.memory import MemoryLog
from datarun.log.queue import KafkaWorkQueue
from datarun.topics import FOLD_REQUESTS_HIGH, FOLD_REQUESTS_LOW, Catalogue

AWAY = KafkaException(KafkaError(KafkaError._ALL_BROKERS_DOWN))


class Consumer:
    """A share consumer whose polls answer as they are told."""

    def __init__(self, *answers: list[Message] | Exception) -> None:
        self.answers = list(answers)
        self.acknowledged: list[tuple[int | None, AcknowledgeType]] = []

    def poll(self, _seconds: float) -> list[Message]:
        """Answer."""
        answer = self.answers.pop(0) if self.answers else []
        if isinstance(answer, Exception):
            raise answer
        return answer

    def acknowledge(self, message: Message, kind: AcknowledgeType) -> None:
        """Remember it."""
        self.acknowledged.append((message.offset(), kind))

    def commit_async(self) -> None:
        """Nothing is sent."""


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return a function that makes a queue of two consumers."""

    def queue(high: Consumer, low: Consumer) -> KafkaWorkQueue:
        consumers = {"H": high, "L": low}
        monkeypatch.setattr(queue_module, "_consumer", lambda _brokers, name, _topic, _group: consumers[name])
        catalogue = Catalogue()
        queues = [("H", FOLD_REQUESTS_HIGH), ("L", FOLD_REQUESTS_LOW)]
        return KafkaWorkQueue("", queues, catalogue=catalogue, event_log=MemoryLog(catalogue))

    return queue


def record() -> Message:
    """Return a record of a queue."""
    return Message(topic="q", partition=0, offset=7, key=b"1", value=b"{}", headers=[], timestamp=(1, 1))


def test_a_record_in_hand_is_not_dropped_when_the_queue_before_it_cannot_be_asked(made: Any) -> None:
    """Dropped, it would stay locked, and its queue would never be asked again."""
    queue = made(Consumer([], AWAY), Consumer([record()]))

    work = queue.take()

    assert work is not None
    assert (work.queue, work.record.offset) == ("L", 7)


def test_what_came_meanwhile_into_a_queue_before_it_goes_first(made: Any) -> None:
    """A low record in hand goes back when a high one has come."""
    low = Consumer([record()])
    queue = made(Consumer([], [record()]), low)

    work = queue.take()

    assert work is not None
    assert work.queue == "H"
    assert low.acknowledged == [(7, AcknowledgeType.RELEASE)]
