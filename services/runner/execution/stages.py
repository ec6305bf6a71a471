"""The stages of a fold in one child: train, validate on the full train part, test; each measured from outside."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future

from datarun.errors import FoldFailure
from datarun.events import Metrics, Stage
from services.runner.execution import predictions
from services.runner.execution.box import Box
from services.runner.execution.conversation import Conversation
from services.runner.execution.data import FoldData, Parcel
from services.runner.execution.deadlines import Deadline
from services.runner.execution.isolated import wire
from services.runner.execution.isolated.wire import Message
from services.runner.execution.metering import Meter
from services.runner.execution.outcomes import Failed, Limits, Predictions, Tested, Trained
from services.runner.execution.scrubbing import Scrubber

Announce = Callable[[Trained], Future[None]]


class Stages:
    """One fold in one child."""

    def __init__(self, box: Box, *, limits: Limits, deadline: Deadline, scrub: Scrubber) -> None:
        self._box = box
        self._limits = limits
        self._scrub = scrub
        self._child = Conversation(box, limits=limits, deadline=deadline)
        self._meter = Meter(box)
        self._full_train: Predictions | None = None

    def run(self, job: Message, descriptors: Sequence[int], data: FoldData, *, announce: Announce) -> Tested | Failed:
        """Train, validate, test; returns the outcome once the announcement of the training is through."""
        announced: Future[None] | None = None
        outcome: Tested | Failed
        try:
            self._train(job, descriptors)
            self._ask(data.full_train, rows=data.train_rows)
            full_train = self._full_train = self._predictions(Stage.VALIDATION, rows=data.train_rows)
            self._ask(data.test, rows=data.test_rows)
            announced = announce(Trained(full_train, self._meter.metrics))
            test = self._predictions(Stage.TEST, rows=data.test_rows, columns=full_train.shape[1:])
            outcome = Tested(full_train, test, self._meter.metrics, self._log())
        except FoldFailure as failure:
            outcome = self._failed(failure)
        if announced is not None:
            announced.result()
        return outcome

    def _train(self, job: Message, descriptors: Sequence[int]) -> None:
        self._meter.begin()
        self._child.send(job, descriptors)
        self._answer(Stage.TRAIN, "trained")

    def _ask(self, parcel: Parcel, *, rows: int) -> None:
        self._meter.begin()
        self._child.send({"headers": parcel.headers, "rows": rows}, [parcel.descriptor])

    def _predictions(self, stage: Stage, *, rows: int, columns: tuple[int, ...] | None = None) -> Predictions:
        message, descriptors = self._answer(stage, "predicted", descriptors=1)
        try:
            taken = predictions.take(stage, message, descriptors[0], limit_mib=self._limits.output_mib)
        finally:
            wire.close(descriptors)
        predictions.check(stage, taken, rows=rows, columns=columns)
        return taken

    def _answer(self, stage: Stage, expected: str, *, descriptors: int = 0) -> tuple[Message, list[int]]:
        try:
            return self._child.answer(stage, expected, descriptors=descriptors)
        finally:
            self._meter.finish(stage)

    def _log(self) -> str:
        self._box.drain_log()
        return self._scrub(self._box.capture.text())

    def _failed(self, failure: FoldFailure) -> Failed:
        return failed(
            failure, log=self._log(), metrics=self._meter.metrics, full_train=self._full_train, scrub=self._scrub
        )


def failed(
    failure: FoldFailure,
    *,
    log: str = "",
    metrics: Metrics | None = None,
    full_train: Predictions | None = None,
    scrub: Callable[[str], str] = str,
) -> Failed:
    """Return a failure as the outcome of a fold."""
    return Failed(
        failure.stage,
        failure.cause,
        failure.fault,
        scrub(str(failure)),
        log=log,
        metrics=metrics or Metrics(),
        full_train=full_train,
    )
