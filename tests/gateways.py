"""A real gateway in a process of its own, as tests start it, talk to it and kill it."""

from __future__ import annotations

import base64
import os
import signal
import socket
import subprocess
import sys
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import requests

from datarun import accounts, events
from datarun.blobs import open_blobs
from datarun.db import connect
from datarun.envelope import decode
from datarun.events import Event
from datarun.log import StoredRecord, TopicPartition
from datarun.log.kafka import KafkaLog
from datarun.topics import PROJECTED, TOPICS, Catalogue

ROOT = Path(__file__).parent.parent
USER = ("ada", "correct horse")
READY_SECONDS = 30
CSV = "a,b,species\n" + "".join(f"{row},{row % 7},{row % 3}\n" for row in range(150))


def packed(content: bytes | str) -> str:
    """Return base64(zlib(content)), as clients send files."""
    return base64.b64encode(zlib.compress(content.encode() if isinstance(content, str) else content)).decode()


def indices(*values: int) -> str:
    """Return indices as clients send them."""
    return packed(b"".join(value.to_bytes(8, "little", signed=True) for value in values))


@dataclass
class Gateway:
    """A running gateway."""

    process: subprocess.Popen[bytes]
    url: str
    postgres_url: str
    log: Path
    session: requests.Session = field(default_factory=requests.Session)

    def post(self, path: str, body: Any = None, **options: Any) -> requests.Response:
        """POST JSON below /runapp/ as the test's account."""
        options = {"auth": USER, "timeout": 30} | options
        return self.session.post(f"{self.url}/runapp/{path}", **({"json": body} | options))

    def get(self, path: str, **options: Any) -> requests.Response:
        """GET below /runapp/ as the test's account."""
        return self.session.get(f"{self.url}/runapp/{path}", **({"auth": USER, "timeout": 30} | options))

    def upload(self, name: str = "iris", *, auth: Any = USER, **fields: Any) -> int:
        """Upload a small dataset and return its id."""
        body = {"name": name, "target_column": "species", "workflow_elements": "classifier"}
        answer = self.post("rawdata/", body | {"files": {f"{name}.csv": packed(CSV)}} | fields, auth=auth)
        assert answer.status_code == 201, answer.text
        return int(answer.json()["id"])

    def query(self, statement: str, *parameters: Any) -> list[Any]:
        """Run a statement in the gateway's database."""
        return query(self.postgres_url, statement, *parameters)

    def kill(self) -> None:
        """End it as by kill -9."""
        self.process.kill()
        self.process.wait()


def query(postgres_url: str, statement: str, *parameters: Any) -> list[Any]:
    """Run a statement and commit it; returns the rows if there are any."""
    connection = connect(postgres_url, application="test")
    try:
        with connection, connection.cursor() as cursor:
            cursor.execute(statement, parameters)
            return cursor.fetchall() if cursor.description else []
    finally:
        connection.close()


def fold_body(fold_id: int | str, submission_id: int, raw_data_id: int | None = None, **fields: Any) -> dict[str, Any]:
    """Return the body of a fold; with a dataset it is a submission's first one and brings its files."""
    body: dict[str, Any] = {
        "databoard_sf_id": fold_id,
        "databoard_s_id": submission_id,
        "train_is": indices(0, 1, 2),
        "test_is": indices(3, 4),
    }
    if raw_data_id is not None:
        body |= {"raw_data": raw_data_id, "files": {"classifier.py": packed("class Classifier: ...\n")}}
    return body | fields


def add_account(postgres_url: str) -> None:
    """Add the test's account, once."""
    if not query(postgres_url, "select 1 from intake.account where username = %s", USER[0]):
        accounts.add(postgres_url, *USER)


def pretend_projected(postgres_url: str, prefix: str) -> None:
    """Let the read model claim that it has seen all there will be, so that no answer waits for a projector."""
    for topic in PROJECTED:
        query(
            postgres_url,
            "insert into rm.projection_offset select %s, generate_series(0, %s), 1000000000",
            Catalogue(prefix).full_name(topic),
            topic.partitions - 1,
        )


def pretend_at_work(postgres_url: str, prefix: str) -> None:
    """Let a database be one that was at work before, so that a gateway on it does not wait for a broker."""
    query(postgres_url, "insert into intake.claim_offset values (%s, 0, 0)", f"{prefix}data-requests")


def read_log(kafka: str, prefix: str) -> list[StoredRecord]:
    """Return every record of an installation's topics."""
    log = KafkaLog(kafka)
    names = [Catalogue(prefix).full_name(topic) for topic in TOPICS]
    start = {
        TopicPartition(name, partition): 0
        for name, topic in zip(names, TOPICS, strict=True)
        for partition in range(topic.partitions)
    }
    try:
        return [record for batch in log.read(start, until_end=True) for record in batch]
    finally:
        log.close()


def read_events(kafka: str, prefix: str, kind: type[Event]) -> list[Event]:
    """Return the events of one kind that are in the log."""
    found = (decode(record.value, record.headers) for record in read_log(kafka, prefix))
    return [event for event in found if isinstance(event, kind)]


def give_split(postgres_url: str, raw_data_id: int, *, train_rows: int = 75) -> None:
    """Let the read model know the result of a dataset's first split, as the projector would."""
    split = events.Split(kind="standard", task_id="t", train_rows=train_rows).model_dump_json()
    query(
        postgres_url,
        """insert into rm.dataset (raw_data_id, name, split_attempt, result_attempt, split)
        values (%s, 'x', 1, 1, %s); notify datarun_projected""",
        raw_data_id,
        split,
    )


def give_result(postgres_url: str, blobs_url: str, fold_id: int, *, values: int = 6) -> np.ndarray:
    """Let the read model know a fold's predictions, as the projector would; returns them."""
    content = np.random.default_rng(fold_id).random(values)
    blob = open_blobs(blobs_url).put(content.tobytes())
    query(
        postgres_url,
        """insert into rm.fold (fold_id, request_attempt, request_delivery, submission_id, submission_version,
            raw_data_id, priority, train_is, test_is, task_id, run_attempt, run_rank, test_predictions,
            full_train_predictions, train_time)
        select fold_id, attempt, 1, submission_id, submission_version, raw_data_id, priority, train_is, test_is,
            task_id, attempt, 9, %s, %s, 1.5
        from intake.fold where fold_id = %s""",
        *[f"{blob.sha256}:{blob.size}"] * 2,
        fold_id,
    )
    return content


@contextmanager
def running_gateway(
    folder: Path,
    *,
    kafka: str,
    postgres_url: str,
    blobs_url: str,
    prefix: str,
    gateway_postgres_url: str | None = None,
    **environment: str,
) -> Iterator[Gateway]:
    """Start a gateway on a free port and stop it in the end; it may be told of another database than the test's."""
    add_account(postgres_url)
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / f"gateway-{time.monotonic_ns()}.log"
    notify = folder / "notify.sock"
    notify.unlink(missing_ok=True)
    options = [
        "--port",
        "0",
        "--kafka",
        kafka,
        "--postgres",
        gateway_postgres_url or postgres_url,
        "--blobs",
        blobs_url,
    ]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ready, log.open("wb") as output:
        ready.bind(str(notify))
        ready.settimeout(READY_SECONDS)
        process = subprocess.Popen(
            [sys.executable, "-m", "services.ingest", "--dir", str(folder), "--topic-prefix", prefix, *options],
            cwd=ROOT,
            stdout=output,
            stderr=output,
            env=os.environ | {"NOTIFY_SOCKET": str(notify)} | environment,
        )
        try:
            message = ready.recv(4096).decode()
        except TimeoutError:
            process.kill()
            raise AssertionError(log.read_text()) from None
    gateway = Gateway(process, message.partition("STATUS=")[2].strip(), postgres_url, log)
    try:
        yield gateway
    finally:
        gateway.session.close()
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(12)
            except subprocess.TimeoutExpired:
                process.kill()
                raise


def wait_until(condition: Any, *, seconds: float = 15.0) -> None:
    """Return once the condition holds; fails with its last value."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, f"still {value!r} after {seconds} s"
        time.sleep(0.02)
