"""`datarun recall` at a real gateway: what is doubted is asked for again, once, and nothing else is."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from datarun.cli import app
from datarun.db import connect
from datarun.envelope import decode, encode
from datarun.errors import DatarunError
from datarun.events import FoldFailed, FoldRequested, FoldTested
from datarun.gateway_client import GatewayRefused, GatewayUnavailable
from datarun.log.admin import create_topics
from datarun.log.kafka import KafkaLog
from datarun.projection.apply import apply
from datarun.recall import Client, Recalled
from datarun.topics import FOLD_REQUESTS_HIGH, FOLD_REQUESTS_LOW, PROJECTED, Catalogue
from tests.gateways import USER, Gateway, fold_body, running_gateway
from tests.histories import CONTEXT, run_event
from tests.unit.test_verification import PROVENANCE

GOOD, BAD = "good-1-ab", "bad-1-cd"


@dataclass
class Site:
    """A gateway in front of folds whose results two runners have."""

    gateway: Gateway
    log: KafkaLog
    catalogue: Catalogue
    options: tuple[str, ...]
    dataset: int

    def requests(self) -> list[FoldRequested]:
        """Return the requests of the log."""
        names = [self.catalogue.full_name(topic) for topic in (FOLD_REQUESTS_HIGH, FOLD_REQUESTS_LOW)]
        ends = self.log.end_offsets(names)
        records = [one for batch in self.log.read(dict.fromkeys(ends, 0), until_end=True) for one in batch]
        return [event for one in records if isinstance(event := decode(one.value, one.headers), FoldRequested)]

    def again(self) -> set[int]:
        """Return the folds with a second attempt."""
        return {event.fold_id for event in self.requests() if event.attempt == 2}

    def project(self) -> None:
        """Bring the log into the read model, as the projector does."""
        ends = self.log.end_offsets([self.catalogue.full_name(topic) for topic in PROJECTED])
        with closing(connect(self.gateway.postgres_url)) as connection:
            for batch in self.log.read(dict.fromkeys(ends, 0), until_end=True):
                apply(batch, connection, catalogue=self.catalogue)

    def recall(self, *arguments: str, code: int = 0) -> str:
        """Run `datarun recall` and return what it printed."""
        done = CliRunner().invoke(app, ["recall", *arguments, *self.options])
        assert done.exit_code == code, f"{done.output}{done.exception}"
        return done.output if not isinstance(done.exception, DatarunError) else str(done.exception)


@pytest.fixture
def site(kafka: str, postgres_url: str, topic_prefix: str, blobs_url: str, tmp_path: Path) -> Iterator[Site]:
    """Folds 1 and 2 tested by the good runner, 3 and 4 by the bad one, 5 failed there, 6 waits."""
    create_topics(kafka, prefix=topic_prefix)
    log, catalogue = KafkaLog(kafka), Catalogue(topic_prefix)
    servers = {"kafka": kafka, "postgres_url": postgres_url, "blobs_url": blobs_url, "prefix": topic_prefix}
    password = tmp_path / "password"
    password.write_text(USER[1])
    with running_gateway(tmp_path / "gateway", **servers) as gateway:
        dataset = gateway.upload()
        for fold_id in range(1, 7):
            assert gateway.post("submissionfold/", fold_body(fold_id, 9, dataset)).status_code == 201
        for fold_id, runner in {1: GOOD, 2: GOOD, 3: BAD, 4: BAD, 5: BAD}.items():
            kind = FoldFailed if fold_id == 5 else FoldTested
            said = {"runner_id": runner, "raw_data_id": dataset, "submission_id": 9}
            if kind is FoldTested:
                digest = "a" * 64 if fold_id in (2, 3) else "b" * 64
                said |= {"provenance": PROVENANCE.model_copy(update={"environment": digest})}
            event = run_event(kind, fold_id).model_copy(update=said)
            log.append(encode(event, catalogue=catalogue, context=CONTEXT)).result(30)
        options = ["--dir", str(tmp_path), "--kafka", kafka, "--topic-prefix", topic_prefix]
        options += ["--gateway", gateway.url, "--user", USER[0], "--password-file", str(password)]
        made = Site(gateway, log, catalogue, tuple(options), dataset)
        made.project()
        yield made
    log.close()


def test_the_results_of_a_runner_are_asked_for_again_once(site: Site) -> None:
    """A plan asks for nothing; executed, each of the runner's folds has one new attempt, also when it is said twice."""
    assert "3 folds to ask for again" in site.recall("--runner", "bad-*")
    assert site.again() == set()
    assert "3 asked for, 0 refused" in site.recall("--runner", BAD, "--execute")
    assert site.again() == {3, 4, 5}
    before = {event.fold_id: event for event in site.requests() if event.attempt == 1}
    for event in site.requests():
        first = before[event.fold_id]
        assert (event.train_is, event.files, event.requested_by) == (first.train_is, first.files, first.requested_by)
    said = site.recall("--runner", BAD, "--execute")
    assert "0 folds to ask for again" in said
    assert "3  left alone: a newer attempt is asked for" in said
    assert len(site.requests()) == 9


def test_an_environment_and_a_dataset_are_told_apart(site: Site) -> None:
    """All that is said must hold: an environment's folds, those before a time, those of another dataset: none."""
    assert "2 folds to ask for again" in site.recall("--environment", "aaaa")
    assert "1 folds to ask for again" in site.recall("--environment", "aaaa", "--runner", GOOD)
    assert "5 folds to ask for again" in site.recall("--dataset", str(site.dataset))
    assert "0 folds to ask for again" in site.recall("--dataset", str(site.dataset), "--before", "1h")
    assert "0 folds to ask for again" in site.recall("--dataset", "77", "--execute")
    assert site.recall("--execute", code=1).startswith("Say --runner, --environment or --dataset")
    assert site.again() == set()


def test_a_recall_that_the_log_does_not_show_yet_is_not_doubled(site: Site) -> None:
    """Asking again for the same doubted attempt has the first answer; a refused fold is named and the others go on."""
    client = Client(site.gateway.url, *USER)
    fold = Recalled(fold_id=3, attempt=1, runner_id=BAD, tested=True)
    client.ask(fold)
    client.ask(fold)
    assert [event.attempt for event in site.requests() if event.fold_id == 3] == [1, 2]
    with pytest.raises(GatewayRefused):
        client.ask(replace(fold, fold_id=6))
    with pytest.raises(GatewayUnavailable):
        replace(client, url="http://127.0.0.1:1").ask(fold)


def test_what_was_replaced_is_left_alone(site: Site) -> None:
    """A new version of the submission has folds of its own."""
    body = fold_body(20, 9, site.dataset, force="submission, submission_fold")
    assert site.gateway.post("submissionfold/", body).status_code == 201
    said = site.recall("--runner", BAD, "--execute")
    assert "0 folds to ask for again" in said
    assert "3  left alone: a newer version" in said
