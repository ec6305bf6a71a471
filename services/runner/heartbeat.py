"""Says every two seconds that the runner is alive and what it holds; the reaper takes back what nobody names."""

from __future__ import annotations

import threading
from collections.abc import Callable
from itertools import count

import structlog

from datarun.events import Id, RunnerHeartbeat, RunningFold
from services.runner.publisher import Publisher
from services.runner.runs import FoldRun, SplitRun

INTERVAL_SECONDS = 2.0

log = structlog.get_logger(__name__)


class Holdings:
    """The folds and splits this runner holds at the moment; shared by the loop, the slots and the heartbeat."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._folds: set[FoldRun] = set()
        self._splits: set[SplitRun] = set()

    def add(self, run: FoldRun | SplitRun) -> None:
        """Hold a fold or a split."""
        with self._lock:
            if isinstance(run, FoldRun):
                self._folds.add(run)
            else:
                self._splits.add(run)

    def remove(self, run: FoldRun | SplitRun) -> None:
        """Let a fold or a split go, finished or not."""
        with self._lock:
            if isinstance(run, FoldRun):
                self._folds.discard(run)
            else:
                self._splits.discard(run)

    def fold_runs(self) -> tuple[FoldRun, ...]:
        """Return the folds held."""
        with self._lock:
            return tuple(self._folds)

    def split_runs(self) -> tuple[SplitRun, ...]:
        """Return the splits held."""
        with self._lock:
            return tuple(self._splits)

    def folds(self) -> tuple[RunningFold, ...]:
        """Return the folds held as heartbeats name them, in the order of their ids."""
        named = (run.named for run in self.fold_runs())
        return tuple(sorted(named, key=lambda fold: (fold.fold_id, fold.attempt, fold.delivery)))

    def splits(self) -> tuple[Id, ...]:
        """Return the datasets whose split is held."""
        return tuple(sorted(run.request.raw_data_id for run in self.split_runs()))


class Heart:
    """A thread that appends RunnerHeartbeat; a log that is away costs a beat, not the thread."""

    def __init__(self, publisher: Publisher, describe: Callable[[int], RunnerHeartbeat]) -> None:
        self._publisher = publisher
        self._describe = describe
        self._stopping = threading.Event()
        self._sequence = count()
        self._thread = threading.Thread(target=self._beat, daemon=True, name="heartbeat")

    def start(self) -> None:
        """Beat at once and from then on."""
        self._thread.start()

    def stop(self) -> None:
        """Beat a last time and end."""
        self._stopping.set()
        self._thread.join(INTERVAL_SECONDS)

    def _beat(self) -> None:
        last = False
        while not last:
            last = self._stopping.wait(0)
            future = self._publisher.append(self._describe(next(self._sequence)))
            future.add_done_callback(lambda done: done.exception() and log.warning("heartbeat.missed"))
            self._stopping.wait(INTERVAL_SECONDS)
