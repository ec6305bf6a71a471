"""The main job, as a user would do it: upload iris, split it, send four folds, fetch their new predictions.

It speaks HTTP through post_api only; the true labels for the accuracy come from the split's test part in the blobs.
"""

from __future__ import annotations

import csv
import io
import json
import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import requests

from datarun import post_api
from datarun.errors import DatarunError
from datarun.stack.connection import Connection

EXAMPLE = Path(__file__).parent / "examples" / "iris"
DATASET = "iris"
TARGET = "species"
HELD_OUT = 0.3
TRAIN_ROWS = 105
SUBMISSION = 1
FOLDS = {11: "H", 12: "L", 13: "H", 14: "L"}
"""Fold id -> queue."""
VALIDATION_ROWS = 21
WAIT_SECONDS = 120.0
POLL_SECONDS = 0.05
FINAL = frozenset({"TESTED", "ERROR"})


class DemoFailed(DatarunError):
    """The demo did not get what it asked for."""


@dataclass(frozen=True)
class Demo:
    """The demo's client: one method a step."""

    connection: Connection

    @property
    def _login(self) -> tuple[str, str, str]:
        return (self.connection.gateway_url, self.connection.user, self.connection.password)

    def upload(self) -> int:
        """Upload iris, or find it where an earlier run did; return its id."""
        answer = post_api.post_data(*self._login, DATASET, TARGET, "classifier", str(EXAMPLE / "iris.csv"))
        if answer.ok:
            return int(answer.json()["id"])
        if "RawData with this name already exists." not in answer.text:
            raise DemoFailed(_refusal("upload", answer))
        known = post_api.get_raw_data(*self._login).json()
        return next(int(dataset["id"]) for dataset in known if dataset["name"] == DATASET)

    def split(self, raw_data_id: int) -> None:
        """Ask for the train and test parts; asking again for the same is answered alike."""
        answer = post_api.post_split(*self._login, HELD_OUT, raw_data_id)
        if not answer.ok:
            raise DemoFailed(_refusal("split", answer))

    def send_folds(self, raw_data_id: int) -> None:
        """Send the submission with its first fold, then the other folds; force them if an earlier run sent them."""
        shuffled = random.Random(42)  # noqa: S311 - folds, not secrets
        force = "submission, submission_fold"
        for fold_id, priority in FOLDS.items():
            rows = shuffled.sample(range(TRAIN_ROWS), TRAIN_ROWS)
            answer = post_api.post_submission_fold(
                *self._login,
                SUBMISSION,
                fold_id,
                sorted(rows[VALIDATION_ROWS:]),
                sorted(rows[:VALIDATION_ROWS]),
                priority=priority,
                raw_data_id=raw_data_id,
                list_submission_files=[str(EXAMPLE / "classifier.py")],
                force=force,
            )
            if not answer.ok:
                raise DemoFailed(_refusal(f"fold {fold_id}", answer))
            force = "submission_fold"

    def watch(self) -> Iterator[dict[int, str]]:
        """Yield the folds' states until all are final; raises DemoFailed when that takes too long."""
        deadline = time.monotonic() + WAIT_SECONDS
        while time.monotonic() < deadline:
            listed = post_api.get_submission_fold_light(*self._login).json()
            states = {fold["databoard_sf_id"]: fold["state"] for fold in listed if fold["databoard_sf_id"] in FOLDS}
            yield states
            if len(states) == len(FOLDS) and FINAL.issuperset(states.values()):
                return
            time.sleep(POLL_SECONDS)
        raise DemoFailed(f"the folds were not done within {WAIT_SECONDS:.0f} s; `datarun status` shows what runs")

    def fetch(self, raw_data_id: int) -> list[dict[str, Any]]:
        """Return the predictions nobody fetched yet."""
        fetched: list[dict[str, Any]] = post_api.get_prediction_new(*self._login, raw_data_id).json()
        return sorted(fetched, key=lambda fold: int(fold["databoard_sf_id"]))

    def explain(self, fold_id: int) -> str:
        """Return the log of a fold."""
        return str(post_api.get_submission_fold_detail(*self._login, fold_id).json()["log_messages"])


def test_labels(connection: Connection, raw_data_id: int) -> list[str]:
    """Return the true labels of the held-out part, which only the one who owns the blobs can see."""
    from datarun.blobs import open_blobs  # noqa: PLC0415 - loaded while the folds run
    from datarun.db import connect  # noqa: PLC0415
    from datarun.events import Blob  # noqa: PLC0415

    database = connect(connection.postgres_url, application="datarun-demo")
    try:
        with database.cursor() as cursor:
            cursor.execute("select split -> 'test' from rm.dataset where raw_data_id = %s", (raw_data_id,))
            (part,) = cursor.fetchone() or (None,)
    finally:
        database.close()
    if part is None:
        raise DemoFailed("the dataset has no test part")
    blob = Blob.model_validate_json(json.dumps(part))
    text = open_blobs(connection.blobs).get(blob).decode()
    return [row[TARGET] for row in csv.DictReader(io.StringIO(text))]


def accuracy(predictions: str, labels: Sequence[str]) -> float:
    """Return the share of rows whose most probable class is the true one; classes are in the order of their names."""
    classes = sorted(set(labels))
    probabilities = post_api.decode_predictions(predictions, shape=(len(labels), len(classes)))
    chosen = [classes[int(column)] for column in probabilities.argmax(axis=1)]
    return sum(map(str.__eq__, chosen, labels)) / len(labels)


def run_demo(connection: Connection, *, tell: Callable[[str], None], show: Callable[[dict[int, str]], None]) -> Outcome:
    """Do the whole job; `tell` gets a line a step, `show` the states of the folds as they change."""
    demo = Demo(connection)
    raw_data_id = demo.upload()
    tell(f"dataset {DATASET} is number {raw_data_id} (150 rows)")
    demo.split(raw_data_id)
    tell(f"split asked for: {HELD_OUT:.0%} held out")
    demo.send_folds(raw_data_id)
    tell(f"submission {SUBMISSION} sent with folds {', '.join(f'{fold} ({queue})' for fold, queue in FOLDS.items())}")
    for states in demo.watch():
        show(states)
    predictions = demo.fetch(raw_data_id)
    labels = test_labels(connection, raw_data_id) if predictions else []
    rows = [Row.of(fold, labels) for fold in predictions]
    failed = {fold: demo.explain(fold) for fold in FOLDS.keys() - {row.fold_id for row in rows}}
    return Outcome(rows, failed)


@dataclass(frozen=True)
class Row:
    """One fetched fold: times in seconds, memory in MiB."""

    fold_id: int
    state: str
    queue: str
    train_time: float
    validation_time: float
    test_time: float
    peak_mib: float
    accuracy: float

    @classmethod
    def of(cls, fold: dict[str, Any], labels: Sequence[str]) -> Row:
        """Return the row of one prediction object."""
        return cls(
            fold_id=fold["databoard_sf_id"],
            state=fold["state"],
            queue=FOLDS[fold["databoard_sf_id"]],
            train_time=fold["train_time"],
            validation_time=fold["validation_time"],
            test_time=fold["test_time"],
            peak_mib=max(fold["train_memory"], fold["test_memory"]),
            accuracy=accuracy(fold["test_predictions"], labels),
        )


@dataclass(frozen=True)
class Outcome:
    """What the demo fetched, and the logs of the folds it did not get."""

    rows: list[Row]
    failed: dict[int, str]


def _refusal(step: str, answer: requests.Response) -> str:
    return f"{step}: {answer.status_code} {answer.text[:500]}"
