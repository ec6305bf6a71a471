"""Rows as the 2016 interface shows them: its keys in its order, its three states, its log texts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from datarun.events import Priority
from datarun.lifecycle import State
from datarun.readmodel.queries import KnownDataset, KnownFold

Encode = Callable[[str | None], str | None]
"""Turns the name of a blob into base64(zlib(bytes)), None into None."""

SUCCESS_LOG = "\n\n"
PRIORITY_WORDS = {Priority.LOW.value: "low", Priority.HIGH.value: "high"}


def raw_data(dataset: KnownDataset) -> dict[str, Any]:
    """Show a dataset; where its files are is nobody's business."""
    return {
        "id": dataset.raw_data_id,
        "name": dataset.name,
        "files_path": None,
        "workflow_elements": dataset.workflow_elements,
        "target_column": dataset.target_column,
    }


def submission_fold(fold: KnownFold, encoded: Encode) -> dict[str, Any]:
    """Show a fold with all it was asked with."""
    return {
        "databoard_sf_id": fold.fold_id,
        "priority": PRIORITY_WORDS[fold.priority],
        "train_is": encoded(fold.train_is),
        "test_is": encoded(fold.test_is),
        "task_id": fold.task_id,
        "full_train_predictions": encoded(fold.full_train_predictions) if fold.has_ended else None,
        "test_predictions": encoded(fold.test_predictions) if fold.has_ended else None,
        "state": state(fold),
        "log_messages": _log_messages(fold),
        "train_time": _metric(fold, fold.train_time),
        "validation_time": _metric(fold, fold.validation_time),
        "test_time": _metric(fold, fold.test_time),
        "train_cpu_time": _metric(fold, fold.train_cpu_time),
        "train_memory": _metric(fold, fold.train_memory),
        "test_cpu_time": _metric(fold, fold.test_cpu_time),
        "test_memory": _metric(fold, fold.test_memory),
        "new": not fold.fetched,
        "databoard_s": fold.submission_id,
    }


def light(fold: KnownFold) -> dict[str, Any]:
    """Show a fold in a word."""
    return {
        "databoard_sf_id": fold.fold_id,
        "databoard_s": fold.submission_id,
        "state": state(fold),
        "new": not fold.fetched,
    }


def prediction(fold: KnownFold, encoded: Encode) -> dict[str, Any]:
    """Show what came out of a fold."""
    return {
        "databoard_sf_id": fold.fold_id,
        "databoard_s": fold.submission_id,
        "test_predictions": encoded(fold.test_predictions) if fold.has_ended else None,
        "full_train_predictions": encoded(fold.full_train_predictions) if fold.has_ended else None,
        "state": state(fold),
        "log_messages": _log_messages(fold),
        "train_time": _metric(fold, fold.train_time),
        "validation_time": _metric(fold, fold.validation_time),
        "test_time": _metric(fold, fold.test_time),
        "train_cpu_time": _metric(fold, fold.train_cpu_time),
        "test_cpu_time": _metric(fold, fold.test_cpu_time),
        "train_memory": _metric(fold, fold.train_memory),
        "test_memory": _metric(fold, fold.test_memory),
    }


def state(fold: KnownFold) -> State:
    """Return TODO until a fold has ended: databoard takes every other word for the end."""
    return fold.state if fold.has_ended else State.TODO


def _metric(fold: KnownFold, value: float) -> float:
    return value if fold.has_ended else 0.0


def _log_messages(fold: KnownFold) -> str | None:
    if not fold.has_ended:
        return None
    return SUCCESS_LOG if fold.state is State.TESTED else fold.message
