"""Slices of the log folded by several processes at once, and written by them one after the other.

Each slice begins where the one before it ends, so what is committed is always the log up to some offsets, as if one
process had done it. A process that loses who told it what to do ends before it writes any more.
"""

from __future__ import annotations

import multiprocessing
import pickle
from collections import deque
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection as Pipe
from typing import Any

from psycopg2.extensions import connection as Connection

from datarun.crashes import crash_point
from datarun.errors import DatarunError
from datarun.log import EventLog
from datarun.projection.offsets import Offsets
from datarun.projection.share import Ground, opened, stretches, uncollected, write
from datarun.projection.slices import slices

END_SECONDS = 10.0
_SPAWNED = multiprocessing.get_context("spawn")
"""Threads of the log's client do not survive a fork."""


class WorkerEnded(DatarunError):
    """A process that folded a part of the log ended; the same command goes on from what was committed."""


@dataclass(frozen=True, slots=True)
class _Slice:
    """What a worker is told to do."""

    start: Offsets
    end: Offsets


def project_by_workers(ground: Ground, start: Offsets, until: Offsets, *, workers: int, records: int) -> int:
    """Apply the records of some partitions from `start` up to `until` and return how many there were.

    Raises WorkerEnded, and what a worker raised.
    """
    event_log, count = ground.open_log(), 0
    try:
        with ExitStack() as stack:
            idle = deque(stack.enter_context(_worker(ground)) for _ in range(workers))
            busy: deque[Pipe] = deque()
            for first, last in slices(event_log, start, until, records=records):
                if not idle:
                    count += _written(busy[0])
                    idle.append(busy.popleft())
                worker = idle.popleft()
                worker.send(_Slice(first, last))
                busy.append(worker)
            return count + sum(map(_written, busy))
    finally:
        event_log.close()


def _written(worker: Pipe) -> int:
    """Let a worker write what it has folded, after all that is before it, and return how many records it was."""
    try:
        answer = worker.recv()
        if answer is None:
            crash_point("rebuild.before_turn")
            worker.send(None)
            answer = worker.recv()
            crash_point("rebuild.after_turn")
    except (EOFError, OSError) as error:
        raise WorkerEnded from error
    if isinstance(answer, BaseException):
        raise answer
    return int(answer)


@contextmanager
def _worker(ground: Ground) -> Iterator[Pipe]:
    here, there = _SPAWNED.Pipe()
    process = _SPAWNED.Process(target=_work, args=(ground, there), daemon=True)
    process.start()
    there.close()
    try:
        yield here
    finally:
        here.close()
        process.join(END_SECONDS)
        if process.is_alive():
            process.kill()
            process.join()


def _work(ground: Ground, orders: Pipe) -> None:
    """Do what is ordered until nobody is there to order any more."""
    try:
        with opened(ground) as (event_log, connection), uncollected():
            while True:
                order = orders.recv()
                answer: Any
                try:
                    answer = _fold(ground, event_log, connection, order, orders)
                except EOFError:
                    raise
                except Exception as error:  # noqa: BLE001 - it is raised again where it can be told
                    answer = _portable(error)
                orders.send(answer)
    except (EOFError, BrokenPipeError, KeyboardInterrupt):
        return


def _fold(ground: Ground, event_log: EventLog, connection: Connection, order: _Slice, orders: Pipe) -> int:
    """Fold a slice, wait for its turn and write it; more than memory is to hold is written in parts."""
    count, is_its_turn = 0, False
    for stretch in stretches(ground, event_log, order.start, order.end, is_all=True):
        if not is_its_turn:
            orders.send(None)
            orders.recv()
            is_its_turn = True
        count += write(ground, event_log, connection, stretch)
    return count


def _portable(error: Exception) -> Exception:
    try:
        pickle.loads(pickle.dumps(error))  # noqa: S301 - made a moment ago
    except Exception:  # noqa: BLE001 - whatever it has that does not travel
        return DatarunError(f"{type(error).__name__}: {error}")
    return error
