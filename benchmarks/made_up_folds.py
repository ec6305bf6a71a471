"""A log full of made-up folds, as the benchmarks of the projection read it."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from datarun.envelope import Context, encode
from datarun.events import (
    Blob,
    Dataset,
    Event,
    FoldRequested,
    FoldStarted,
    FoldTested,
    FoldTrained,
    Metrics,
    NamedBlob,
    PredictionsFetched,
    Priority,
    Sandbox,
    Split,
)
from datarun.log.kafka import KafkaLog
from datarun.topics import Catalogue

CONTEXT = Context("benchmark", datetime(2026, 1, 1, tzinfo=UTC))


def events_of(fold_id: int) -> Iterator[Event]:
    """Yield the life of a fold: five events, 550 bytes on average."""
    blobs = [Blob(sha256=f"{fold_id * 8 + number:064x}", size=1000) for number in range(4)]
    split = Split(kind="standard", task_id="t", held_out_test=0.7, random_state=1, train=blobs[0], test=blobs[1])
    dataset = Dataset(
        raw_data_id=1,
        name="iris",
        target_column="species",
        workflow_elements="classifier",
        files=(NamedBlob(name="iris.csv", blob=blobs[0]),),
        split=split,
    )
    submission_id = fold_id // 4 + 1
    run: dict[str, Any] = {"fold_id": fold_id, "attempt": 1, "delivery": 1, "submission_id": submission_id}
    run |= {"raw_data_id": 1, "runner_id": "host:1"}
    measured: dict[str, Any] = {
        "metrics": Metrics(
            train_time=0.1, train_cpu_time=0.09, train_memory=12.5, validation_time=0.01, test_time=0.02
        ),
        "sandbox": Sandbox(level=3, mechanisms=("rlimits", "landlock", "seccomp")),
        "full_train_predictions": blobs[2],
    }
    yield FoldRequested(
        fold_id=fold_id,
        attempt=1,
        submission_id=submission_id,
        priority=Priority.HIGH if fold_id % 2 else Priority.LOW,
        dataset=dataset,
        files=(NamedBlob(name="classifier.py", blob=blobs[3]),),
        train_is=blobs[0],
        test_is=blobs[1],
        task_id=str(uuid.UUID(int=fold_id)),
        requested_by="somebody",
    )
    yield FoldStarted(**run, lease_seconds=10)
    yield FoldTrained(**run, **measured, predictions_shape=(45, 3))
    yield FoldTested(**run, **measured, full_train_shape=(45, 3), test_predictions=blobs[3], test_shape=(105, 3))
    yield PredictionsFetched(fold_id=fold_id, attempt=1, fetch_id="f", fetched_by="somebody")


def fill(log: KafkaLog, catalogue: Catalogue, folds: int) -> int:
    """Append the lives of many folds, a hundred at a time side by side, and return how many events that were."""
    count = 0
    for first in range(1, folds + 1, 100):
        lives = [list(events_of(number)) for number in range(first, min(first + 100, folds + 1))]
        events = [event for together in zip(*lives, strict=True) for event in together]
        for future in [log.append(encode(event, catalogue=catalogue, context=CONTEXT)) for event in events]:
            future.result(60)
        count += len(events)
    return count
