"""Rows as the clients of 2016 see them: keys in their order, three states, nothing of an attempt that is over."""

from __future__ import annotations

from dataclasses import replace

import pytest

from datarun.lifecycle import Rank
from datarun.readmodel.queries import KnownDataset, KnownFold
from services.ingest import legacy
from services.ingest.portions import PORTION_BYTES, portions

FOLD_KEYS = [
    *("databoard_sf_id", "priority", "train_is", "test_is", "task_id", "full_train_predictions", "test_predictions"),
    *("state", "log_messages", "train_time", "validation_time", "test_time", "train_cpu_time", "train_memory"),
    *("test_cpu_time", "test_memory", "new", "databoard_s"),
]
PREDICTION_KEYS = [
    *("databoard_sf_id", "databoard_s", "test_predictions", "full_train_predictions", "state", "log_messages"),
    *("train_time", "validation_time", "test_time", "train_cpu_time", "test_cpu_time", "train_memory", "test_memory"),
]
FOLD = KnownFold(11, 1, 24, 1, 1, "L", "i:8", "j:8", "task")
DONE = replace(
    FOLD, run_attempt=1, run_rank=Rank.TESTED, test_predictions="p:8", full_train_predictions="q:8", train_time=2.0
)


def encoded(name: str | None) -> str | None:
    """Stand for the encoding of a blob."""
    return name and f"<{name}>"


def test_keys_are_in_the_recorded_order() -> None:
    """Each object has the keys of 2016 in their order."""
    assert list(legacy.submission_fold(FOLD, encoded)) == FOLD_KEYS
    assert list(legacy.prediction(FOLD, encoded)) == PREDICTION_KEYS
    assert list(legacy.light(FOLD)) == ["databoard_sf_id", "databoard_s", "state", "new"]
    dataset = legacy.raw_data(KnownDataset(1, "iris", "species", "classifier"))
    assert list(dataset) == ["id", "name", "files_path", "workflow_elements", "target_column"]


def test_a_fold_that_was_only_asked_for() -> None:
    """It reads TODO, new, without numbers."""
    shown = legacy.submission_fold(FOLD, encoded)
    assert (shown["state"], shown["new"], shown["priority"], shown["log_messages"]) == ("TODO", True, "low", None)
    assert (shown["train_is"], shown["test_predictions"], shown["train_time"]) == ("<i:8>", None, 0.0)


@pytest.mark.parametrize("rank", [Rank.STARTED, Rank.TRAINED, Rank.LOST])
def test_a_fold_in_flight_reads_todo(rank: Rank) -> None:
    """Databoard takes any other word for the end, so nothing of a run shows before it ended."""
    shown = legacy.prediction(replace(DONE, run_rank=rank), encoded)
    assert (shown["state"], shown["full_train_predictions"], shown["train_time"]) == ("TODO", None, 0.0)


def test_a_tested_fold() -> None:
    """Predictions, numbers and the log of success."""
    shown = legacy.prediction(DONE, encoded)
    assert (shown["state"], shown["test_predictions"], shown["log_messages"]) == ("TESTED", "<p:8>", "\n\n")
    assert shown["train_time"] == 2.0


def test_a_failed_fold() -> None:
    """The message tells the stage; what was measured is kept."""
    failed = replace(DONE, run_rank=Rank.ERROR, message="\nx - ERROR(train)\n", test_predictions=None)
    shown = legacy.prediction(failed, encoded)
    assert (shown["state"], shown["log_messages"], shown["test_predictions"]) == ("ERROR", "\nx - ERROR(train)\n", None)


def test_a_forced_fold_shows_nothing_of_the_attempt_before() -> None:
    """From the moment a new attempt is accepted the old result is gone from sight."""
    shown = legacy.submission_fold(replace(DONE, attempt=2), encoded)
    assert (shown["state"], shown["test_predictions"], shown["log_messages"]) == ("TODO", None, None)


def test_portions_hold_some_megabytes() -> None:
    """Every fold is in exactly one portion, in order; a large one closes its portion."""
    large = replace(DONE, test_predictions=f"p:{PORTION_BYTES}")
    folds = [replace(fold, fold_id=number) for number, fold in enumerate([DONE, large, DONE, DONE, large], 1)]
    assert [[fold.fold_id for fold in portion] for portion in portions(folds)] == [[1, 2], [3, 4, 5]]
    assert [len(portion) for portion in portions([DONE] * 1001)] == [500, 500, 1]
