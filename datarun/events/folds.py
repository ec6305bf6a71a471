"""What people do with a fold: they request, cancel and fetch it."""

from __future__ import annotations

from enum import StrEnum
from typing import ClassVar, Literal

from datarun.events.blobs import Blob, NamedBlob
from datarun.events.data import Dataset
from datarun.events.event import Event
from datarun.events.fields import Count, Delivery, Id, Ordinal, Sha256, Text


class Priority(StrEnum):
    """Which of the two queues a fold waits in."""

    HIGH = "H"
    LOW = "L"


class FoldEvent(Event):
    """Something that happened to a fold; an attempt is one run its user asked for."""

    key_field: ClassVar[str] = "fold_id"
    fold_id: Id
    """Numbered by the client."""
    attempt: Ordinal
    """Which run its user asked for; each `force` adds one."""


class FoldRequested(FoldEvent):
    """A fold of a submission was accepted; it is all that a runner needs."""

    identity: ClassVar[tuple[str, ...]] = ("fold_id", "attempt", "delivery")
    delivery: Delivery = 1
    """The platform's own repetition of the attempt, after a runner was lost or stopped."""
    handed_back: Count = 0
    """How many earlier deliveries a stopping runner gave back; they do not count against the fold."""
    submission_id: Id
    submission_version: Ordinal = 1
    """Raised when the files of a known submission are replaced."""
    priority: Priority
    dataset: Dataset
    """All that a runner needs to know of it; its split, or why it has none."""
    files: tuple[NamedBlob, ...]
    """Of the submission."""
    train_is: Blob
    """The rows of the train part to fit on: 64-bit little-endian integers, from 0."""
    test_is: Blob
    """The rows left out, in the same form."""
    task_id: Text
    """What its user was told to recognise it by."""
    requested_by: Text
    request_digest: Sha256 | None = None
    """What made two requests for the fold the same; of no use to a runner."""


class FoldCancelled(FoldEvent):
    """Somebody cancelled a fold; the attempt is over, whatever a runner still says of it."""

    identity: ClassVar[tuple[str, ...]] = ("fold_id", "attempt")
    submission_id: Id
    raw_data_id: Id
    cancelled_by: Text
    reason: Text = ""


class FoldFenced(FoldEvent):
    """Attempts of a fold up to this one are not to run any more; who runs one ends it."""

    identity: ClassVar[tuple[str, ...]] = ("fold_id", "attempt", "cause")
    cause: Literal["cancelled", "superseded"]


class PredictionsFetched(FoldEvent):
    """A client received the predictions of a fold to the last byte."""

    identity: ClassVar[tuple[str, ...]] = ("fold_id", "attempt", "fetch_id")
    fetch_id: Text
    """One answer of the gateway."""
    fetched_by: Text
