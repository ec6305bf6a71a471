"""What a kept event becomes in its table: pure functions from the event of a register to its columns."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

from datarun.events import (
    Blob,
    Cause,
    DataSplit,
    DataUploaded,
    Event,
    Fault,
    FoldCancelled,
    FoldFailed,
    FoldHandedBack,
    FoldLost,
    FoldRequested,
    FoldStarted,
    FoldTested,
    FoldTrained,
    Metrics,
    PredictionsFetched,
    RunnerHeartbeat,
    SplitFailed,
    SplitRequested,
    Stage,
)
from datarun.projection.evolve import NO_DELIVERY, RANKS, Kept, RunOfFold
from datarun.projection.forms import FORMS
from datarun.projection.text import storable

Columns = dict[str, Any]
LAST_MS = 253_402_300_799_999
"""The end of the year 9999, the last moment Python can name."""


@lru_cache(1024)
def moment(timestamp_ms: int) -> datetime:
    """Return the broker's time of a record; whatever number came with it, a time."""
    return datetime.fromtimestamp(min(max(timestamp_ms, 0), LAST_MS) / 1000, UTC)


def request(kept: Kept[FoldRequested]) -> Columns:
    """Return a fold's request register."""
    event, record = kept.event, kept.record
    return {
        "fold_id": event.fold_id,
        "request_attempt": event.attempt,
        "request_delivery": event.delivery,
        "submission_id": event.submission_id,
        "submission_version": event.submission_version,
        "raw_data_id": event.dataset.raw_data_id,
        "priority": event.priority.value,
        "train_is": _blob(event.train_is),
        "test_is": _blob(event.test_is),
        "task_id": event.task_id,
        "requested_by": event.requested_by,
        "requested_at": moment(record.timestamp_ms),
        "request_topic": record.topic,
        "request_partition": record.partition,
        "request_offset": record.offset,
    }


def run(kept: Kept[RunOfFold]) -> Columns:
    """Return a fold's run register: every column, so that nothing of a delivery before it stays."""
    event = kept.event
    columns: Columns = {
        "fold_id": event.fold_id,
        "submission_id": event.submission_id,
        "raw_data_id": event.raw_data_id,
        "run_attempt": event.attempt,
        "run_rank": int(RANKS[type(event)]),
        "run_at": moment(kept.record.timestamp_ms),
        "run_partition": kept.record.partition,
        "run_offset": kept.record.offset,
    }
    return columns | _RUNS[type(event)](event)


def fetch(kept: Kept[PredictionsFetched]) -> Columns:
    """Return what a fetch says of a fold."""
    return {"fold_id": kept.event.fold_id, "fetched_attempt": kept.event.attempt}


def submission(kept: Kept[FoldRequested]) -> Columns:
    """Return a submission's row."""
    event = kept.event
    return {
        "submission_id": event.submission_id,
        "raw_data_id": event.dataset.raw_data_id,
        "version": event.submission_version,
    }


def upload(kept: Kept[DataUploaded]) -> Columns:
    """Return what its upload says of a dataset."""
    event = kept.event
    return {
        "raw_data_id": event.raw_data_id,
        "name": event.name,
        "target_column": event.target_column,
        "workflow_elements": event.workflow_elements,
        "files": [file.model_dump(mode="json") for file in event.files],
        "uploaded_by": event.uploaded_by,
        "uploaded_at": moment(kept.record.timestamp_ms),
    }


def split_request(kept: Kept[SplitRequested]) -> Columns:
    """Return a dataset's split request register."""
    event = kept.event
    return {
        "raw_data_id": event.raw_data_id,
        "split_attempt": event.attempt,
        "split_task_id": event.task_id,
        "split_request_offset": kept.record.offset,
    }


def split_result(kept: Kept[DataSplit | SplitFailed]) -> Columns:
    """Return a dataset's split result register: a split or an error."""
    event = kept.event
    columns: Columns = {
        "raw_data_id": event.raw_data_id,
        "result_attempt": event.attempt,
        "split_at": moment(kept.record.timestamp_ms),
    }
    match event:
        case DataSplit():
            return columns | {"split": event.split.model_dump(mode="json")}
        case SplitFailed():
            return columns | {"split_error": event.log}


def heartbeat(kept: Kept[RunnerHeartbeat]) -> Columns:
    """Return a runner's row."""
    event = kept.event
    return {
        "runner_id": storable(event.runner_id),
        "sequence": event.sequence,
        "seen_at": moment(kept.record.timestamp_ms),
        "stopping": event.stopping,
        "heartbeat": event.model_dump(mode="json"),
    }


def _unmeasured(event: FoldStarted | FoldLost | FoldHandedBack) -> Columns:
    return {**_BLANK_METRICS, "run_delivery": event.delivery, "runner_id": event.runner_id}


def _trained(event: FoldTrained) -> Columns:
    return {
        **_measured(event),
        "full_train_predictions": _blob(event.full_train_predictions),
        "full_train_shape": event.predictions_shape,
    }


def _tested(event: FoldTested) -> Columns:
    return {
        **_measured(event),
        "log": event.log,
        "full_train_predictions": _blob(event.full_train_predictions),
        "full_train_shape": event.full_train_shape,
        "test_predictions": _blob(event.test_predictions),
        "test_shape": event.test_shape,
    }


def _failed(event: FoldFailed) -> Columns:
    return {
        **_measured(event),
        "stage": event.stage.value,
        "cause": event.cause.value,
        "fault": event.fault.value,
        "message": event.message,
        "log": event.log,
        "full_train_predictions": event.full_train_predictions and _blob(event.full_train_predictions),
        "full_train_shape": event.full_train_shape,
    }


def _cancelled(event: FoldCancelled) -> Columns:
    why = f": {event.reason}" if event.reason else ""
    return {
        **_BLANK_METRICS,
        "run_delivery": NO_DELIVERY,
        "stage": Stage.TRAIN.value,
        "cause": Cause.CANCELLED.value,
        "fault": Fault.USER.value,
        "message": f"\nCancelled by {event.cancelled_by}{why} - ERROR({Stage.TRAIN.value})\n",
    }


def _measured(event: FoldTrained | FoldTested | FoldFailed) -> Columns:
    metrics, sandbox = event.metrics, event.sandbox
    return {
        "run_delivery": event.delivery,
        "runner_id": event.runner_id,
        "train_time": metrics.train_time,
        "train_cpu_time": metrics.train_cpu_time,
        "train_memory": metrics.train_memory,
        "validation_time": metrics.validation_time,
        "test_time": metrics.test_time,
        "test_cpu_time": metrics.test_cpu_time,
        "test_memory": metrics.test_memory,
        "sandbox_level": sandbox and sandbox.level,
    }


def _blob(blob: Blob) -> str:
    return f"{blob.sha256}:{blob.size}"


_BLANK_METRICS = Metrics().model_dump()
_OF_EVENT: dict[type[Event], Callable[[Any], Columns]] = {
    FoldStarted: _unmeasured,
    FoldTrained: _trained,
    FoldTested: _tested,
    FoldFailed: _failed,
    FoldLost: _unmeasured,
    FoldHandedBack: _unmeasured,
    FoldCancelled: _cancelled,
}
_RUNS = {kind: run for event, run in _OF_EVENT.items() for kind in (event, FORMS[event])}
