"""What the guard makes of connections that stand still, without waiting for them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, cast

from services.ingest.guard import UNREAD_SECONDS, Connection, Guard


class Wire(asyncio.Transport):
    """A transport with a number of bytes that the client has not taken."""

    def __init__(self, address: str = "192.0.2.1") -> None:
        super().__init__({"peername": (address, 1)})
        self.unread = 0
        self.is_cut = False

    def get_write_buffer_size(self) -> int:
        """Return how much is unread."""
        return self.unread

    def abort(self) -> None:
        """Note the end."""
        self.is_cut = True


class Server(asyncio.Protocol):
    """The server's protocol: it counts what it hears."""

    def __init__(self) -> None:
        self.heard = 0

    def data_received(self, data: bytes) -> None:
        """Count."""
        self.heard += len(data)


def run(scenario: Callable[[Guard], None], **bounds: int) -> None:
    """Run a scenario with a guard in an event loop."""

    async def started() -> None:
        scenario(Guard(**bounds))

    asyncio.run(started())


def connect(guard: Guard, wire: Wire) -> Connection:
    """Open a connection."""
    connection = guard.guarded(Server)()
    connection.connection_made(wire)
    return connection


def test_an_answer_that_nobody_reads_is_cut_and_one_read_slowly_is_not() -> None:
    """A byte a minute is enough; a minute without one is not."""

    def scenario(guard: Guard) -> None:
        wire = Wire()
        connection = connect(guard, wire)
        now = 1000.0
        for unread in (0, 500, 499, 498, 0, 700):
            wire.unread = unread
            connection.look(now)
            now += UNREAD_SECONDS - 1
            connection.look(now)
        assert not wire.is_cut
        connection.look(now + 2)
        assert wire.is_cut

    run(scenario)


def test_the_oldest_waiting_connection_makes_room_and_a_busy_one_never() -> None:
    """Of the same address while that has too many, of any while there are too many in all."""

    def scenario(guard: Guard) -> None:
        wires = [Wire(), Wire(), Wire(), Wire("198.51.100.7")]
        connections = [connect(guard, wire) for wire in wires[:2]]
        guard.begin(cast(Any, _Request(wires[0])))
        connect(guard, wires[2])
        assert [wire.is_cut for wire in wires] == [False, True, False, False]
        connect(guard, wires[3])
        last = Wire("203.0.113.9")
        connect(guard, last)
        assert [wire.is_cut for wire in wires] == [False, True, True, False]
        guard.end(wires[0])
        connect(guard, Wire("203.0.113.10"))
        assert [wire.is_cut for wire in wires] == [False, True, True, True]
        refused = connections[1]
        refused.data_received(b"late")
        refused.connection_lost(None)

    run(scenario, most=3, most_per_address=2)


class _Request:
    def __init__(self, transport: Wire) -> None:
        self.transport = transport
        self.content = asyncio.StreamReader()
