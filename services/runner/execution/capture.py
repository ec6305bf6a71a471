"""A child's output, read as it comes: its head and its tail are kept, what is between is counted."""

from __future__ import annotations

import contextlib
import fcntl
import os

_CHUNK = 1 << 18
_PIPE_BYTES = 1 << 20
_SET_PIPE_SIZE = 1031
_DRAIN_BYTES = 4 << 20


class Capture:
    """Bounded memory of an endless stream; the last byte written is always kept."""

    def __init__(self, limit_bytes: int) -> None:
        self._half = limit_bytes // 2
        self._head = bytearray()
        self._tail = bytearray()
        self._dropped = 0

    def add(self, content: bytes) -> None:
        """Take in what was written next."""
        room = self._half - len(self._head)
        if room > 0:
            self._head += content[:room]
            content = content[room:]
        self._tail += content
        if len(self._tail) > 2 * self._half + _CHUNK:
            self._shorten()

    def _shorten(self) -> None:
        excess = len(self._tail) - self._half
        if excess > 0:
            self._dropped += excess
            del self._tail[:excess]

    def text(self) -> str:
        """Return what was kept, with a line where something was left out."""
        self._shorten()
        if not self._dropped:
            return bytes(self._head + self._tail).decode(errors="replace")
        marker = f"\n[... {self._dropped} bytes left out ...]\n"
        return self._head.decode(errors="replace") + marker + self._tail.decode(errors="replace")


def log_pipe() -> tuple[int, int]:
    """Return the reading and the writing end of a pipe that takes a burst; reading never waits."""
    reading, writing = os.pipe2(os.O_CLOEXEC)
    os.set_blocking(reading, False)
    with contextlib.suppress(PermissionError):  # a smaller pipe only makes the writer wait sooner
        fcntl.fcntl(reading, _SET_PIPE_SIZE, _PIPE_BYTES)
    return reading, writing


def read_some(reading: int, capture: Capture) -> bool:
    """Take in what is there now; returns False at the end of the stream or when nothing is there."""
    try:
        content = os.read(reading, _CHUNK)
    except BlockingIOError:
        return False
    capture.add(content)
    return bool(content)


def drain(reading: int, capture: Capture) -> None:
    """Take in all that is there, within a bound that an endless writer cannot move."""
    for _ in range(_DRAIN_BYTES // _CHUNK):
        if not read_some(reading, capture):
            return
