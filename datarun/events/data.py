"""What happens to a dataset, and what is said of one."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from datarun.events.blobs import Blob, NamedBlob
from datarun.events.event import Event, Fact
from datarun.events.failures import Cause, Fault
from datarun.events.fields import Count, Dimension, Id, Log, Ordinal, Seed, Share, Text


class Split(Fact):
    """The train and test parts of a dataset, or the files its specific.py prepared."""

    kind: Literal["standard", "custom"]
    task_id: Text
    held_out_test: Share | None = None
    random_state: Count | None = None
    train: Blob | None = None
    test: Blob | None = None
    prepared: tuple[NamedBlob, ...] = ()
    """What a custom split's specific.py wrote."""
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
    """The dataset: numbered by datarun, from 1 on."""


class DataUploaded(DataEvent):
    """A dataset and its files were accepted."""

    identity: ClassVar[tuple[str, ...]] = ("raw_data_id",)
    name: Text
    target_column: Text
    """The column of the CSV file that is to be predicted."""
    workflow_elements: Text
    """What a submission consists of, such as feature_extractor, classifier; as it was sent."""
    files: tuple[NamedBlob, ...]
    uploaded_by: Text
    """The account."""
    rows: Dimension | None = None
    """Data rows of a standard dataset's CSV, as the gateway counted them; none for what a specific.py reads."""


class StandardSplit(Fact):
    """Rows of the one CSV file, drawn by chance: the share that is held out, and the seed of the draw."""

    kind: Literal["standard"] = "standard"
    held_out_test: Share
    random_state: Seed


class CustomSplit(Fact):
    """What the dataset's specific.py prepares."""

    kind: Literal["custom"] = "custom"


SplitPlan = Annotated[StandardSplit | CustomSplit, Field(discriminator="kind")]
"""How a dataset is to be split; a share without a seed, or a seed for a specific.py, cannot be said."""


class SplitRequested(DataEvent):
    """The split of a dataset into train and test parts was accepted; an attempt is one split its user asked for.

    Version 1 said `kind`, `held_out_test` and `random_state` beside each other, each of the last two or neither.
    """

    version: ClassVar[int] = 2
    identity: ClassVar[tuple[str, ...]] = ("raw_data_id", "attempt")
    attempt: Ordinal
    task_id: Text
    """What its user was told to recognise it by."""
    plan: SplitPlan
    dataset: Dataset
    """All that a runner needs to know of it."""
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
    """What its user reads."""
    runner_id: Text
