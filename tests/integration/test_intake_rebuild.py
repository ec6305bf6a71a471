"""The whole database lost and made anew from a real log: equal tables, and equal answers of a real gateway."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from psycopg2.extras import RealDictCursor
from typer.testing import CliRunner

from datarun.blobs import StreamedBlobs, open_blobs
from datarun.cli.intake import app as command
from datarun.db import connect
from datarun.envelope import encode
from datarun.events import (
    Blob,
    Cause,
    DataSplit,
    DataUploaded,
    Event,
    Fault,
    FoldFailed,
    FoldStarted,
    FoldTested,
    Metrics,
    Split,
    Stage,
)
from datarun.log.admin import create_topics
from datarun.log.kafka import KafkaLog
from datarun.topics import Catalogue
from services.ingest.sources import SPECIFIC_FUNCTIONS
from tests.gateways import Gateway, fold_body, indices, packed, query, running_gateway, wait_until
from tests.histories import SANDBOX, Tables, dataset
from tests.projecting import CONTEXT, Installation
from tests.readmodel_dump import dump

CLAIMS = ("dataset", "submission", "fold", "cancellation")
OF_THIS_DATABASE = {"accepted_at", "cancelled_at"}
"""Moments of the lost database's clock; the broker's stand in for them."""
SPECIFIC = "".join(f"def {name}(*_): ...\n" for name in SPECIFIC_FUNCTIONS)
FORCE = {"fold": {"force": "submission_fold"}, "submission": {"force": "submission, submission_fold"}}


def _claims(postgres_url: str) -> dict[str, list[dict[str, Any]]]:
    connection = connect(postgres_url)
    found = {}
    with connection, connection.cursor(cursor_factory=RealDictCursor) as cursor:
        for table in CLAIMS:
            cursor.execute(f"select * from intake.{table} order by 1, 2")  # noqa: S608 - a test's own names
            found[table] = [
                {name: value for name, value in row.items() if name not in OF_THIS_DATABASE}
                for row in cursor.fetchall()
            ]
        cursor.execute("select last_value, is_called from intake.dataset_id")
        found["ids"] = [dict(row) for row in cursor.fetchall()]
    connection.close()
    return found


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


def _live(gateway: Gateway, append: Callable[[list[Event]], object], blobs: StreamedBlobs) -> None:
    """Let clients and a runner, played by the test, do all that a gateway can be asked for."""
    iris, wine = gateway.upload("iris"), gateway.upload("wine")
    gateway.upload("custom", files={"specific.py": packed(SPECIFIC), "a.csv": packed("a\n1\n")})
    for raw_data_id in (iris, wine):
        asked = {"raw_data_id": raw_data_id, "held_out_test": 0.3, "random_state": 7}
        task = gateway.post("rawdata/split/", asked).json()["task_id"]
        parts = {"train": Blob(sha256="1" * 64, size=1), "test": Blob(sha256="2" * 64, size=1), "train_rows": 105}
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


def _answers(gateway: Gateway) -> dict[str, Any]:
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
        owed = "select from intake.outbox where sent_at is null"
        wait_until(lambda: not query(installation.postgres_url, owed) and installation.caught_up(self.log), seconds=30)

    def rebuild(self, postgres_url: str) -> Result:
        """Run `datarun intake rebuild`."""
        options = ["--kafka", self.kafka, "--postgres", postgres_url, "--dir", str(self.folder)]
        return CliRunner().invoke(command, ["rebuild", *options, "--topic-prefix", self.catalogue.prefix])


@pytest.fixture
def world(kafka: str, topic_prefix: str, tmp_path: Path, blobs_url: str) -> Iterator[World]:
    """Make the topics of a fresh installation."""
    create_topics(kafka, prefix=topic_prefix)
    log = KafkaLog(kafka)
    yield World(kafka, Catalogue(topic_prefix), tmp_path, blobs_url, log)
    log.close()


def test_a_lost_database_is_made_anew_from_the_log(
    world: World, fresh_database: Callable[[], AbstractContextManager[str]]
) -> None:
    """Tables of both sides are equal, and so is every answer; a second run changes nothing."""
    with fresh_database() as lost, fresh_database() as empty:
        with world.on(lost) as (installation, gateway):
            _live(gateway, partial(installation.append, world.log), open_blobs(world.blobs_url))
            world.settle(installation)
            # The first ones fetch what is new.
            _answers(gateway)
            world.settle(installation)
            answers = _answers(gateway)
            world.settle(installation)
            assert type(world.rebuild(lost).exception).__name__ == "GatewaysRunning"
        claims, rows = _claims(lost), _rows(lost)
        for _ in range(2):
            assert world.rebuild(empty).exit_code == 0
            assert _claims(empty) == claims
        with world.on(empty) as (installation, gateway):
            world.settle(installation)
            assert _answers(gateway) == answers
            assert _rows(empty) == rows
            assert gateway.upload("a fourth") == len(claims["dataset"]) + 1
            world.settle(installation)
        assert world.rebuild(lost).exit_code == 0
        assert [row["name"] for row in _claims(lost)["dataset"]] == ["iris", "wine", "custom", "a fourth"]


def test_what_the_projection_buries_claims_nothing(world: World, postgres_url: str) -> None:
    """Records of others that nothing can be made of do not keep a database from being rebuilt."""
    upload = encode(_uploaded(1), catalogue=world.catalogue, context=CONTEXT)
    for record in (
        replace(upload, value=b"{"),
        replace(upload, key=b"2"),
        replace(upload, value=upload.value.replace(b'"rows":3', b'"rows":99999999999')),
        upload,
        encode(_uploaded(2), catalogue=world.catalogue, context=CONTEXT),
    ):
        world.log.append(record).result(30)
    assert world.rebuild(postgres_url).exit_code == 0
    assert [(row["raw_data_id"], row["rows"]) for row in _claims(postgres_url)["dataset"]] == [(1, 3)]


def _uploaded(raw_data_id: int) -> DataUploaded:
    told = {"name": "taken", "target_column": "y", "workflow_elements": "classifier", "uploaded_by": "somebody"}
    return DataUploaded(raw_data_id=raw_data_id, files=dataset().files, rows=3, **told)


def _rows(postgres_url: str) -> Tables:
    connection = connect(postgres_url)
    try:
        return dump(connection)
    finally:
        connection.close()
