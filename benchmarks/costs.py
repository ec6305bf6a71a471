"""What some work takes: by the clock, and of all cores, servers included, since the clock knows who else is busy."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

import psutil


@dataclass(frozen=True, slots=True)
class Cost:
    """What some work took: seconds by the clock, and of all cores, servers included."""

    seconds: float
    cpu_seconds: float


@contextmanager
def measured(costs: list[Cost]) -> Iterator[None]:
    """Add what the block took; servers and workers are children of this process."""
    started, cpu = time.perf_counter(), _cpu_seconds()
    yield
    costs.append(Cost(time.perf_counter() - started, _cpu_seconds() - cpu))


def _cpu_seconds() -> float:
    this = psutil.Process()
    total = 0.0
    for process in (this, *this.children(recursive=True)):
        with suppress(psutil.Error):
            times = process.cpu_times()
            total += times.user + times.system + times.children_user + times.children_system
    return total


def report(name: str, cost: Cost, count: int, said: str = "") -> None:
    """Print a line: events a second, and microseconds of all cores an event."""
    cpu = cost.cpu_seconds / count * 1e6
    print(f"{name:28}{count / cost.seconds:10,.0f} events/s   {cpu:6.1f} us of CPU an event   {said}", flush=True)
