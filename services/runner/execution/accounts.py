"""What the kernel has on record of a process: its CPU clock, that of the children it waited for, its peak memory."""

from __future__ import annotations

import contextlib
import os
import time
from dataclasses import dataclass
from pathlib import Path

from services.runner.execution.isolated.trees import children, family

_CPU_CLOCK = 2
_ALL_TICKS, _CHILD_TICKS = slice(11, 15), slice(13, 15)
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
        self._pid = pid
        self._clock = (~pid << 3) | _CPU_CLOCK
        self._status = os.open(f"/proc/{pid}/status", os.O_RDONLY | os.O_CLOEXEC)
        self._stat = os.open(f"/proc/{pid}/stat", os.O_RDONLY | os.O_CLOEXEC)

    def read(self) -> Usage:
        """Return what has been used; raises OSError or IndexError when the process is no more."""
        own = time.clock_gettime(self._clock)
        peak_mib = _peak_mib(os.pread(self._status, _BYTES, 0))
        return Usage(own + _seconds(os.pread(self._stat, _BYTES, 0), _CHILD_TICKS), peak_mib)

    def read_with_descendants(self) -> Usage:
        """Return that with what its living descendants have used; of the peaks the highest."""
        usage = self.read()
        for pid in family(children(str(self._pid))):
            with contextlib.suppress(OSError, IndexError):  # it is gone: another has waited for it, or nobody will
                record = Path("/proc") / str(pid)
                cpu_seconds = _seconds((record / "stat").read_bytes(), _ALL_TICKS)
                peak_mib = _peak_mib((record / "status").read_bytes())
                usage = Usage(usage.cpu_seconds + cpu_seconds, max(usage.peak_mib, peak_mib))
        return usage

    def close(self) -> None:
        """Let go of the records."""
        os.close(self._status)
        os.close(self._stat)


def _seconds(stat: bytes, ticks: slice) -> float:
    return sum(map(int, stat.rpartition(b")")[2].split()[ticks])) / _TICKS


def _peak_mib(status: bytes) -> float:
    return int(status.partition(b"VmHWM:")[2].split(maxsplit=1)[0]) / 1024
