"""Every event, declared once: the class name is the wire type, the docstring its sentence, the field types its rules.

Events carry facts and references to blobs, never arrays, code or secrets.
"""

from __future__ import annotations

import uuid
from enum import StrEnum
from typing import Annotated, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

Sha256 = Annotated[str, StringConstraints(pattern=r"\A[0-9a-f]{64}\z")]
"""Lower-case hexadecimal sha256 of the bytes."""
Id = Annotated[int, Field(strict=True, ge=1, le=2_147_483_647)]
"""A positive 32-bit integer; folds and submissions are numbered by the client, datasets by us."""
Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Mebibytes = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Count = Annotated[int, Field(strict=True, ge=0, le=9_223_372_036_854_775_807)]
Dimension = Annotated[int, Field(strict=True, ge=0, le=2_147_483_647)]
"""One number of an array's shape."""
Delivery = Annotated[int, Field(strict=True, ge=1, le=32_767)]
"""How often the platform has handed out an attempt; it gives up long before the bound."""
Ordinal = Annotated[int, Field(strict=True, ge=1, le=2_147_483_647)]
SandboxLevel = Annotated[int, Field(ge=0, le=4)]
Text = Annotated[str, StringConstraints(max_length=200)]
Log = Annotated[str, StringConstraints(max_length=400_000)]

EnvironmentName = Annotated[str, StringConstraints(pattern=r"\A(default|[1-9][0-9]{0,9})\z")]
"""`default`, which every fold has, or the id of the dataset whose folds have more."""

ID_NAMESPACE = uuid.UUID("5b3a3f0e-63a0-5f0e-9a35-6b1b2c1f7d11")
"""Namespace of the deterministic event ids (uuid5)."""


class Priority(StrEnum):
    """Which of the two queues a fold waits in."""

    HIGH = "H"
    LOW = "L"


class Stage(StrEnum):
    """Where in its life a fold failed."""

    SPLIT = "split data"
    TRAIN = "train"
    VALIDATION = "validation"
    TEST = "test"


class Cause(StrEnum):
    """Why a fold failed."""

    USER_ERROR = "user_error"
    OUTPUT_SHAPE = "output_shape"
    OUTPUT_VALUE = "output_value"
    SOFT_TIMEOUT = "soft_timeout"
    HARD_TIMEOUT = "hard_timeout"
    MEMORY = "memory"
    DISK = "disk"
    SIGNAL = "signal"
    POLICY = "policy"
    INVALID = "invalid"
    CANCELLED = "cancelled"
    LOST = "lost"


class Fault(StrEnum):
    """Whose doing a failure was; platform faults are retried and never look like the user's."""

    USER = "user"
    LIMIT = "limit"
    PLATFORM = "platform"


class Fact(BaseModel):
    """A value inside an event: frozen, and it refuses fields it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Blob(Fact):
    """Bytes in the blob store, named by their sha256; size in bytes."""

    sha256: Sha256
    size: Count
    media_type: Text = "application/octet-stream"


class NamedBlob(Fact):
    """A file: the name is a label, never a path."""

    name: Annotated[str, StringConstraints(min_length=1, max_length=100)]
    blob: Blob


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


class Metrics(Fact):
    """Wall and CPU time in seconds and peak memory in MiB of the stages that ran, measured outside the submission."""

    train_time: Seconds = 0.0
    train_cpu_time: Seconds = 0.0
    train_memory: Mebibytes = 0.0
    validation_time: Seconds = 0.0
    test_time: Seconds = 0.0
    test_cpu_time: Seconds = 0.0
    test_memory: Mebibytes = 0.0


class Sandbox(Fact):
    """The isolation a submission ran under: level 0 (none) to 4, and the mechanisms really in force."""

    level: SandboxLevel
    mechanisms: tuple[Text, ...] = ()


class Runtime(Fact):
    """What computes a fold's predictions, as its process reported it before any submission ran there."""

    environment: Sha256
    """Of the Python version and of every distribution that can be imported."""
    harness: Sha256
    """Of datarun's own code around the submission: how rows reach it, in which random state, under which limits."""
    threads: Count
    """The most that any numerical library computes with."""
    cpu: Text
    cpu_flags: Sha256
    blas: tuple[Text, ...]
    """Each linear algebra library: name, version, the kernels it chose for this CPU, its way to thread, its file."""


class Provenance(Runtime):
    """All that decides a fold's predictions: the same provenance gives the same bits. Digests only, no content."""

    data: Sha256
    """Of the files its rows were cut from, and of what is to be done with them."""
    code: Sha256
    """Of the submission's files and their names."""
    train_is: Sha256
    test_is: Sha256
    sandbox_level: SandboxLevel


class Event(Fact):
    """A fact in the past tense; `key_field` is its Kafka key, `identity` makes its id deterministic."""

    version: ClassVar[int] = 1
    key_field: ClassVar[str]
    identity: ClassVar[tuple[str, ...]]

    @classmethod
    def type_name(cls) -> str:
        """Return the CloudEvents type, such as datarun.FoldTested.v1."""
        return f"datarun.{cls.__name__}.v{cls.version}"

    @property
    def key(self) -> str:
        """The partition key: everything about one fold, or one dataset, is in order."""
        return str(getattr(self, self.key_field))

    @property
    def event_id(self) -> uuid.UUID:
        """The same fact has the same id, so a retried produce is recognisable for ever."""
        parts = [self.type_name(), *(str(getattr(self, name)) for name in self.identity)]
        return uuid.uuid5(ID_NAMESPACE, ":".join(parts))


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


class FoldEvent(Event):
    """Something that happened to a fold; an attempt is one run its user asked for."""

    key_field: ClassVar[str] = "fold_id"
    fold_id: Id
    attempt: Ordinal


class FoldRequested(FoldEvent):
    """A fold of a submission was accepted; it is all that a runner needs."""

    identity: ClassVar[tuple[str, ...]] = ("fold_id", "attempt", "delivery")
    delivery: Delivery = 1
    handed_back: Count = 0
    """How many earlier deliveries a stopping runner gave back; they do not count against the fold."""
    submission_id: Id
    submission_version: Ordinal = 1
    priority: Priority
    dataset: Dataset
    files: tuple[NamedBlob, ...]
    train_is: Blob
    test_is: Blob
    task_id: Text
    requested_by: Text


class RunEvent(FoldEvent):
    """Something that happened in one delivery of an attempt to a runner."""

    identity: ClassVar[tuple[str, ...]] = ("fold_id", "attempt", "delivery")
    delivery: Delivery
    submission_id: Id
    raw_data_id: Id
    runner_id: Text


class FoldStarted(RunEvent):
    """A runner took a fold; it is the runner's while its heartbeats name it."""

    lease_seconds: Seconds


class FoldTrained(RunEvent):
    """A submission was trained on a fold and predicted the whole train part."""

    metrics: Metrics
    full_train_predictions: Blob
    predictions_shape: tuple[Dimension, ...]
    sandbox: Sandbox


class FoldTested(RunEvent):
    """A submission predicted the held-out test part; the fold is done."""

    metrics: Metrics
    full_train_predictions: Blob
    full_train_shape: tuple[Dimension, ...]
    test_predictions: Blob
    test_shape: tuple[Dimension, ...]
    log: Log = ""
    sandbox: Sandbox
    provenance: Provenance | None = None


class FoldFailed(RunEvent):
    """A fold ended without test predictions."""

    stage: Stage
    cause: Cause
    fault: Fault
    message: Log
    log: Log = ""
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
    reproduced: bool
    differing: tuple[Text, ...] = ()
    cause: Cause | None = None
    """Why the second run ended without predictions, if it did."""
    provenance: Provenance | None = None
    sandbox: Sandbox


class FoldHandedBack(RunEvent):
    """A runner that stops gave a fold back; its next delivery is requested already."""


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
    fetched_by: Text


class RunningFold(Fact):
    """One fold a runner holds, as its heartbeats name it."""

    fold_id: Id
    attempt: Ordinal
    delivery: Delivery


class RunnerHeartbeat(Event):
    """A runner is alive; what it runs and what it is made of."""

    key_field: ClassVar[str] = "runner_id"
    identity: ClassVar[tuple[str, ...]] = ("runner_id", "sequence")
    runner_id: Text
    sequence: Count
    host: Text
    pid: Count
    queues: tuple[Text, ...]
    slots: Count
    running: tuple[RunningFold, ...] = ()
    splitting: tuple[Id, ...] = ()
    skipped: Count = 0
    versions: dict[str, str] = Field(default_factory=dict)
    sandbox: Sandbox
    stopping: bool = False


class EnvironmentEvent(Event):
    """Something that happened to the packages that folds can import."""

    key_field: ClassVar[str] = "environment"
    environment: EnvironmentName
    request_id: Text
    requirement: Text


class PackageRequested(EnvironmentEvent):
    """Every runner is to have a package in an environment; a later request for the same package takes its place."""

    identity: ClassVar[tuple[str, ...]] = ("request_id",)
    requested_by: Text


class PackageResult(EnvironmentEvent):
    """What came of a request in one environment on one runner; a request for all is built in every environment."""

    identity: ClassVar[tuple[str, ...]] = ("request_id", "environment", "runner_id")
    runner_id: Text
    seconds: Seconds
    environment_key: Sha256 | None = None
    """Of the environment that is in force from now on; without one it is the runner's own packages."""


class PackageInstalled(PackageResult):
    """A runner's next fold in the environment can import the package."""

    packages: tuple[Text, ...] = ()
    """All that the environment adds to the runner's own packages, as name==version."""


class PackageFailed(PackageResult):
    """A runner could not install a package, or not import it; what it had stays in force."""

    reason: Log


EVENT_TYPES: tuple[type[Event], ...] = (
    DataUploaded,
    SplitRequested,
    DataSplit,
    SplitFailed,
    FoldRequested,
    FoldStarted,
    FoldTrained,
    FoldTested,
    FoldFailed,
    FoldLost,
    FoldHandedBack,
    FoldReproduced,
    FoldCancelled,
    FoldFenced,
    PredictionsFetched,
    RunnerHeartbeat,
    PackageRequested,
    PackageInstalled,
    PackageFailed,
)
"""The whole vocabulary of the log."""
