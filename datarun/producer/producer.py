"""Uploads blobs, then appends the events that name them: right topic, key, partition, headers, one record a batch.

Whatever is sent twice has the same id and the same content, so a client that does not know whether it has sent
something sends it again.
"""

from __future__ import annotations

import tempfile
import time
import uuid
import weakref
from collections.abc import Mapping
from concurrent.futures import Future
from contextlib import closing
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from pydantic import ValidationError

from datarun.blobs import BlobStore
from datarun.envelope import MAX_VALUE_BYTES, Context, decode, encode, now
from datarun.errors import Rejected, Retryable
from datarun.events import (
    ID_NAMESPACE,
    CustomSplit,
    Dataset,
    DataSplit,
    DataUploaded,
    Event,
    Fact,
    FoldRequested,
    NamedBlob,
    SplitFailed,
    SplitPlan,
    SplitRequested,
    StandardSplit,
)
from datarun.http_blobs import blobs_of
from datarun.log import EventLog, Position, StoredRecord, TopicPartition
from datarun.partitioner import partition_of
from datarun.producer.checks import Invalid, check_fold, check_upload
from datarun.producer.messages import Fold, Upload, packed
from datarun.settings import DEFAULT_DIR, load_settings
from datarun.topics import DATA_EVENTS, Catalogue

APPEND_SECONDS = 60.0
DEFAULT_SEED = 42
F = TypeVar("F", bound=Fact)


class NotSplit(Retryable):
    """A dataset's split has no result yet."""


def connect(name: str, directory: Path = DEFAULT_DIR, **options: Any) -> Producer:
    """Open the log and the blobs of an installation for a producer of this name.

    Options are those of the services: kafka, blobs, or gateway_url and token_file, topic_prefix; else DATARUN_*
    variables and the folder's connection.json say it. Raises DatarunError that says what is missing.
    """
    from datarun.log.kafka import KafkaLog  # noqa: PLC0415 - the rest needs no Kafka

    settings = load_settings(directory, **options)
    # Nothing is read back, so nothing is kept.
    aside = tempfile.TemporaryDirectory(prefix="datarun-producer-")
    blobs = blobs_of(settings, cache_folder=Path(aside.name), cache_mib=0)
    producer = Producer(KafkaLog(settings.brokers), blobs, catalogue=settings.catalogue, name=name)
    weakref.finalize(producer, aside.cleanup)
    return producer


class Producer:
    """One client of the log; `name` stands in the events as who uploaded and requested."""

    def __init__(self, event_log: EventLog, blobs: BlobStore, *, catalogue: Catalogue, name: str) -> None:
        self._log = event_log
        self._blobs = blobs
        self._catalogue = catalogue
        self._name = name

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Send what is unsent and let go."""
        self._log.close()

    def upload(self, upload: Upload) -> Dataset:
        """Upload a dataset's files, append DataUploaded, and return what the next calls need of it.

        Raises Invalid, and Retryable when the log or the blobs are away.
        """
        check_upload(upload)
        dataset = _valid(
            Dataset,
            raw_data_id=upload.raw_data_id,
            name=upload.name,
            target_column=upload.target_column,
            workflow_elements=upload.workflow_elements,
            files=self._stored(upload.files),
        )
        event = _valid(
            DataUploaded,
            raw_data_id=dataset.raw_data_id,
            name=dataset.name,
            target_column=dataset.target_column,
            workflow_elements=dataset.workflow_elements,
            files=dataset.files,
            uploaded_by=self._name,
        )
        self._append(event).result(APPEND_SECONDS)
        return dataset

    def request_split(
        self, dataset: Dataset, *, held_out_test: float | None, random_state: int = DEFAULT_SEED, attempt: int = 1
    ) -> str:
        """Append SplitRequested and return its task id; without a share the dataset's specific.py splits it."""
        plan: SplitPlan = CustomSplit()
        if held_out_test is not None:
            plan = _valid(StandardSplit, held_out_test=held_out_test, random_state=random_state)
        request = _valid(
            SplitRequested,
            raw_data_id=dataset.raw_data_id,
            attempt=attempt,
            task_id=_task_id("split", dataset.raw_data_id, attempt),
            plan=plan,
            dataset=dataset.model_copy(update={"split": None, "split_error": None}),
            requested_by=self._name,
        )
        self._append(request).result(APPEND_SECONDS)
        return request.task_id

    def wait_for_split(self, dataset: Dataset, *, seconds: float, attempt: int = 1) -> Dataset:
        """Return the dataset with its split, as the log tells it; raises NotSplit, and Invalid when it has failed."""
        deadline = time.monotonic() + seconds
        key = str(dataset.raw_data_id).encode()
        tp = TopicPartition(self._catalogue.full_name(DATA_EVENTS), partition_of(key, DATA_EVENTS.partitions))
        with closing(self._log.read({tp: 0})) as batches:  # type: ignore[type-var]
            for batch in batches:
                for event in (_result(record) for record in batch if record.key == key):
                    if event is not None and event.attempt == attempt:
                        return _with_split(dataset, event)
                if time.monotonic() > deadline:
                    break
        raise NotSplit(f"dataset {dataset.raw_data_id} has not been split within {seconds:g} s")

    def request_fold(self, dataset: Dataset, fold: Fold) -> Future[Position]:
        """Upload a fold's files and rows and append FoldRequested to the queue of its priority.

        The future ends when all in-sync replicas have it, or with LogUnavailable: then the same call may be made
        again. Raises Invalid, and Retryable when the blobs are away.
        """
        check_fold(dataset, fold)
        request = _valid(
            FoldRequested,
            fold_id=fold.fold_id,
            attempt=fold.attempt,
            submission_id=fold.submission_id,
            submission_version=fold.submission_version,
            priority=fold.priority,
            dataset=dataset,
            files=self._stored(fold.files),
            train_is=self._blobs.put(packed(fold.train_is).tobytes()),
            test_is=self._blobs.put(packed(fold.test_is).tobytes()),
            task_id=_task_id("fold", fold.fold_id, fold.attempt),
            requested_by=self._name,
        )
        return self._append(request)

    def _stored(self, files: Mapping[str, bytes]) -> tuple[NamedBlob, ...]:
        return tuple(NamedBlob(name=name, blob=self._blobs.put(content)) for name, content in files.items())

    def _append(self, event: Event) -> Future[Position]:
        record = encode(event, catalogue=self._catalogue, context=Context(f"datarun/producer/{self._name}", now()))
        if len(record.value) > MAX_VALUE_BYTES:
            raise Invalid(f"the event has {len(record.value)} bytes; at most {MAX_VALUE_BYTES} are read")
        return self._log.append(record)


def _valid(cls: type[F], /, **fields: Any) -> F:
    """Return a fact made of fields; raises Invalid with the first that is wrong."""
    try:
        return cls(**fields)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        raise Invalid(f"{'/'.join(map(str, first['loc']))}: {first['msg']}") from error


def _task_id(kind: str, number: int, attempt: int) -> str:
    return str(uuid.uuid5(ID_NAMESPACE, f"{kind}:{number}:{attempt}"))


def _result(record: StoredRecord) -> DataSplit | SplitFailed | None:
    try:
        event = decode(record.value, record.headers)
    except Rejected:
        return None
    return event if isinstance(event, (DataSplit, SplitFailed)) else None


def _with_split(dataset: Dataset, event: DataSplit | SplitFailed) -> Dataset:
    if isinstance(event, SplitFailed):
        raise Invalid(f"dataset {dataset.raw_data_id} could not be split: {event.log}")
    return dataset.model_copy(update={"split": event.split})
