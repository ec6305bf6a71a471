"""All that clients and a runner can bring about at one installation, and everything it can then be asked."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from click.testing import Result
from psycopg2.extras import RealDictCursor
from typer.testing import CliRunner

from datarun.blobs import StreamedBlobs
from datarun.cli.intake import app as command
from datarun.db import connect
from datarun.events import (
    Cause,
    DataSplit,
    Event,
    Fault,
    FoldFailed,
    FoldStarted,
    FoldTested,
    Metrics,
    Split,
    Stage,
)
from datarun.log.kafka import KafkaLog
from datarun.topics import Catalogue
from services.ingest.sources import SPECIFIC_FUNCTIONS
from tests.gateways import Gateway, fold_body, indices, packed, query, running_gateway, wait_until
from tests.histories import SANDBOX, Tables
from tests.projecting import Installation
from tests.readmodel_dump import dump

CLAIMS = ("dataset", "submission", "fold", "cancellation")
SPECIFIC = "".join(f"def {name}(*_): ...\n" for name in SPECIFIC_FUNCTIONS)
FORCE = {"fold": {"force": "submission_fold"}, "submission": {"force": "submission, submission_fold"}}


def claims_of(postgres_url: str) -> dict[str, list[dict[str, Any]]]:
    """Return the claims of a database."""
    connection = connect(postgres_url)
    found = {}
    with connection, connection.cursor(cursor_factory=RealDictCursor) as cursor:
        for table in CLAIMS:
            cursor.execute(f"select * from intake.{table} order by 1, 2")  # noqa: S608 - a test's own names
            found[table] = [dict(row) for row in cursor.fetchall()]
        cursor.execute("select last_value, is_called from intake.dataset_id")
        found["ids"] = [dict(row) for row in cursor.fetchall()]
    connection.close()
    return found


def rows_of(postgres_url: str) -> Tables:
    """Return the read model."""
    connection = connect(postgres_url)
    try:
        return dump(connection)
    finally:
        connection.close()


def _run(fold_id: int, raw_data_id: int, submission_id: int, *, attempt: int = 1) -> dict[str, Any]:
    run: dict[str, Any] = {"fold_id": fold_id, "attempt": attempt, "delivery": 1, "runner_id": "runner-1"}
    return run | {"raw_data_id": raw_data_id, "submission_id": submission_id}


def _tested(blobs: StreamedBlobs, run: dict[str, Any], mark: int) -> list[Event]:
    predictions = [blobs.put(bytes([mark + number]) * 8 * 6) for number in (0, 1)]
    return [
        FoldStarted(**run, lease_seconds=10),
        FoldTested(
            **run,
            metrics=Metrics(train_time=mark, test_memory=0.5),
            full_train_predictions=predictions[0],
            full_train_shape=(2, 3),
            test_predictions=predictions[1],
            test_shape=(2, 3),
            sandbox=SANDBOX,
        ),
    ]


def live(gateway: Gateway, append: Callable[[list[Event]], object], blobs: StreamedBlobs) -> None:
    """Let clients and a runner, played by the test, do all that a gateway can be asked for."""
    iris, wine = gateway.upload("iris"), gateway.upload("wine")
    gateway.upload("custom", files={"specific.py": packed(SPECIFIC), "a.csv": packed("a\n1\n")})
    for raw_data_id in (iris, wine):
        asked = {"raw_data_id": raw_data_id, "held_out_test": 0.3, "random_state": 7}
        task = gateway.post("rawdata/split/", asked).json()["task_id"]
        parts = {"train": blobs.put(b"train"), "test": blobs.put(b"test"), "train_rows": 105}
        split = Split(kind="standard", task_id=task, held_out_test=0.3, random_state=7, test_rows=45, **parts)
        append([DataSplit(raw_data_id=raw_data_id, attempt=1, task_id=task, split=split, runner_id="runner-1")])
    for number, raw_data_id in ((1, iris), (2, wine)):
        _post(gateway, fold_body(number * 10, number, raw_data_id))
        for fold_id in range(number * 10 + 1, number * 10 + 6):
            _post(gateway, fold_body(fold_id, number, priority="H" if fold_id % 2 else "L"))
    append(_tested(blobs, _run(10, iris, 1), 1) + _tested(blobs, _run(11, iris, 1), 3))
    append(_tested(blobs, _run(20, wine, 2), 5) + _tested(blobs, _run(21, wine, 2), 7))
    failed = {"stage": Stage.TRAIN, "cause": Cause.USER_ERROR, "fault": Fault.USER, "message": "\nit broke\n"}
    append([FoldFailed(**_run(12, iris, 1), **failed)])
    _post(gateway, fold_body(12, 1, **FORCE["fold"]))
    _post(gateway, fold_body(22, 2, files={"classifier.py": packed("class Classifier: pass\n")}, **FORCE["submission"]))
    assert gateway.session.post(
        f"{gateway.url}/v1/folds/13/cancel", json={"reason": "a mistake"}, auth=("ada", "correct horse"), timeout=30
    ).status_code in (200, 202)
    assert len(gateway.post("testpredictions/new/", {"raw_data_id": iris}).json()) == 2


def _post(gateway: Gateway, body: dict[str, Any]) -> None:
    answer = gateway.post("submissionfold/", body)
    assert answer.status_code == 201, answer.text


def answers_of(gateway: Gateway) -> dict[str, Any]:
    """Ask for everything there is, and for what must be refused, without changing anything."""
    taken = {"name": "wine", "target_column": "species", "workflow_elements": "classifier"}
    split = {"held_out_test": 0.3, "random_state": 7}
    ids = [*range(10, 16), *range(20, 26)]
    asked = {
        "datasets": gateway.get("rawdata/"),
        "folds": gateway.get("submissionfold/"),
        "light": gateway.get("submissionfold-light/"),
        **{f"fold {fold_id}": gateway.get(f"submissionfold/{fold_id}/") for fold_id in (*ids, 99)},
        "predictions": gateway.post("testpredictions/list/", {"list_submission_fold": ids}),
        "nothing new": gateway.post("testpredictions/new/", {}),
        "name taken": gateway.post("rawdata/", taken | {"files": {"wine.csv": packed("a,species\n1,2\n")}}),
        "split again": gateway.post("rawdata/split/", split | {"raw_data_id": 1}),
        "split otherwise": gateway.post("rawdata/split/", split | {"raw_data_id": 1, "random_state": 8}),
        "fold taken": gateway.post("submissionfold/", fold_body(11, 1)),
        "other files": gateway.post(
            "submissionfold/", fold_body(90, 1, files={"classifier.py": packed("class A: ...\n")})
        ),
        "other dataset": gateway.post("submissionfold/", fold_body(90, 1, 2)),
        "out of range": gateway.post("submissionfold/", fold_body(90, 1, train_is=indices(200))),
        "cancelled": gateway.session.post(
            f"{gateway.url}/v1/folds/13/cancel", json={}, auth=("ada", "correct horse"), timeout=30
        ),
    }
    return {name: (answer.status_code, answer.json()) for name, answer in asked.items()}


@dataclass
class World:
    """One log and blob store, and what is started on one database or another."""

    kafka: str
    catalogue: Catalogue
    folder: Path
    blobs_url: str
    log: KafkaLog

    @contextmanager
    def on(self, postgres_url: str) -> Iterator[tuple[Installation, Gateway]]:
        """Run a projector and a gateway."""
        installation = Installation(self.kafka, postgres_url, self.catalogue, self.folder)
        servers = {"kafka": self.kafka, "postgres_url": postgres_url, "blobs_url": self.blobs_url}
        with (
            installation.projector(),
            running_gateway(self.folder / "gateway", **servers, prefix=self.catalogue.prefix) as gateway,
        ):
            yield installation, gateway

    def settle(self, installation: Installation) -> None:
        """Wait until all that was accepted is projected."""
        owed = "select id from intake.outbox where sent_at is null"
        wait_until(lambda: not query(installation.postgres_url, owed) and installation.caught_up(self.log), seconds=30)

    def rebuild(self, postgres_url: str) -> Result:
        """Run `datarun intake rebuild`."""
        options = ["--kafka", self.kafka, "--postgres", postgres_url, "--dir", str(self.folder)]
        return CliRunner().invoke(command, ["rebuild", *options, "--topic-prefix", self.catalogue.prefix])
