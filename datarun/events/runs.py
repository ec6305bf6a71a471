"""What happens to a fold on a runner, in one delivery of an attempt."""

from __future__ import annotations

from typing import ClassVar

from datarun.events.blobs import Blob
from datarun.events.failures import Cause, Fault, Stage
from datarun.events.fields import Delivery, Dimension, Id, Log, Seconds, Text
from datarun.events.folds import FoldEvent
from datarun.events.measures import Metrics, Provenance, Sandbox


class RunEvent(FoldEvent):
    """Something that happened in one delivery of an attempt to a runner."""

    identity: ClassVar[tuple[str, ...]] = ("fold_id", "attempt", "delivery")
    delivery: Delivery
    """Which delivery of the attempt this is of."""
    submission_id: Id
    raw_data_id: Id
    runner_id: Text


class FoldStarted(RunEvent):
    """A runner took a fold; it is the runner's while its heartbeats name it."""

    lease_seconds: Seconds
    """How long a silent runner keeps the fold."""


class FoldTrained(RunEvent):
    """A submission was trained on a fold and predicted the whole train part."""

    metrics: Metrics
    full_train_predictions: Blob
    """Of all rows of the train part, float64 in C order."""
    predictions_shape: tuple[Dimension, ...]
    sandbox: Sandbox


class FoldTested(RunEvent):
    """A submission predicted the held-out test part; the fold is done."""

    metrics: Metrics
    full_train_predictions: Blob
    """Of all rows of the train part, float64 in C order."""
    full_train_shape: tuple[Dimension, ...]
    test_predictions: Blob
    """Of all rows of the test part, float64 in C order."""
    test_shape: tuple[Dimension, ...]
    log: Log = ""
    """What the submission printed, head and tail."""
    sandbox: Sandbox
    provenance: Provenance | None = None


class FoldFailed(RunEvent):
    """A fold ended without test predictions."""

    stage: Stage
    cause: Cause
    fault: Fault
    message: Log
    """What its user reads."""
    log: Log = ""
    """What the submission printed, head and tail."""
    metrics: Metrics = Metrics()
    full_train_predictions: Blob | None = None
    full_train_shape: tuple[Dimension, ...] | None = None
    sandbox: Sandbox | None = None


class FoldLost(RunEvent):
    """A runner went silent while it held a fold; the fold is requested again or, after three deliveries, fails."""


class FoldReproduced(RunEvent):
    """A delivery that was tested was run again; it is reproduced when both predictions are the same bit for bit.

    `differing` names the fields of the provenance, and of FoldTested, in which the two runs differ.
    """

    identity: ClassVar[tuple[str, ...]] = ("fold_id", "attempt", "delivery", "runner_id")
    tested_by: Text
    """The runner whose result was compared with."""
    reproduced: bool
    differing: tuple[Text, ...] = ()
    cause: Cause | None = None
    """Why the second run ended without predictions, if it did."""
    provenance: Provenance | None = None
    sandbox: Sandbox


class FoldHandedBack(RunEvent):
    """A runner that stops gave a fold back; its next delivery is requested already."""
