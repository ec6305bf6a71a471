"""The runner's loop: take work while a slot is free, say that it started, accept it, run it.

A fold is accepted once FoldStarted is in the log, so its lease, not Kafka's lock, guards it from then on.
A split is accepted when its result is, or when the lock would lapse; heartbeats name it meanwhile.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeoutError
from dataclasses import dataclass, field

import structlog

from datarun import envelope
from datarun.crashes import crash_point
from datarun.errors import LogUnavailable, Rejected, Retryable
from datarun.events import FoldRequested, FoldStarted, RunningFold, SplitRequested
from datarun.log import Work, WorkQueue
from datarun.topics import Catalogue
from services.runner.heartbeat import Holdings
from services.runner.work import Worker

LEASE_SECONDS = 10.0
STARTED_SECONDS = 10.0
SPLIT_LOCK_SECONDS = 10.0
"""Shorter than the share group's record lock, so that an accept still counts."""
PAUSE_SECONDS = 1.0
REMEMBERED = 10_000
"""Deliveries begun here; a broker killed right after an accept hands the record out once more."""
FULL_SECONDS = 0.05
"""How often a full runner gives back what its open fetches locked; folds shorter than this are not held up by it."""
PRIORITY = ("H", "data", "L")
"""The order in which queues are asked; a split is short and many folds may wait for it."""

log = structlog.get_logger(__name__)


class Slots:
    """How many works may run at once; `wait_free` wakes when one ends."""

    def __init__(self, count: int) -> None:
        self._free = count
        self._changed = threading.Condition()

    @property
    def free(self) -> int:
        """How many more works may start."""
        with self._changed:
            return self._free

    def occupy(self) -> None:
        """Take one slot."""
        with self._changed:
            self._free -= 1

    def vacate(self) -> None:
        """Give one slot back."""
        with self._changed:
            self._free += 1
            self._changed.notify_all()

    def wait_free(self, seconds: float) -> bool:
        """Wait until a slot is free, or for the given time; tell which."""
        with self._changed:
            return self._changed.wait_for(lambda: self._free > 0, seconds)


@dataclass(slots=True)
class _HeldSplit:
    work: Work
    done: Future[None]
    taken_at: float


@dataclass
class Service:
    """Everything one runner does; `run` returns after `stop`."""

    queue: WorkQueue
    worker: Worker
    catalogue: Catalogue
    holdings: Holdings
    slot_count: int
    grace_seconds: float
    clock: Callable[[], float] = time.monotonic
    _stopping: threading.Event = field(default_factory=threading.Event)
    _splits: list[_HeldSplit] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._slots = Slots(self.slot_count)
        self._begun: OrderedDict[RunningFold, None] = OrderedDict()
        self._pool = ThreadPoolExecutor(self.slot_count, thread_name_prefix="slot")

    def stop(self) -> None:
        """Ask the loop to end; running work has `grace_seconds` to finish."""
        self._stopping.set()

    def run(self) -> None:
        """Take and run work until stopped."""
        while not self._stopping.is_set():
            try:
                self._turn()
            except LogUnavailable as error:
                log.warning("runner.log_unavailable", error=str(error))
                self._stopping.wait(PAUSE_SECONDS)
        self._finish()

    def _turn(self) -> None:
        self._settle_splits()
        if not self._slots.wait_free(FULL_SECONDS):
            self._drain()
            return
        work = self.queue.take()
        if work is not None:
            self._begin(work)

    def _drain(self) -> None:
        """Give back what open fetches have locked for a runner that is full."""
        for work in self.queue.drain():
            if self._slots.free == 0:
                self.queue.release(work)
            else:
                self._begin(work)

    def _begin(self, work: Work) -> None:
        record = work.record
        crash_point("runner.after_take")
        try:
            event = envelope.decode(record.value, record.headers)
            envelope.check_route(event, topic=record.topic, key=record.key, catalogue=self.catalogue)
        except Rejected as refusal:
            self.worker.publisher.dead_letter(record, refusal)
            self.queue.accept(work)
            return
        if isinstance(event, FoldRequested):
            self._begin_fold(work, event)
        elif isinstance(event, SplitRequested):
            self._begin_split(work, event)

    def _begin_fold(self, work: Work, request: FoldRequested) -> None:
        identity = self.worker.identity
        running = RunningFold(fold_id=request.fold_id, attempt=request.attempt, delivery=request.delivery)
        started = FoldStarted(
            fold_id=request.fold_id,
            attempt=request.attempt,
            delivery=request.delivery,
            submission_id=request.submission_id,
            raw_data_id=request.dataset.raw_data_id,
            runner_id=identity.runner_id,
            lease_seconds=LEASE_SECONDS,
        )
        if running in self._begun:
            # The broker forgot that it was accepted; a delivery that was begun here is never begun again.
            log.info("fold.known", fold_id=running.fold_id, attempt=running.attempt, delivery=running.delivery)
            self.queue.accept(work)
            return
        # Held before it is started: a heartbeat between the two must not miss it.
        self.holdings.add_fold(running)
        try:
            self.worker.publisher.append(started, cause=work.record).result(STARTED_SECONDS)
        except (LogUnavailable, FutureTimeoutError) as error:
            self.holdings.remove_fold(running)
            self.queue.release(work)
            raise LogUnavailable(f"fold {request.fold_id} was not started: {error}") from error
        self._remember(running)
        crash_point("runner.after_started")
        self.queue.accept(work)
        crash_point("runner.after_accept")
        self._slots.occupy()
        self._pool.submit(self._run_fold, request, work, running)

    def _remember(self, running: RunningFold) -> None:
        self._begun[running] = None
        while len(self._begun) > REMEMBERED:
            self._begun.popitem(last=False)

    def _run_fold(self, request: FoldRequested, work: Work, running: RunningFold) -> None:
        logger = log.bind(fold_id=request.fold_id, attempt=request.attempt, delivery=request.delivery)
        try:
            self.worker.run_fold(request, work.record)
            logger.info("fold.done")
        except Retryable as error:
            # No result: heartbeats stop naming the fold and the reaper requests it again.
            logger.warning("fold.given_back", error=str(error))
        except Exception:
            logger.exception("fold.given_back")
        finally:
            self.holdings.remove_fold(running)
            self._slots.vacate()

    def _begin_split(self, work: Work, request: SplitRequested) -> None:
        self.holdings.add_split(request.raw_data_id)
        self._slots.occupy()
        done = self._pool.submit(self._run_split, request, work)
        self._splits.append(_HeldSplit(work, done, self.clock()))

    def _run_split(self, request: SplitRequested, work: Work) -> None:
        try:
            self.worker.run_split(request, work.record)
            log.info("split.done", raw_data_id=request.raw_data_id, attempt=request.attempt)
        finally:
            self.holdings.remove_split(request.raw_data_id)
            self._slots.vacate()

    def _settle_splits(self) -> None:
        """Accept the splits whose results are in the log, release the failed, accept before a lock lapses."""
        kept = []
        for held in self._splits:
            if held.done.done() and held.done.exception() is not None:
                log.warning("split.given_back", error=str(held.done.exception()))
                self.queue.release(held.work)
            elif held.done.done() or self.clock() - held.taken_at > SPLIT_LOCK_SECONDS:
                self.queue.accept(held.work)
            else:
                kept.append(held)
        self._splits = kept

    def _finish(self) -> None:
        """Let running work end within the grace, then leave the queue."""
        deadline = self.clock() + self.grace_seconds
        while self.clock() < deadline and (self.holdings.folds() or self.holdings.splits()):
            time.sleep(0.02)
        self.worker.publisher.give_up()
        self._settle_splits()
        self.queue.close()
        self._pool.shutdown(wait=False, cancel_futures=True)
