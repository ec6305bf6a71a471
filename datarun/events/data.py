"""What happens to a dataset, and what is said of one."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from datarun.events.blobs import Blob, NamedBlob
from datarun.events.event import Event, Fact
from datarun.events.failures import Cause, Fault
from datarun.events.fields import Count, Id, Log, Ordinal, Text


class Split(Fact):
    """The train and test parts of a dataset, or the files its specific.py prepared."""

    kind: Literal["standard", "custom"]
    task_id: Text
    held_out_test: Annotated[float, Field(gt=0, lt=1)] | None = None
    random_state: Count | None = None
    train: Blob | None = None
    test: Blob | None = None
    prepared: tuple[NamedBlob, ...] = ()
    train_rows: Count | None = None
    test_rows: Count | None = None


class Dataset(Fact):
    """What a runner must know of a dataset; without a split no fold of it can run."""

    raw_data_id: Id
    name: Text
    target_column: Text
    workflow_elements: Text
    files: tuple[NamedBlob, ...]
    split: Split | None = None
    split_error: Log | None = None


class DataEvent(Event):
    """Something that happened to a dataset."""

    key_field: ClassVar[str] = "raw_data_id"
    raw_data_id: Id


class DataUploaded(DataEvent):
    """A dataset and its files were accepted."""

    identity: ClassVar[tuple[str, ...]] = ("raw_data_id",)
    name: Text
    target_column: Text
    workflow_elements: Text
    files: tuple[NamedBlob, ...]
    uploaded_by: Text


class SplitRequested(DataEvent):
    """The split of a dataset into train and test parts was accepted; an attempt is one split its user asked for."""

    identity: ClassVar[tuple[str, ...]] = ("raw_data_id", "attempt")
    attempt: Ordinal
    task_id: Text
    kind: Literal["standard", "custom"]
    held_out_test: Annotated[float, Field(gt=0, lt=1)] | None = None
    random_state: Count | None = None
    dataset: Dataset
    requested_by: Text


class DataSplit(DataEvent):
    """A dataset was split; the parts are in the blob store."""

    identity: ClassVar[tuple[str, ...]] = ("raw_data_id", "attempt")
    attempt: Ordinal
    task_id: Text
    split: Split
    runner_id: Text


class SplitFailed(DataEvent):
    """The split of a dataset ended in an error."""

    identity: ClassVar[tuple[str, ...]] = ("raw_data_id", "attempt")
    attempt: Ordinal
    task_id: Text
    cause: Cause
    fault: Fault
    log: Log
    runner_id: Text
