"""Messages between the runner and its processes: a JSON object per datagram, bulk data in sealed memory files.

Nothing read here is trusted: a message that is not a small JSON object raises Garbled.
"""

from __future__ import annotations

import array
import fcntl
import json
import os
import socket
import stat
from collections.abc import Sequence
from typing import Any

MESSAGE_BYTES = 128 * 1024
MAX_DESCRIPTORS = 8
_SEALS = 0x1 | 0x2 | 0x4 | 0x8  # seal, shrink, grow, write
_ADD_SEALS = 1033
_GET_SEALS = 1034
_CHUNK = 1 << 30

Message = dict[str, Any]


class Garbled(Exception):
    """A process sent something that is not a message."""


def pair() -> tuple[socket.socket, socket.socket]:
    """Return two connected ends that keep message boundaries."""
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)


def send(to: socket.socket, message: Message, descriptors: Sequence[int] = ()) -> None:
    """Send one message whole; raises OSError when the other end is gone."""
    ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))] if descriptors else []
    to.sendmsg([json.dumps(message).encode()], ancillary)


def receive(source: socket.socket) -> tuple[Message, list[int]] | None:
    """Return the next message and the descriptors sent with it, None at the end; raises Garbled."""
    space = socket.CMSG_SPACE(MAX_DESCRIPTORS * array.array("i").itemsize)
    content, ancillary, flags, _ = source.recvmsg(MESSAGE_BYTES, space, socket.MSG_CMSG_CLOEXEC)
    descriptors = array.array("i")
    for _level, _kind, data in ancillary:
        descriptors.frombytes(data[: len(data) - len(data) % descriptors.itemsize])
    if not content and not descriptors:
        return None
    try:
        return _decoded(content, flags), list(descriptors)
    except Garbled:
        close(descriptors)
        raise


def _decoded(content: bytes, flags: int) -> Message:
    if flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC):
        raise Garbled("a message is too large")
    try:
        message = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise Garbled("a message is not JSON") from error
    if not isinstance(message, dict):
        raise Garbled("a message is not an object")
    return message


def close(descriptors: Sequence[int] | array.array[int]) -> None:
    """Close descriptors that nobody wants."""
    for descriptor in descriptors:
        os.close(descriptor)


def sealed(parts: Sequence[bytes | memoryview], name: str = "datarun") -> int:
    """Return a memory file with these bytes that nobody can change any more, its owner included."""
    descriptor = os.memfd_create(name, os.MFD_ALLOW_SEALING | os.MFD_CLOEXEC)
    try:
        for part in parts:
            _write(descriptor, part)
        fcntl.fcntl(descriptor, _ADD_SEALS, _SEALS)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _write(descriptor: int, part: bytes | memoryview) -> None:
    left = memoryview(part).cast("B")
    while left:
        left = left[os.write(descriptor, left[:_CHUNK]) :]


def sealed_size(descriptor: int) -> int:
    """Return the size in bytes of a sealed memory file; raises Garbled for any other kind of file."""
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        raise Garbled("a descriptor is not a file")
    try:
        seals = fcntl.fcntl(descriptor, _GET_SEALS)
    except OSError as error:
        raise Garbled("a file is not in memory") from error
    if seals & _SEALS != _SEALS:
        raise Garbled("a memory file is not sealed")
    return status.st_size


def read_into(descriptor: int, target: memoryview, offset: int) -> None:
    """Fill a buffer from a file; raises Garbled when the file ends first."""
    while target:
        count = os.preadv(descriptor, [target[:_CHUNK]], offset)
        if count == 0:
            raise Garbled("a memory file is too short")
        target, offset = target[count:], offset + count


def read(descriptor: int, size: int, offset: int = 0) -> bytearray:
    """Return exactly `size` bytes of a file; raises Garbled when it ends first."""
    content = bytearray(size)
    read_into(descriptor, memoryview(content), offset)
    return content
