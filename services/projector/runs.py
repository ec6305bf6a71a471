"""Faust's Kafka consumer with two changes: a message is a run of records, and the read model says where to read.

Faust costs 200 µs of CPU a message, so what one fetch brought of one partition travels as one message.
Kafka's committed offsets are only for people who look at lag: after every assignment reading starts at the
offsets in the read model, so a restored or dropped database is neither skipped nor refused.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import faust
from faust.transport.drivers import aiokafka as driver
from faust.types import TP
from faust.types.tuples import ConsumerMessage

from datarun.log import StoredRecord

Positions = Callable[[Mapping[TP, int], Mapping[TP, int]], Awaitable[Mapping[TP, int]]]
"""From the first and the end offset of every assigned partition to the offset to read it from."""


class Runs(faust.Schema[Any, Any]):
    """Nothing is decoded here: the projection does, and keeps what it cannot decode."""

    def loads_key(self, app: Any, message: Any, **_: Any) -> None:
        """Return nothing: a run has no key."""

    def loads_value(self, app: Any, message: Any, **_: Any) -> Any:  # noqa: ARG002 - Faust's signature
        """Return the run as it was fetched."""
        return message.value


class Consumer(driver.Consumer):
    """Reads runs of records from where the read model ends."""

    positions: Positions
    """Set by the transport that makes the consumer."""

    async def seek_to_committed(self) -> Mapping[TP, int]:
        """Seek every assigned partition to its offset in the read model."""
        assigned = self.assignment()
        positions = await self.positions(await self.earliest_offsets(*assigned), await self.highwaters(*assigned))
        await self.seek_wait(positions)
        return positions

    async def _getmany(self, active_partitions: set[TP] | None, timeout: float) -> Any:  # noqa: ASYNC109 - Faust's signature
        fetched = await super()._getmany(active_partitions, timeout)
        return {tp: [run] for tp, run in fetched.items() if run}

    def _to_message(self, tp: TP, record: Sequence[Any]) -> ConsumerMessage:
        last = record[-1]
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
        # Runs are acknowledged in order, after their transaction: the last one stands for all before it.
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


def stored(run: Sequence[Any]) -> list[StoredRecord]:
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
