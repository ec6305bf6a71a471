"""Ends trees of processes that do not want to end, fork bombs among them.

All are stopped before any is killed: a stopped process forks no more, and keeps its place under the process limit.
Killing one by one would free places that the others fill again.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path


def children(pid: str = "self") -> list[int]:
    """Return the process ids of a process's children, whichever of its threads has them; none once it is gone."""
    found: list[int] = []
    with suppress(FileNotFoundError, ProcessLookupError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            found += map(int, (task / "children").read_text(encoding="ascii").split())
    return found


def kill_trees(roots: Iterable[int]) -> None:
    """Kill processes and all their descendants; does not wait for them."""
    roots = list(roots)
    stopped: set[int] = set()
    # A fork under way when the signal comes fails, so nothing can appear below what is stopped.
    while fresh := [pid for pid in family(roots) if pid not in stopped]:
        _signal(fresh, signal.SIGSTOP)
        stopped.update(fresh)
    _signal(stopped, signal.SIGKILL)


def family(roots: Iterable[int]) -> Iterator[int]:
    """Yield processes and all their descendants."""
    for root in roots:
        yield root
        yield from family(children(str(root)))


def _signal(pids: Iterable[int], number: int) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, number)
