"""Whether a client really got an answer: the kernel knows what the other side has acknowledged, and when it hung up.

A client that goes away with bytes unread resets the connection; that is the only sign a small cut answer gives.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import socket
import struct
import sys
import termios

from aiohttp import web

ARRIVE_SECONDS = 30.0
LINGER_SECONDS = 0.2
"""How long a reset may follow after the last byte was acknowledged."""
LOOK_SECONDS = 0.005

_CLOSED, _CLOSE_WAIT = 7, 8


class Witness:
    """Watches one connection's socket through a copy, which outlives the server's own."""

    def __init__(self, request: web.Request) -> None:
        original = request.transport.get_extra_info("socket") if request.transport else None
        self._socket = socket.socket(fileno=os.dup(original.fileno())) if original else None

    def close(self) -> None:
        """Let go of the socket."""
        if self._socket is not None:
            self._socket.close()

    async def saw_arrival(self) -> bool:
        """Tell whether the other side acknowledged all that was written and did not reset the connection then."""
        if self._socket is None:
            return False
        loop = asyncio.get_running_loop()
        arrive_by = loop.time() + ARRIVE_SECONDS
        while self._unacknowledged():
            if self._was_reset() or loop.time() > arrive_by:
                return False
            await asyncio.sleep(LOOK_SECONDS)
        linger_until = loop.time() + LINGER_SECONDS
        while loop.time() < linger_until:
            if self._was_reset():
                return False
            if self._state() == _CLOSE_WAIT:
                return True
            await asyncio.sleep(LOOK_SECONDS)
        return True

    def _unacknowledged(self) -> int:
        if self._socket is None:
            return 0
        answer = fcntl.ioctl(self._socket.fileno(), termios.TIOCOUTQ, struct.pack("i", 0))
        return int(struct.unpack("i", answer)[0])

    def _was_reset(self) -> bool:
        return self._state() == _CLOSED

    def _state(self) -> int:
        if self._socket is None or sys.platform != "linux":
            return 0
        return self._socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0]
