"""What the kernel has on record of a process: its CPU clock, that of the children it waited for, its peak memory."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass

_CPU_CLOCK = 2
_CHILD_TICKS = slice(13, 15)
_TICKS = os.sysconf("SC_CLK_TCK")
_BYTES = 4096


@dataclass(frozen=True, slots=True)
class Usage:
    """CPU seconds and peak MiB, those of the descendants that were waited for included."""

    cpu_seconds: float
    peak_mib: float


class Accounts:
    """The open records of one process, so that reading them costs little; a later process cannot be mistaken for it."""

    def __init__(self, pid: int) -> None:
        self._clock = (~pid << 3) | _CPU_CLOCK
        self._status = os.open(f"/proc/{pid}/status", os.O_RDONLY | os.O_CLOEXEC)
        self._stat = os.open(f"/proc/{pid}/stat", os.O_RDONLY | os.O_CLOEXEC)

    def read(self) -> Usage:
        """Return what has been used; raises OSError or IndexError when the process is no more."""
        own = time.clock_gettime(self._clock)
        peak_kib = int(os.pread(self._status, _BYTES, 0).partition(b"VmHWM:")[2].split(maxsplit=1)[0])
        ticks = os.pread(self._stat, _BYTES, 0).rpartition(b")")[2].split()[_CHILD_TICKS]
        return Usage(own + sum(map(int, ticks)) / _TICKS, peak_kib / 1024)

    def close(self) -> None:
        """Let go of the records."""
        os.close(self._status)
        os.close(self._stat)
