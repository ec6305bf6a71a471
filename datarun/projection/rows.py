"""Registers as the lists of /v1 have folds, submissions and datasets: what their rows would tell. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any

import orjson

from datarun.events import FoldRequested
from datarun.projection import columns
from datarun.projection.columns import Columns
from datarun.projection.evolve import Kept, Registers
from datarun.projection.text import json_text, storable
from datarun.readmodel.catalogue import ListedDataset, ListedSubmission
from datarun.readmodel.listing import ListedFold

_UNSEEN: Columns = {
    "run_attempt": 0, "run_delivery": 0, "run_rank": 0, "runner_id": None, "run_at": None, "stage": None,
    "cause": None, "fault": None, "message": None, "log": None, "full_train_predictions": None,
    "full_train_shape": None, "test_predictions": None, "test_shape": None, "train_time": 0.0, "train_cpu_time": 0.0,
    "train_memory": 0.0, "validation_time": 0.0, "test_time": 0.0, "test_cpu_time": 0.0, "test_memory": 0.0,
    "sandbox_level": None,
}  # fmt: skip
"""The columns of a run that nothing was seen of."""
_ASKED = (
    "fold_id", "submission_id", "submission_version", "raw_data_id", "priority", "train_is", "test_is", "task_id",
    "requested_by", "requested_at", "request_offset",
)  # fmt: skip


def fold_of(registers: Registers, fold_id: int, *, newest_version: int, owner: str | None) -> ListedFold | None:
    """Return a fold, None if nobody had asked for it; `newest_version` is that of its submission."""
    kept = registers.requests.get(fold_id)
    if kept is None:
        return None
    asked, run, fetch = columns.request(kept), registers.runs.get(fold_id), registers.fetches.get(fold_id)
    seen = {**_UNSEEN, **({} if run is None else columns.run(run))}
    return ListedFold(
        **_stored({name: asked[name] for name in _ASKED}),
        **_stored({name: seen[name] for name in _UNSEEN}),
        attempt=asked["request_attempt"],
        delivery=asked["request_delivery"],
        is_projected=True,
        fetched=fetch is not None and fetch.event.attempt >= asked["request_attempt"],
        replaced=asked["submission_version"] < newest_version,
        owner=storable(asked["requested_by"]) if owner is None else owner,
    )


def submission_of(
    newest: Kept[FoldRequested], folds: Iterable[ListedFold], *, accepted_at: datetime | None
) -> ListedSubmission:
    """Return a submission by a request of its newest version, and its folds; the log has no time of the version."""
    event, states = newest.event, dict[str, int]()
    for fold in folds:
        if fold.submission_id == event.submission_id and fold.submission_version == event.submission_version:
            states[fold.state.value] = states.get(fold.state.value, 0) + 1
    return ListedSubmission(
        submission_id=event.submission_id,
        raw_data_id=event.dataset.raw_data_id,
        version=event.submission_version,
        files=_json([file.model_dump(mode="json") for file in event.files]),
        accepted_at=accepted_at,
        folds=states,
    )


def dataset_of(registers: Registers, raw_data_id: int) -> ListedDataset | None:
    """Return a dataset, None if it had not been uploaded."""
    kept = registers.uploads.get(raw_data_id)
    if kept is None:
        return None
    asked, result = registers.split_requests.get(raw_data_id), registers.split_results.get(raw_data_id)
    ended: Columns = {} if result is None else columns.split_result(result)
    upload = columns.upload(kept)
    return ListedDataset(
        raw_data_id=raw_data_id,
        **_stored({name: upload[name] for name in ("name", "target_column", "workflow_elements", "uploaded_by")}),
        files=_json(upload["files"]),
        rows=kept.event.rows,
        uploaded_at=upload["uploaded_at"],
        split_attempt=asked.event.attempt if asked else 0,
        split_task_id=storable(asked.event.task_id) if asked else None,
        split_request=_json(asked.event.plan.model_dump()) if asked else None,
        result_attempt=ended.get("result_attempt", 0),
        split=_json(ended.get("split")),
        split_error=storable(ended["split_error"]) if "split_error" in ended else None,
        split_at=ended.get("split_at"),
    )


def _stored(row: Columns) -> Columns:
    """Return columns as Postgres gives them back."""
    return {name: _plain(value) for name, value in row.items()}


def _plain(value: Any) -> Any:
    match value:
        case str():
            return storable(value)
        case tuple():
            return list(value)
        case _:
            return value


def _json(value: Any) -> Any:
    return orjson.loads(json_text(value))
