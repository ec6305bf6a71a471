"""`datarun as-of` on a real log: what the read model said at a moment, told again after everything has changed."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from typer.testing import CliRunner

from datarun.cli import app as command
from datarun.events import DataUploaded, FoldStarted, FoldTested
from datarun.log.admin import create_topics
from datarun.log.kafka import KafkaLog
from datarun.topics import Catalogue
from tests.gateways import query
from tests.histories import dataset, requested, run_event, story
from tests.projecting import Installation


@pytest.fixture
def installation(kafka: str, postgres_url: str, topic_prefix: str, tmp_path: Path) -> Installation:
    """Make the topics of a fresh installation."""
    create_topics(kafka, prefix=topic_prefix)
    return Installation(kafka, postgres_url, Catalogue(topic_prefix), tmp_path)


def _ask(installation: Installation, *arguments: str) -> Result:
    servers = ["--kafka", installation.kafka, "--postgres", installation.postgres_url]
    options = [*servers, "--topic-prefix", installation.catalogue.prefix, "--dir", str(installation.folder)]
    return CliRunner().invoke(command, ["as-of", *arguments, *options])


def _lines(installation: Installation, *arguments: str) -> list[dict[str, Any]]:
    answer = _ask(installation, *arguments, "--json")
    assert answer.exit_code == 0, answer.output
    return [json.loads(line) for line in answer.stdout.splitlines()]


def _moment() -> str:
    """Return a moment that what is appended before and after it is apart from."""
    time.sleep(0.02)
    named = datetime.now(UTC).isoformat()
    time.sleep(0.02)
    return named


def test_it_tells_what_was_then_and_leaves_nothing(installation: Installation) -> None:
    """States, attempts and datasets are those of the moment; the live read model is neither asked nor touched."""
    log = KafkaLog(installation.kafka)
    uploaded = {"name": "iris", "target_column": "y", "workflow_elements": "classifier", "uploaded_by": "ada"}
    before = _moment()
    installation.append(log, [DataUploaded(raw_data_id=1, files=dataset().files, **uploaded)])
    installation.append(log, [requested(1), requested(2), run_event(FoldStarted, 1)])
    then = _moment()
    installation.append(log, [run_event(FoldTested, 1), requested(2, attempt=2), requested(3)])
    installation.append(log, [event for number in range(10, 30) for event in story(number)])
    log.close()
    query(installation.postgres_url, 'create schema "rm_at_1_left_by_a_killed_one"')

    assert _lines(installation, before) == []
    known, *folds = _lines(installation, then)
    assert (known["kind"], known["name"], known["state"]) == ("dataset", "iris", "uploaded")
    assert [(fold["fold_id"], fold["attempt"], fold["state"]) for fold in folds] == [(1, 1, "STARTED"), (2, 1, "TODO")]
    now = {fold["fold_id"]: fold for fold in _lines(installation, "0s") if fold["kind"] == "fold"}
    assert (now[1]["state"], now[2]["attempt"], len(now)) == ("TESTED", 2, 23)
    assert [fold["fold_id"] for fold in _lines(installation, "0s", "--fold", "2") if fold["kind"] == "fold"] == [2]
    assert "20 more folds" in _ask(installation, "0s", "--limit", "3").output
    schemas = query(installation.postgres_url, "select nspname from pg_namespace where nspname like 'rm%%'")
    assert schemas == [("rm",)]
    assert query(installation.postgres_url, "select count(*) from rm.fold") == [(0,)]


@pytest.mark.parametrize("text", ["yesterday", "99999999999d", "2026-13-01", ""])
def test_what_is_no_moment_is_refused(installation: Installation, text: str) -> None:
    """With an example of what is."""
    refused = _ask(installation, text)
    assert refused.exit_code == 2
    assert "90m" in refused.output
