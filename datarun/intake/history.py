"""What the log says of the claims: pure, from records to rows of the write side's tables.

A claim only grows, so rows are brought in like those of the read model: whatever is read twice changes nothing. Where
two say otherwise of the same attempt, version, number or name, a gateway's stands before a producer's, because a
gateway makes none that it knows to be taken, and of producers' the earlier one by the broker's clock.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, NamedTuple, TypeVar

from datarun.envelope import check_route, decode, header
from datarun.errors import Rejected
from datarun.events import DataUploaded, Event, FoldCancelled, FoldRequested, SplitRequested
from datarun.intake.claims import UNKNOWN_DIGEST, blob_name, files_digest
from datarun.log import StoredRecord
from datarun.projection.columns import moment
from datarun.topics import Catalogue

Row = dict[str, Any]
K = TypeVar("K", bound=Hashable)

GATEWAYS = "datarun/gateway/"
"""How the sources of gateways' events begin."""
CLOCKS_APART = timedelta(minutes=5)
"""So far the clock of a database may be before that of a broker."""


class Told(NamedTuple):
    """What a producer that is no gateway wrote."""

    record: StoredRecord
    event: DataUploaded | SplitRequested | FoldRequested


class Owner(NamedTuple):
    """Who asked first for a version of a submission; the least of several is whose the submission is."""

    version: int
    by_producer: bool
    at: datetime
    name: str

    def joined(self, other: Owner) -> Owner:
        """Return what two say who asked for the same."""
        first = self if self.at <= other.at else other
        return first._replace(by_producer=self.by_producer and other.by_producer)


@dataclass(slots=True)
class History:
    """The newest claim of everything in a stretch of the log, by id."""

    datasets: dict[int, Row] = field(default_factory=dict)
    splits: dict[int, Row] = field(default_factory=dict)
    submissions: dict[int, Row] = field(default_factory=dict)
    folds: dict[int, Row] = field(default_factory=dict)
    cancellations: dict[tuple[int, int], Row] = field(default_factory=dict)
    owners: dict[tuple[int, str], Owner] = field(default_factory=dict)
    """By submission and content."""
    told: list[Told] = field(default_factory=list)
    """What did not come by a gateway."""

    def take(self, other: History) -> None:
        """Take in another stretch's names of datasets and owners of submissions, which only the whole decides."""
        for key, row in other.datasets.items():
            _keep(self.datasets, key, row)
        for which, owner in other.owners.items():
            self.own(which, owner)

    def own(self, which: tuple[int, str], owner: Owner) -> None:
        """Note who asked for a submission's content."""
        known = self.owners.get(which)
        self.owners[which] = owner if known is None else known.joined(owner)


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
        by_producer = not (header(record.headers, "ce_source") or "").startswith(GATEWAYS)
        _TAKERS[type(event)](history, event, _stamp(record, by_producer=by_producer))
        if by_producer and isinstance(event, (DataUploaded, SplitRequested, FoldRequested)):
            history.told.append(Told(record, event))
    return history


def _stamp(record: StoredRecord, *, by_producer: bool) -> Row:
    """Return whose a claim is and when it was accepted: a gateway says when that was, for all others the broker."""
    logged = moment(record.timestamp_ms)
    with suppress(ValueError):
        told = datetime.fromisoformat(header(record.headers, "ce_time") or "")
        # What waits for a split or a broker is logged long after; a moment that is to come is nobody's.
        if not by_producer and told.tzinfo is not None and told < logged + CLOCKS_APART:
            logged = told
    return {"by_producer": by_producer, "accepted_at": logged}


def _is_claim(record: StoredRecord) -> bool:
    """Tell whether the record is worth decoding: most events say nothing of claims."""
    wire_type = next((value for name, value in record.headers if name == "ce_type"), None)
    return wire_type is not None and wire_type.startswith(_CLAIMS)


def _upload(history: History, event: DataUploaded, stamp: Row) -> None:
    row = {
        "raw_data_id": event.raw_data_id,
        "name": event.name,
        "target_column": event.target_column,
        "workflow_elements": event.workflow_elements,
        "files": [file.model_dump(mode="json") for file in event.files],
        "rows": event.rows,
        "uploaded_by": event.uploaded_by,
        **stamp,
    }
    _keep(history.datasets, event.raw_data_id, row)


def _split(history: History, event: SplitRequested, stamp: Row) -> None:
    row = {
        "raw_data_id": event.raw_data_id,
        "split_attempt": event.attempt,
        "split_request": event.plan.model_dump(),
        "split_task_id": event.task_id,
        "split_by_producer": stamp["by_producer"],
        **stamp,
    }
    _keep(history.splits, event.raw_data_id, row, by="split_attempt")


def _fold(history: History, event: FoldRequested, stamp: Row) -> None:
    submission = {
        "submission_id": event.submission_id,
        "raw_data_id": event.dataset.raw_data_id,
        "version": event.submission_version,
        "files": [file.model_dump(mode="json") for file in event.files],
        "files_digest": files_digest(event.files),
        **stamp,
    }
    _keep(history.submissions, event.submission_id, submission, by="version")
    owner = Owner(event.submission_version, stamp["by_producer"], stamp["accepted_at"], event.requested_by)
    content = f"{event.submission_version} {submission['files_digest']} {event.dataset.raw_data_id}"
    history.own((event.submission_id, content), owner)
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
        **stamp,
    }
    _keep(history.folds, event.fold_id, row, by="attempt")


def _cancel(history: History, event: FoldCancelled, stamp: Row) -> None:
    row = {
        "fold_id": event.fold_id,
        "attempt": event.attempt,
        "cancelled_by": event.cancelled_by,
        "reason": event.reason,
        "cancelled_at": stamp["accepted_at"],
    }
    history.cancellations.setdefault((event.fold_id, event.attempt), row)


_TAKERS: dict[type[Event], Callable[[History, Any, Row], None]] = {
    DataUploaded: _upload,
    SplitRequested: _split,
    FoldRequested: _fold,
    FoldCancelled: _cancel,
}
_CLAIMS = tuple(f"datarun.{cls.__name__}.v".encode() for cls in _TAKERS)
"""How their types begin, whatever their version."""


def _keep(rows: dict[K, Row], key: K, new: Row, *, by: str = "") -> None:
    kept = rows.get(key)
    if kept is None or _order(new, by) < _order(kept, by):
        rows[key] = new


def _order(row: Row, by: str) -> tuple[Any, ...]:
    # Of equals the first stays: later ones are deliveries of the same attempt, or folds of the same version.
    return -row[by] if by else 0, row["by_producer"], row["accepted_at"], row.get("priority")
