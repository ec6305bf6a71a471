"""An installation with a real gateway and a real projector, as tests of /v1 use it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import requests

from datarun import tokens
from datarun.blobs import LocalBlobs
from datarun.events import Blob, DataSplit, Event, FoldTested, Split
from datarun.log.admin import create_topics
from datarun.log.kafka import KafkaLog
from datarun.topics import Catalogue
from tests.gateways import USER, Gateway, fold_body, query, running_gateway, wait_until
from tests.histories import run_event
from tests.projecting import Installation


@dataclass
class Site:
    """A gateway and a projector over one database and one prefix."""

    installation: Installation
    gateway: Gateway
    log: KafkaLog
    blobs: LocalBlobs
    tokens: dict[str, str] = field(default_factory=dict)
    numbers: Iterator[int] = field(default_factory=lambda: count(11))

    def ask(self, method: str, path: str, *, role: str | None = None, **options: Any) -> requests.Response:
        """Send a request below /v1/ as the test's admin, or with the token of a role."""
        if role is None:
            options.setdefault("auth", USER)
        else:
            options["headers"] = {"Authorization": f"Bearer {self.token(role)}"} | options.get("headers", {})
        return requests.request(method, f"{self.gateway.url}/v1/{path}", timeout=30, **options)

    def get(self, path: str, **options: Any) -> Any:
        """GET what is there, as JSON."""
        answer = self.ask("GET", path, **options)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def token(self, role: str) -> str:
        """Return the token of an account that is called as its role."""
        if role not in self.tokens:
            self.tokens[role] = tokens.make()
            tokens.add(self.installation.postgres_url, self.tokens[role], role, role=role)
        return self.tokens[role]

    def dataset(self, *, is_split: bool = False) -> int:
        """Upload a dataset of its own, perhaps with a split, and return its number."""
        number = self.gateway.upload(f"data{next(self.numbers)}")
        if is_split:
            assert self.gateway.post("rawdata/split/", {"raw_data_id": number, "held_out_test": 0.5}).ok
            parts = (self.blobs.put(b"train"), self.blobs.put(b"test"))
            split = Split(kind="standard", task_id="t", train=parts[0], test=parts[1], train_rows=75, test_rows=75)
            self.append(DataSplit(raw_data_id=number, attempt=1, task_id="t", split=split, runner_id="runner"))
            wait_until(lambda: self.get(f"datasets/{number}/split")["state"] == "done")
        return number

    def fold(self, raw_data_id: int | None = None, *, submission: int | None = None, **fields: Any) -> int:
        """Have a fold accepted, by default of a submission and a dataset of its own; returns its number."""
        number = next(self.numbers)
        if submission is None:
            raw_data_id = raw_data_id or self.dataset()
        answer = self.gateway.post("submissionfold/", fold_body(number, submission or number, raw_data_id, **fields))
        assert answer.status_code == 201, answer.text
        return number

    def give_to(self, username: str, submission: int) -> None:
        """Have a submission be another account's, whoever asked for its folds."""
        statement = "update intake.submission set submitted_by = %s where submission_id = %s"
        query(self.installation.postgres_url, statement, username, submission)

    def append(self, *events: Event) -> None:
        """Append events, and wait until they are projected."""
        self.installation.append(self.log, events)
        wait_until(lambda: self.installation.caught_up(self.log))

    def tested(self, fold_id: int, predictions: np.ndarray | None = None, **fields: Any) -> None:
        """Let a runner say that a fold is tested."""
        array = np.arange(6.0).reshape(3, 2) if predictions is None else predictions
        blob: Blob = self.blobs.put(array.tobytes())
        shape = tuple(array.shape)
        told = {"full_train_predictions": blob, "full_train_shape": shape, "test_predictions": blob}
        event = run_event(FoldTested, fold_id, **fields).model_copy(update={**told, "test_shape": shape})
        self.append(event)


@contextmanager
def running_site(kafka: str, postgres_url: str, folder: Path, prefix: str, **environment: str) -> Iterator[Site]:
    """Run a gateway beside a projector."""
    create_topics(kafka, prefix=prefix)
    installation = Installation(kafka, postgres_url, Catalogue(prefix), folder)
    blobs = folder / "blobs"
    blobs.mkdir()
    log = KafkaLog(kafka)
    try:
        with (
            installation.projector() as projector,
            running_gateway(
                folder / "gateway",
                kafka=kafka,
                postgres_url=postgres_url,
                blobs_url=blobs.as_uri(),
                prefix=prefix,
                **environment,
            ) as gateway,
        ):
            projector.wait_ready()
            yield Site(installation, gateway, log, LocalBlobs(blobs))
    finally:
        log.close()
