"""Runs one fold or one split and appends what happened; knows neither queues nor leases."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, assert_never

import structlog

from datarun.blobs import BlobStore
from datarun.crashes import crash_point
from datarun.errors import BlobMissing, BlobsMismatch, BlobsMissing, LogUnavailable
from datarun.events import (
    Blob,
    Cause,
    DataSplit,
    Fault,
    FoldFailed,
    FoldRequested,
    FoldTested,
    FoldTrained,
    Metrics,
    Sandbox,
    Split,
    SplitFailed,
    Stage,
)
from datarun.log import StoredRecord
from services.runner.execution import Executor, Failed, InputsCorrupt, Predictions, Tested, Trained
from services.runner.fitting import fitted
from services.runner.publisher import Publisher
from services.runner.runs import FoldRun, SplitRun

SPLIT_TRIES = 3
"""So often a split whose blobs are not there is given back: another runner may reach them."""
FLOAT64 = "application/vnd.datarun.float64"

log = structlog.get_logger(__name__)


class Identity(Protocol):
    """Who runs, and how isolated."""

    @property
    def runner_id(self) -> str:
        """The runner's name in every event."""
        ...

    @property
    def sandbox(self) -> Sandbox:
        """The isolation in force."""
        ...


@dataclass(frozen=True, slots=True)
class Worker:
    """Turns requests into results: blobs first, then the event that names them."""

    executor: Executor
    blobs: BlobStore
    publisher: Publisher
    identity: Identity

    def run_fold(self, run: FoldRun) -> Tested | Failed:
        """Run one delivery and return how it ended; raises Retryable for a platform fault."""
        request, record = run.request, run.record

        def on_trained(trained: Trained) -> None:
            blob = self._store(trained.predictions)
            event = FoldTrained(
                **self._run_fields(request),
                metrics=trained.metrics,
                full_train_predictions=blob,
                predictions_shape=trained.predictions.shape,
                sandbox=self.identity.sandbox,
            )
            # Nobody waits for progress: the result repeats all of it.
            self.publisher.append(event, cause=record).add_done_callback(_report_lost_progress)

        outcome = self._ran(run, on_trained)
        # A fold that takes its runner down with it, whichever runs it.
        crash_point(f"runner.fold.{request.fold_id}")
        return outcome

    def conclude(self, run: FoldRun, outcome: Tested | Failed) -> FoldTested | FoldFailed | None:
        """Return the result of a run, whose blobs are stored; raises Retryable for a platform fault.

        None if somebody else has said meanwhile how the run ended; else nobody but `tell` says it.
        """
        if isinstance(outcome, Failed) and outcome.cause is Cause.CANCELLED:
            # Whoever had it killed has told, or tells, what became of it.
            log.info("fold.killed", **run.named.model_dump())
            return None
        event = self._result(run.request, outcome)
        return event if run.claim() else None

    def tell(self, run: FoldRun, result: FoldTested | FoldFailed) -> None:
        """Append a result and return when the log has it."""
        crash_point("runner.before_result")
        self.publisher.append_surely(result, cause=run.record)
        crash_point("runner.after_result")

    def run_split(self, run: SplitRun) -> bool:
        """Split a dataset and append the result, or not, as for a fold; raises Retryable for a platform fault."""
        request = run.request
        common: dict[str, Any] = {
            "raw_data_id": request.raw_data_id,
            "attempt": request.attempt,
            "task_id": request.task_id,
            "runner_id": self.identity.runner_id,
        }
        outcome = self._split(run)
        event: DataSplit | SplitFailed
        if isinstance(outcome, Failed):
            text = outcome.message if not outcome.log else f"{outcome.message}\n{outcome.log}"
            event = SplitFailed(**common, cause=outcome.cause, fault=outcome.fault, log=fitted(text))
        else:
            event = DataSplit(**common, split=outcome)
        if not run.claim():
            return False
        crash_point("runner.before_split_result")
        self.publisher.append_surely(event, cause=run.work.record)
        crash_point("runner.after_split_result")
        return True

    def _ran(self, run: FoldRun, on_trained: Callable[[Trained], None]) -> Tested | Failed:
        try:
            return self.executor.run(run.request, on_trained=on_trained)
        except (BlobMissing, InputsCorrupt) as error:
            # Its next deliveries may find them elsewhere; who sent it finds this.
            self._lament(run.record, error)
            raise

    def _split(self, run: SplitRun) -> Split | Failed:
        try:
            return self.executor.split(run.request)
        except (BlobMissing, InputsCorrupt) as error:
            if run.work.delivery_count < SPLIT_TRIES:
                raise
            self._lament(run.work.record, error)
            return Failed(
                stage=Stage.SPLIT,
                cause=Cause.INVALID,
                fault=Fault.PLATFORM,
                message=f"{error} - ERROR(split data) \n",
            )

    def _lament(self, record: StoredRecord, error: BlobMissing | InputsCorrupt) -> None:
        """Keep a record whose blobs are not there, or not what it says, as a dead letter."""
        refusal = BlobsMissing if isinstance(error, BlobMissing) else BlobsMismatch
        try:
            self.publisher.dead_letter(record, refusal(str(error)))
        except LogUnavailable as unavailable:
            log.warning("runner.dead_letter_lost", error=str(unavailable))

    def _result(self, request: FoldRequested, outcome: Tested | Failed) -> FoldTested | FoldFailed:
        fields = self._run_fields(request)
        match outcome:
            case Tested():
                return FoldTested(
                    **fields,
                    metrics=outcome.metrics,
                    full_train_predictions=self._store(outcome.full_train),
                    full_train_shape=outcome.full_train.shape,
                    test_predictions=self._store(outcome.test),
                    test_shape=outcome.test.shape,
                    log=fitted(outcome.log),
                    sandbox=self.identity.sandbox,
                    provenance=outcome.provenance,
                )
            case Failed():
                full_train = outcome.full_train
                return FoldFailed(
                    **fields,
                    stage=outcome.stage,
                    cause=outcome.cause,
                    fault=outcome.fault,
                    message=fitted(outcome.message),
                    log=fitted(outcome.log),
                    metrics=outcome.metrics or Metrics(),
                    full_train_predictions=self._store(full_train) if full_train else None,
                    full_train_shape=full_train.shape if full_train else None,
                    sandbox=self.identity.sandbox,
                )
            case _:
                assert_never(outcome)

    def _run_fields(self, request: FoldRequested) -> dict[str, Any]:
        return {
            "fold_id": request.fold_id,
            "attempt": request.attempt,
            "delivery": request.delivery,
            "submission_id": request.submission_id,
            "raw_data_id": request.dataset.raw_data_id,
            "runner_id": self.identity.runner_id,
        }

    def _store(self, predictions: Predictions) -> Blob:
        blob = self.blobs.put(predictions.content, media_type=FLOAT64)
        crash_point("runner.after_blob")
        return blob


def _report_lost_progress(done: object) -> None:
    error = getattr(done, "exception", lambda: None)()
    if isinstance(error, LogUnavailable):
        log.warning("runner.progress_lost", error=str(error))
