"""The receiving end of the notify protocol: one socket for each start of a service.

The socket is abstract: no file is left behind by a crash, and the length of the folder's path does not matter.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import socket
import struct
from typing import Self

from datarun.notify import DETAIL

CREDENTIALS = struct.Struct("iII")
MESSAGE_BYTES = 4096


class Readiness:
    """Waits for one process to say READY=1; `detail` is what it says about itself beside its status."""

    def __init__(self) -> None:
        self.detail = ""
        self.address = f"@datarun-{os.getpid()}-{secrets.token_hex(8)}"
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        self._socket.bind("\0" + self.address[1:])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self._socket.close()

    async def wait(self) -> str:
        """Return the status text that came with READY=1."""
        text = ""
        while True:
            fields = await self._receive()
            text = fields.get("STATUS", text)
            self.detail = fields.get(DETAIL, self.detail)
            if fields.get("READY") == "1":
                return text

    async def _receive(self) -> dict[str, str]:
        loop = asyncio.get_running_loop()
        while True:
            readable: asyncio.Future[None] = loop.create_future()
            loop.add_reader(self._socket, _resolve, readable)
            try:
                await readable
            finally:
                loop.remove_reader(self._socket)
            message, ancillary, _flags, _address = self._socket.recvmsg(
                MESSAGE_BYTES, socket.CMSG_SPACE(CREDENTIALS.size)
            )
            # Anyone on the machine can write to an abstract socket.
            if any(_uid(data) in {os.getuid(), 0} for _level, _type, data in ancillary):
                return dict(line.split("=", 1) for line in message.decode(errors="replace").splitlines() if "=" in line)


def _uid(credentials: bytes) -> int:
    _pid, uid, _gid = CREDENTIALS.unpack(credentials[: CREDENTIALS.size])
    return int(uid)


def _resolve(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
