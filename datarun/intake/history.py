"""What the log says of the claims: pure, from records to rows of the write side's tables.

A claim only grows, so rows are brought in like those of the read model: whatever is read twice changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, TypeVar

from datarun.envelope import check_route, decode
from datarun.errors import Rejected
from datarun.events import DataUploaded, Event, FoldCancelled, FoldRequested, SplitRequested
from datarun.intake.claims import UNKNOWN_DIGEST, blob_name, files_digest
from datarun.log import StoredRecord
from datarun.projection.columns import moment
from datarun.topics import Catalogue

Row = dict[str, Any]
K = TypeVar("K", bound=Hashable)


@dataclass(slots=True)
class History:
    """The newest claim of everything in a stretch of the log, by id."""

    datasets: dict[int, Row] = field(default_factory=dict)
    splits: dict[int, Row] = field(default_factory=dict)
    submissions: dict[int, Row] = field(default_factory=dict)
    folds: dict[int, Row] = field(default_factory=dict)
    cancellations: dict[tuple[int, int], Row] = field(default_factory=dict)
    owners: dict[int, tuple[int, datetime, str]] = field(default_factory=dict)
    """Of submissions: the first version that was asked for, when and by whom."""


def read_history(records: Iterable[StoredRecord], *, catalogue: Catalogue) -> History:
    """Return the claims of records, each partition's in order; what the projection buries claims nothing."""
    history = History()
    for record in records:
        if not _is_claim(record):
            continue
        try:
            event = decode(record.value, record.headers)
            check_route(event, record, catalogue=catalogue)
        except Rejected:
            continue
        _TAKERS[type(event)](history, event, moment(record.timestamp_ms))
    return history


def _is_claim(record: StoredRecord) -> bool:
    """Tell whether the record is worth decoding: most events say nothing of claims."""
    wire_type = next((value for name, value in record.headers if name == "ce_type"), None)
    return wire_type is not None and wire_type.startswith(_CLAIMS)


def _upload(history: History, event: DataUploaded, at: datetime) -> None:
    row = {
        "raw_data_id": event.raw_data_id,
        "name": event.name,
        "target_column": event.target_column,
        "workflow_elements": event.workflow_elements,
        "files": [file.model_dump(mode="json") for file in event.files],
        "rows": event.rows,
        "uploaded_by": event.uploaded_by,
        "accepted_at": at,
    }
    history.datasets.setdefault(event.raw_data_id, row)


def _split(history: History, event: SplitRequested, _at: datetime) -> None:
    row = {
        "raw_data_id": event.raw_data_id,
        "split_attempt": event.attempt,
        "split_request": event.plan.model_dump(),
        "split_task_id": event.task_id,
    }
    _keep(history.splits, event.raw_data_id, row, by="split_attempt")


def _fold(history: History, event: FoldRequested, at: datetime) -> None:
    submission = {
        "submission_id": event.submission_id,
        "raw_data_id": event.dataset.raw_data_id,
        "version": event.submission_version,
        "files": [file.model_dump(mode="json") for file in event.files],
        "files_digest": files_digest(event.files),
        "accepted_at": at,
    }
    _keep(history.submissions, event.submission_id, submission, by="version")
    told = (event.submission_version, at, event.requested_by)
    history.owners[event.submission_id] = min(told, history.owners.get(event.submission_id, told))
    row = {
        "fold_id": event.fold_id,
        "attempt": event.attempt,
        "submission_id": event.submission_id,
        "submission_version": event.submission_version,
        "raw_data_id": event.dataset.raw_data_id,
        "priority": event.priority.value,
        "train_is": blob_name(event.train_is),
        "test_is": blob_name(event.test_is),
        "task_id": event.task_id,
        "request_digest": event.request_digest or UNKNOWN_DIGEST,
        "requested_by": event.requested_by,
        "accepted_at": at,
    }
    _keep(history.folds, event.fold_id, row, by="attempt")


def _cancel(history: History, event: FoldCancelled, at: datetime) -> None:
    row = {
        "fold_id": event.fold_id,
        "attempt": event.attempt,
        "cancelled_by": event.cancelled_by,
        "reason": event.reason,
        "cancelled_at": at,
    }
    history.cancellations.setdefault((event.fold_id, event.attempt), row)


_TAKERS: dict[type[Event], Callable[[History, Any, datetime], None]] = {
    DataUploaded: _upload,
    SplitRequested: _split,
    FoldRequested: _fold,
    FoldCancelled: _cancel,
}
_CLAIMS = tuple(f"datarun.{cls.__name__}.v".encode() for cls in _TAKERS)
"""How their types begin, whatever their version."""


def _keep(rows: dict[K, Row], key: K, new: Row, *, by: str) -> None:
    # Of equals the first stays: later ones are deliveries of the same attempt, or folds of the same version.
    kept = rows.get(key)
    if kept is None or new[by] > kept[by]:
        rows[key] = new
