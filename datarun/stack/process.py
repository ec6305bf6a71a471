"""Child processes that cannot outlive who started them, each with its log file.

The kernel sends the death signal when the thread that forked ends: start children from one that outlives them.
"""

from __future__ import annotations

import ctypes
import os
import signal
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from datarun.errors import DatarunError

PR_SET_PDEATHSIG = 1
LOG_LIMIT_BYTES = 5 * 1024 * 1024
TAIL_BYTES = 64 * 1024

_libc = ctypes.CDLL(None, use_errno=True)


class StillRunning(DatarunError):
    """A process of an earlier start does not end."""


@dataclass(frozen=True, kw_only=True)
class Command:
    """What to run, and how the kernel ends it when its parent dies."""

    argv: Sequence[str | Path]
    cwd: Path | None = None
    environment: Mapping[str, str] | None = None
    death_signal: signal.Signals = signal.SIGKILL
    # Runs in the child before exec: changes of identity, which would otherwise clear the death signal.
    enter: Callable[[], None] | None = None

    def popen_options(self) -> dict[str, Any]:
        """Return what subprocess and asyncio need beside argv; the child leads a session, so Ctrl-C misses it."""
        return {
            "cwd": self.cwd,
            "env": self.environment,
            "preexec_fn": _child_setup(os.getpid(), self.death_signal, self.enter),
            "start_new_session": True,
        }


def _child_setup(parent: int, death_signal: signal.Signals, enter: Callable[[], None] | None) -> Callable[[], None]:
    def setup() -> None:
        if enter is not None:
            enter()
        _libc.prctl(PR_SET_PDEATHSIG, int(death_signal), 0, 0, 0)
        # The parent may have died before the line above.
        if os.getppid() != parent:
            os._exit(1)

    return setup


def open_log(path: Path) -> int:
    """Open a process's log for appending, keeping one older file once it is long; returns the descriptor."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists() and path.stat().st_size > LOG_LIMIT_BYTES:
        path.replace(path.with_suffix(".old.log"))
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)


def tail(path: Path, lines: int = 20) -> str:
    """Return the last lines of a log, or an empty text."""
    if not path.exists():
        return ""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - TAIL_BYTES))
        return "\n".join(deque(file.read().decode(errors="replace").splitlines(), maxlen=lines))


def started_at(pid: int) -> float | None:
    """Return when a process started (seconds since the epoch), or None; with the pid it names one process for ever."""
    try:
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else process.create_time()
    except psutil.NoSuchProcess:
        return None


def is_same_process(pid: int, start: float | None) -> bool:
    """Tell whether the process that was started then still runs; another one may have its pid by now."""
    now = started_at(pid)
    return now is not None and start is not None and abs(now - start) < 1.0


def end_processes(pids: Sequence[int], *, first: signal.Signals = signal.SIGTERM, patience_seconds: float = 10) -> None:
    """End processes that are not our children, first politely, then by SIGKILL; raises StillRunning."""
    alive = [psutil.Process(pid) for pid in pids if psutil.pid_exists(pid)]
    for signal_number in (first, signal.SIGKILL):
        for process in alive:
            _signal(process, signal_number)
        _, alive = psutil.wait_procs(alive, timeout=patience_seconds)
        if not alive:
            return
    raise StillRunning(f"process {alive[0].pid} of an earlier start does not end; end it by hand, then start again")


def _signal(process: psutil.Process, number: signal.Signals) -> None:
    try:
        process.send_signal(number)
    except psutil.NoSuchProcess:
        return
