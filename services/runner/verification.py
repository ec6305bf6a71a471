"""Running a tested fold again and comparing: what it came from, field by field, and what came of it, bit by bit."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any, TypeVar

from datarun import envelope
from datarun.errors import BlobMissing, DatarunError, Rejected, Retryable
from datarun.events import Blob, Event, FoldReproduced, FoldRequested, FoldTested, Provenance, Sandbox
from datarun.lifecycle import MAX_DELIVERIES
from datarun.log import EventLog, Position, StoredRecord
from datarun.log.reading import record_at
from services.runner.execution import Executor, Failed, Predictions, Tested
from services.runner.publisher import Publisher
from services.runner.tested import TestedFold

E = TypeVar("E", bound=Event)
PREDICTIONS = ("full_train_predictions", "test_predictions")


class NotVerifiable(DatarunError):
    """A fold could not be run again."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What came of one fold: its recorded result and what its second run says of it."""

    tested: FoldTested
    event: FoldReproduced

    def differences(self) -> dict[str, tuple[Any, Any]]:
        """Return the fields of the provenance that differ: what they were, what they are now."""
        then, now = self.tested.provenance, self.event.provenance
        return {name: (getattr(then, name), getattr(now, name)) for name in differing_provenance(then, now)}


@dataclass(frozen=True, slots=True)
class Verifier:
    """Runs folds again as a runner would and appends what it finds; changes no fold."""

    executor: Executor
    log: EventLog
    publisher: Publisher
    verifier_id: str
    sandbox: Sandbox

    def verify(self, fold: TestedFold) -> Verdict:
        """Run a fold again; raises NotVerifiable that says why it cannot be, LogUnavailable."""
        request, _ = self._read(fold.request, FoldRequested)
        tested, record = self._read(fold.result, FoldTested)
        event = self._judge(tested, self._run(request))
        self.publisher.append(event, cause=record).result()
        return Verdict(tested, event)

    def _read(self, position: Position, kind: type[E]) -> tuple[E, StoredRecord]:
        record = record_at(self.log, position)
        try:
            event = envelope.decode(record.value, record.headers) if record else None
        except Rejected as refusal:
            raise NotVerifiable(str(refusal)) from refusal
        if record is None or not isinstance(event, kind):
            raise NotVerifiable(f"its {kind.__name__} is no more in the log")
        return event, record

    def _run(self, request: FoldRequested) -> Tested | Failed:
        problem: Retryable | None = None
        for _ in range(MAX_DELIVERIES):
            try:
                return self.executor.run(request, on_trained=lambda _: None)
            except BlobMissing as error:
                raise NotVerifiable(str(error)) from error
            except Retryable as error:
                problem = error
        raise NotVerifiable(str(problem)) from problem

    def _judge(self, tested: FoldTested, outcome: Tested | Failed) -> FoldReproduced:
        provenance = outcome.provenance if isinstance(outcome, Tested) else None
        predictions = differing_predictions(tested, outcome)
        return FoldReproduced(
            fold_id=tested.fold_id,
            attempt=tested.attempt,
            delivery=tested.delivery,
            submission_id=tested.submission_id,
            raw_data_id=tested.raw_data_id,
            runner_id=self.verifier_id,
            tested_by=tested.runner_id,
            reproduced=not predictions,
            differing=(*differing_provenance(tested.provenance, provenance), *predictions),
            cause=outcome.cause if isinstance(outcome, Failed) else None,
            provenance=provenance,
            sandbox=self.sandbox,
        )


def differing_provenance(then: Provenance | None, now: Provenance | None) -> tuple[str, ...]:
    """Return the names of the fields that differ; none where one of the two was not recorded."""
    if then is None or now is None:
        return ()
    return tuple(name for name in Provenance.model_fields if getattr(then, name) != getattr(now, name))


def differing_predictions(tested: FoldTested, outcome: Tested | Failed) -> tuple[str, ...]:
    """Return which predictions are not the recorded ones bit for bit, or are not there."""
    test = outcome.test if isinstance(outcome, Tested) else None
    same = (
        _is(tested.full_train_predictions, tested.full_train_shape, outcome.full_train),
        _is(tested.test_predictions, tested.test_shape, test),
    )
    return tuple(name for name, is_same in zip(PREDICTIONS, same, strict=True) if not is_same)


def _is(blob: Blob, shape: tuple[int, ...], predictions: Predictions | None) -> bool:
    """Tell whether these are the bytes that the blob is named by, in the same shape."""
    if predictions is None or predictions.shape != shape:
        return False
    return hashlib.sha256(predictions.content).hexdigest() == blob.sha256
