"""Connections that are too many or too slow: the server beneath knows no bound of its own.

A head has to come within seconds and a body has to make progress, however slow the line; so has a client that is read
to. Where there is no room for one more connection, the one that has waited longest without a request makes it.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable
from typing import cast

import structlog
from aiohttp import StreamReader, web
from aiohttp.typedefs import Handler

from services.ingest.throttle import network_of

HEAD_SECONDS = 9.0
BODY_SECONDS = 20.0
BODY_BYTES = 8192
"""So much of a body has to come in each span of BODY_SECONDS, but for its last one."""
UNREAD_SECONDS = 60.0
"""How long a client may leave an answer lying without taking a byte of it."""
MOST_CONNECTIONS = 4096
MOST_PER_ADDRESS = 1024
LOOK_SECONDS = 0.5

log = structlog.get_logger(__name__)


class SlowBody(TimeoutError):
    """The body of a request does not come."""


class Connection(asyncio.Protocol):
    """Stands between a socket and the server's protocol, and sees what comes and when."""

    def __init__(self, guard: Guard, inner: asyncio.Protocol) -> None:
        self._guard = guard
        self._inner: asyncio.Protocol | None = inner
        self._loop = asyncio.get_running_loop()
        self.transport: asyncio.Transport | None = None
        self.address = ""
        self.body: StreamReader | None = None
        self.is_busy = False
        self._came = 0
        self._came_by = 0.0
        self._unread = 0
        self._unread_since = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take a connection in, if there is room."""
        peer = transport.get_extra_info("peername")
        self.transport = cast(asyncio.Transport, transport)
        self.address = network_of(str(peer[0])) if peer else ""
        if self._inner is not None and self._guard.take_in(self):
            self._inner.connection_made(transport)
        else:
            self._inner = None
            self.transport.abort()

    def data_received(self, data: bytes) -> None:
        """Pass bytes on, and note that they came."""
        self._came += len(data)
        if not self.is_busy and (self.body is None or self.body.is_eof()):
            self._guard.expect_head(self)
        if self._inner is not None:
            self._inner.data_received(data)

    def eof_received(self) -> bool | None:
        """Pass the end on."""
        return self._inner.eof_received() if self._inner is not None else None

    def connection_lost(self, exc: Exception | None) -> None:
        """Pass the loss on."""
        self._guard.let_go(self)
        if self._inner is not None:
            self._inner.connection_lost(exc)

    def pause_writing(self) -> None:
        """Pass on that the client does not keep up."""
        if self._inner is not None:
            self._inner.pause_writing()

    def resume_writing(self) -> None:
        """Pass on that it does again."""
        if self._inner is not None:
            self._inner.resume_writing()

    def begin(self, body: StreamReader) -> None:
        """Note that a head is complete, and whose body follows."""
        self.body = body
        self._came, self._came_by = 0, self._loop.time() + BODY_SECONDS

    def look(self, now: float) -> None:
        """End what makes no progress."""
        if self.transport is None:
            return
        self._look_at_body(self.transport, now)
        unread = self.transport.get_write_buffer_size()
        if unread == 0 or unread < self._unread or self._unread == 0:
            self._unread_since = now
        self._unread = unread
        if now - self._unread_since > UNREAD_SECONDS:
            log.info("connection.unread", address=self.address)
            self.transport.abort()

    def _look_at_body(self, transport: asyncio.Transport, now: float) -> None:
        # A server that has not read what came yet has stopped reading; then it is not the client's turn.
        if self.body is None or self.body.is_eof() or self._came >= BODY_BYTES or not transport.is_reading():
            self._came, self._came_by = 0, now + BODY_SECONDS
        elif now >= self._came_by and self.is_busy and self.body.exception() is None:
            log.info("body.too_slow", address=self.address)
            self.body.set_exception(SlowBody(f"{self._came} bytes in {BODY_SECONDS:.0f} s"))


class Guard:
    """Watches over all connections of one gateway; every method belongs to the event loop."""

    def __init__(self, *, most: int = MOST_CONNECTIONS, most_per_address: int = MOST_PER_ADDRESS) -> None:
        self._most = most
        self._most_per_address = most_per_address
        self._open: dict[asyncio.BaseTransport, Connection] = {}
        self._counts: dict[str, int] = {}
        # In the order in which their time ends, and in which they came to wait.
        self._heads: OrderedDict[Connection, float] = OrderedDict()
        self._idle: OrderedDict[Connection, None] = OrderedDict()
        self._idle_of: dict[str, OrderedDict[Connection, None]] = {}

    def guarded(self, make: Callable[[], asyncio.Protocol]) -> Callable[[], Connection]:
        """Return what makes the protocol of a new connection around the server's own."""
        return lambda: Connection(self, make())

    def take_in(self, connection: Connection) -> bool:
        """Count a connection, at the cost of one that waits where there is no room; False if all of them are busy."""
        count = self._counts.get(connection.address, 0)
        if count >= self._most_per_address and not self._drop_first(self._idle_of.get(connection.address)):
            return False
        if len(self._open) >= self._most and not self._drop_first(self._idle):
            return False
        if connection.transport is not None:
            self._open[connection.transport] = connection
        self._counts[connection.address] = self._counts.get(connection.address, 0) + 1
        self._rest(connection)
        self.expect_head(connection)
        return True

    def let_go(self, connection: Connection) -> None:
        """Forget a connection that ended."""
        if connection.transport is None or self._open.pop(connection.transport, None) is None:
            return
        self._work(connection)
        self._counts[connection.address] -= 1
        if not self._counts[connection.address]:
            del self._counts[connection.address]
            self._idle_of.pop(connection.address, None)

    def expect_head(self, connection: Connection) -> None:
        """Note the first byte of a head, or a connection from which it is to come."""
        self._heads.setdefault(connection, asyncio.get_running_loop().time() + HEAD_SECONDS)

    def begin(self, request: web.Request) -> None:
        """Note that a request is under way."""
        connection = self._open.get(request.transport) if request.transport is not None else None
        if connection is not None:
            self._work(connection)
            connection.is_busy = True
            connection.begin(request.content)

    def end(self, transport: asyncio.BaseTransport | None) -> None:
        """Note that it is answered."""
        connection = self._open.get(transport) if transport is not None else None
        if connection is not None:
            connection.is_busy = False
            self._rest(connection)

    async def watch(self) -> None:
        """Look after the connections until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            now = loop.time()
            while self._heads and next(iter(self._heads.values())) <= now:
                connection, _ = self._heads.popitem(last=False)
                self._drop(connection)
            for connection in list(self._open.values()):
                connection.look(now)

    def _rest(self, connection: Connection) -> None:
        self._idle[connection] = None
        self._idle_of.setdefault(connection.address, OrderedDict())[connection] = None

    def _work(self, connection: Connection) -> None:
        self._heads.pop(connection, None)
        self._idle.pop(connection, None)
        self._idle_of.get(connection.address, OrderedDict()).pop(connection, None)

    def _drop_first(self, idle: OrderedDict[Connection, None] | None) -> bool:
        if not idle:
            return False
        self._drop(next(iter(idle)))
        return True

    def _drop(self, connection: Connection) -> None:
        self.let_go(connection)
        if connection.transport is not None:
            connection.transport.abort()


GUARD = web.AppKey("guard", Guard)


@web.middleware
async def watch(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Let the guard know which connections have a request under way."""
    guard, transport = request.app[GUARD], request.transport
    guard.begin(request)
    try:
        return await handler(request)
    finally:
        guard.end(transport)


async def watching(app: web.Application) -> AsyncIterator[None]:
    """Keep the guard at work while the service runs."""
    task = asyncio.get_running_loop().create_task(app[GUARD].watch())
    yield
    task.cancel()
