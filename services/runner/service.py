"""The runner's loop: take work while a slot is free, say that it started, accept it, run it; and how it stops.

A fold is accepted once FoldStarted is in the log, so its lease, not Kafka's lock, guards it from then on.
A split is accepted when its result is, or when the lock would lapse; heartbeats name it meanwhile.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import TimeoutError as FutureTimeoutError
from dataclasses import dataclass, field
from functools import partial

import structlog

from datarun import envelope
from datarun.crashes import crash_point
from datarun.errors import LogUnavailable, Rejected, Retryable
from datarun.events import FoldRequested, FoldStarted, RunningFold, SplitRequested
from datarun.log import Work, WorkQueue
from datarun.topics import Catalogue
from services.runner.admission import Admission, Unconditional
from services.runner.confirmation import Verdict
from services.runner.execution import Failed, Tested
from services.runner.handover import ask_again, hand_back
from services.runner.heartbeat import Holdings
from services.runner.runs import FoldRun, SplitRun
from services.runner.slots import Slots
from services.runner.turns import PRIORITY, Turns
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
REST_SECONDS = 0.02
HANDOVER_SECONDS = 1.0
"""What a runner takes beyond the grace to hand its folds over."""

log = structlog.get_logger(__name__)


@dataclass
class Service:
    """Everything one runner does; `run` returns after `stop`."""

    queue: WorkQueue
    worker: Worker
    catalogue: Catalogue
    holdings: Holdings
    slot_count: int
    grace_seconds: float
    queues: Sequence[str] = PRIORITY
    admission: Admission = field(default_factory=Unconditional)
    clock: Callable[[], float] = time.monotonic
    _stopping: threading.Event = field(default_factory=threading.Event)
    _stopped_at: float = 0.0
    _splits: list[SplitRun] = field(default_factory=list)
    _awaited: list[tuple[Work, FoldRequested]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._slots = Slots(self.slot_count)
        self._turns = Turns(self.queues)
        self._begun: OrderedDict[RunningFold, None] = OrderedDict()

    @property
    def stopping(self) -> bool:
        """Whether it takes no more work."""
        return self._stopping.is_set()

    def stop(self) -> None:
        """Ask the loop to end; running work has `grace_seconds` from now to finish."""
        self._stopped_at = self.clock()
        self._stopping.set()

    def run(self) -> None:
        """Take and run work until stopped."""
        while not self.stopping:
            try:
                self._turn()
            except LogUnavailable as error:
                log.warning("runner.log_unavailable", error=str(error))
                self._stopping.wait(PAUSE_SECONDS)
        self._finish()

    def _turn(self) -> None:
        self._settle_splits()
        self._admit_awaited()
        if not self._slots.wait_free(FULL_SECONDS):
            self._drain()
            return
        work = self.queue.take(self._turns.order())
        self._turns.took(None if work is None else work.queue)
        if work is not None:
            self._begin(work)

    def _drain(self) -> None:
        """Give back what open fetches have locked, even if a slot was vacated just now: it may not be its turn."""
        for work in self.queue.drain():
            self.queue.release(work)

    def _begin(self, work: Work) -> None:
        record = work.record
        crash_point("runner.after_take")
        try:
            event = envelope.decode(record.value, record.headers)
            envelope.check_route(event, record, catalogue=self.catalogue)
        except Rejected as refusal:
            self._bury(work, refusal)
            return
        if isinstance(event, FoldRequested):
            self._admit(work, event)
        elif isinstance(event, SplitRequested):
            self._begin_split(SplitRun(event, work, self.clock()))

    def _bury(self, work: Work, refusal: Rejected) -> None:
        try:
            self.worker.publisher.dead_letter(work.record, refusal)
        except LogUnavailable:
            # Held, it would keep its queue from handing out anything else.
            self.queue.release(work)
            raise
        self.queue.accept(work)

    def _admit(self, work: Work, request: FoldRequested) -> None:
        match self.admission.judge(work, request):
            case Verdict.START:
                self._begin_fold(work, FoldRun(request, work.record))
            case Verdict.SKIP | Verdict.LEAVE:
                self.queue.accept(work)
            case Verdict.WAIT:
                # Not acknowledged, so its queue hands out no more; the others do.
                self._awaited.append((work, request))
            case Verdict.RELEASE:
                self.queue.release(work)

    def _admit_awaited(self) -> None:
        for _ in range(len(self._awaited)):
            work, request = self._awaited.pop(0)
            if self._slots.wait_free(0):
                self._admit(work, request)
            else:
                self.queue.release(work)

    def _begin_fold(self, work: Work, run: FoldRun) -> None:
        named = run.named
        if named in self._begun:
            # The broker forgot that it was accepted; a delivery that was begun here is never begun again.
            log.info("fold.known", **named.model_dump())
            self.queue.accept(work)
            return
        # Held before it is started: a heartbeat between the two must not miss it.
        self.holdings.add(run)
        started = self.worker.publisher.append(self._started(run.request), cause=run.record)
        self._slots.sent()
        try:
            started.result(STARTED_SECONDS)
        except (LogUnavailable, FutureTimeoutError) as error:
            self.holdings.remove(run)
            self.queue.release(work)
            raise LogUnavailable(f"fold {named.fold_id} was not started: {error}") from error
        self._remember(named)
        crash_point("runner.after_started")
        # From here on its lease guards it. Accepted before it runs: a fold that takes its runner down with it
        # would be handed out again, beyond its deliveries.
        self.queue.accept(work)
        crash_point("runner.after_accept")
        self._spawn(partial(self._run_fold, run))

    def _started(self, request: FoldRequested) -> FoldStarted:
        return FoldStarted(
            fold_id=request.fold_id,
            attempt=request.attempt,
            delivery=request.delivery,
            submission_id=request.submission_id,
            raw_data_id=request.dataset.raw_data_id,
            runner_id=self.worker.identity.runner_id,
            lease_seconds=LEASE_SECONDS,
        )

    def _remember(self, named: RunningFold) -> None:
        self._begun[named] = None
        while len(self._begun) > REMEMBERED:
            self._begun.popitem(last=False)

    def _spawn(self, run: Callable[[], None]) -> None:
        self._slots.occupy()
        # A daemon: the process must not wait for it when its end was told by somebody else.
        threading.Thread(target=run, daemon=True, name="slot").start()

    def _run_fold(self, run: FoldRun) -> None:
        logger = log.bind(**run.named.model_dump())
        try:
            result = self.worker.conclude(run, self._outcome(run))
            if result is not None:
                self.worker.tell(run, result)
                logger.info("fold.done")
        except Retryable as error:
            # No result: heartbeats stop naming the fold and the reaper requests it again.
            logger.warning("fold.given_back", error=str(error))
        except Exception:
            logger.exception("fold.given_back")
        finally:
            self.holdings.remove(run)
            self._slots.told()

    def _outcome(self, run: FoldRun) -> Tested | Failed:
        try:
            return self.worker.run_fold(run)
        finally:
            # The next one need not wait until this one's predictions are stored and the log has its result.
            self._slots.vacate_untold()

    def _begin_split(self, run: SplitRun) -> None:
        self.holdings.add(run)
        self._splits.append(run)
        self._spawn(partial(self._run_split, run))

    def _run_split(self, run: SplitRun) -> None:
        try:
            if self.worker.run_split(run):
                log.info("split.done", raw_data_id=run.request.raw_data_id, attempt=run.request.attempt)
        except Exception as error:  # noqa: BLE001 - the loop reads it and gives the split back
            run.done.set_exception(error)
        else:
            run.done.set_result(None)
        finally:
            self.holdings.remove(run)
            self._slots.vacate()

    def _settle_splits(self) -> None:
        """Accept the splits whose results are in the log, release the failed, accept before a lock lapses."""
        self._splits = [run for run in self._splits if not self._is_settled(run)]

    def _is_settled(self, run: SplitRun) -> bool:
        done = run.done.done()
        error = run.done.exception() if done else None
        if error is not None:
            log.warning("split.given_back", error=str(error))
        if run.accepted:
            return done
        if error is not None:
            self.queue.release(run.work)
        elif done or self.clock() - run.taken_at > SPLIT_LOCK_SECONDS:
            self.queue.accept(run.work)
            run.accepted = True
        return done

    def _finish(self) -> None:
        """Let running work end within the grace, hand the rest over to other runners, then leave the queue."""
        for work, _ in self._awaited:
            self.queue.release(work)
        until = self._stopped_at + self.grace_seconds
        self._rest(until)
        self._hand_over()
        # What could not be claimed is appending its result.
        self._rest(max(until, self.clock()) + HANDOVER_SECONDS)
        self.worker.publisher.give_up()
        self.queue.close()

    def _rest(self, until: float) -> None:
        """Wait until nothing runs any more, or until the given time, and keep no record from others meanwhile."""
        while (self.holdings.folds() or self._splits) and self.clock() < until:
            try:
                self._settle_splits()
                self._drain()
            except LogUnavailable as error:
                log.warning("runner.log_unavailable", error=str(error))
            time.sleep(REST_SECONDS)

    def _hand_over(self) -> None:
        folds = [run for run in self.holdings.fold_runs() if run.claim()]
        splits = [run for run in self._splits if run.claim()]
        for run in folds:
            self.worker.executor.cancel(run.request.fold_id, run.request.attempt)
        crash_point("runner.after_claim")
        hand_back(
            folds,
            publisher=self.worker.publisher,
            runner_id=self.worker.identity.runner_id,
            seconds=HANDOVER_SECONDS,
        )
        for split in splits:
            if not split.accepted:
                self.queue.release(split.work)
        accepted = [split for split in splits if split.accepted]
        ask_again(accepted, publisher=self.worker.publisher, seconds=HANDOVER_SECONDS)
        self._splits = [split for split in self._splits if split not in splits]
        for fold in folds:
            self.holdings.remove(fold)
        for split in splits:
            self.holdings.remove(split)
