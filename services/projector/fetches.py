"""Faust's Kafka consumer with two changes: a message is a whole fetch, and the read model says where to read.

Faust costs 200 µs of CPU a message, and a transaction a millisecond, so what one fetch brought of all partitions
travels as one message and is applied at once; under load fetches grow, so latency does not.
Kafka's committed offsets are only for people who look at lag: after every assignment reading starts at the
offsets in the read model, so a restored or dropped database is neither skipped nor refused.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import faust
from faust.transport.drivers import aiokafka as driver
from faust.types import TP
from faust.types.tuples import ConsumerMessage, Message

from datarun.log import StoredRecord

RECORDS_WORTH_OVERLAP = 500
"""After a smaller fetch the next waits until it is applied: what comes meanwhile is applied at once, not in a queue."""

Run = Sequence[Any]
"""aiokafka's records of one partition, in order and never empty; a fetch is a sequence of runs."""
Positions = Callable[[Mapping[TP, int], Mapping[TP, int]], Awaitable[Mapping[TP, int]]]
"""From the first and the end offset of every assigned partition to the offset to read it from."""


class Fetches(faust.Schema[Any, Any]):
    """Nothing is decoded here: the projection does, and keeps what it cannot decode."""

    def loads_key(self, app: Any, message: Any, **_: Any) -> None:
        """Return nothing: a fetch has no key."""

    def loads_value(self, app: Any, message: Any, **_: Any) -> Any:  # noqa: ARG002 - Faust's signature
        """Return the runs as they were fetched."""
        return message.value


class CommittedThread(driver.AIOKafkaConsumerThread):
    """Reads what a transaction has committed, and nothing that it has taken back, as every other reader does."""

    def _create_worker_consumer(self, transport: driver.Transport) -> Any:
        consumer = super()._create_worker_consumer(transport)
        # Faust offers this only to who writes in transactions.
        consumer._isolation_level = "read_committed"  # noqa: SLF001
        return consumer


class Consumer(driver.Consumer):
    """Reads fetches from where the read model ends."""

    positions: Positions
    """Set by the transport that makes the consumer."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._applied = asyncio.Event()
        self._applied.set()

    def _new_consumer_thread(self) -> CommittedThread:
        return CommittedThread(self, loop=self.loop, beacon=self.beacon)

    async def seek_to_committed(self) -> Mapping[TP, int]:
        """Seek every assigned partition to its offset in the read model."""
        assigned = self.assignment()
        positions = await self.positions(await self.earliest_offsets(*assigned), await self.highwaters(*assigned))
        await self.seek_wait(positions)
        # Whatever was under way is skipped after a rebalance, and never acknowledged.
        self._applied.set()
        return positions

    def ack(self, message: Message) -> bool:
        """Note the last offset of every run of an applied fetch, to be committed soon."""
        runs: Any = message.value
        for run in runs:
            last = run[-1]
            self._acked[TP(last.topic, last.partition)].append(last.offset)
        self._applied.set()
        return super().ack(message)

    def on_buffer_full(self, tp: TP) -> None:
        """Leave the partition alone: a full buffer blocks the fetching of all."""

    async def _getmany(self, active_partitions: set[TP] | None, timeout: float) -> Any:  # noqa: ASYNC109 - Faust's signature
        try:
            await asyncio.wait_for(self._applied.wait(), timeout)
        except TimeoutError:
            return {}
        fetched = await super()._getmany(active_partitions, timeout)
        runs = [run for run in fetched.values() if run]
        if not runs:
            return {}
        if sum(map(len, runs)) < RECORDS_WORTH_OVERLAP:
            self._applied.clear()
        return {TP(runs[0][0].topic, runs[0][0].partition): [runs]}

    def _to_message(self, tp: TP, record: Sequence[Run]) -> ConsumerMessage:
        # The first run lends the message its place.
        last = record[0][-1]
        return ConsumerMessage(
            last.topic,
            last.partition,
            last.offset,
            last.timestamp / 1000,
            last.timestamp_type,
            headers=None,
            key=None,
            value=record,  # type: ignore[arg-type]
            checksum=None,
            tp=tp,
            generation_id=self.app.consumer_generation_id,
        )

    def _new_offset(self, tp: TP) -> int | None:
        # Fetches are acknowledged in order, after their transaction: the last one stands for all before it.
        acked = self._acked[tp]
        if not acked:
            return None
        last = max(acked)
        acked.clear()
        self._acked_index[tp].clear()
        return last + 1

    async def _add_gap(self, tp: TP, offset_from: int, offset_to: int) -> None:
        """Between the last offsets of two runs lie the records of the second, not a gap."""


def transport_of(app: faust.App, positions: Positions) -> driver.Transport:
    """Return the app's Kafka transport with our consumer."""

    class PositionedConsumer(Consumer):
        pass

    class Transport(driver.Transport):
        Consumer = PositionedConsumer

    PositionedConsumer.positions = staticmethod(positions)
    return Transport(app.conf.broker_consumer, app)


def stored(run: Run) -> list[StoredRecord]:
    """Return a run as the rest of datarun knows records."""
    return [
        StoredRecord(
            record.topic,
            record.partition,
            record.offset,
            record.key,
            record.value,
            record.headers,
            record.timestamp,
        )
        for record in run
    ]
