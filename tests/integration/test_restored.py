"""An installation that is lost whole: what its backup brings back says the same in every table and every answer."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, closing
from functools import partial
from pathlib import Path
from typing import Any

from typer.testing import CliRunner

from datarun.blobs import open_blobs
from datarun.cli import app
from datarun.log.admin import create_topics
from datarun.log.kafka import KafkaLog
from datarun.topics import Catalogue
from tests.gateways import USER, Gateway
from tests.worlds import World, answers_of, claims_of, live, rows_of

PATHS = (
    "datasets",
    "datasets/1",
    "datasets/1/split",
    "submissions",
    "submissions/2",
    "folds",
    "folds?state=ERROR",
    "folds/13",
    *(
        f"folds/10{what}"
        for what in ("", "/history", "/predictions/test?format=json", "/predictions/full-train?format=csv")
    ),
    "folds/14/why",
    "dead-letters",
)
OF_THE_MOMENT = ("request_id",)
"""What a request is called."""


def ask(gateway: Gateway, prefix: str) -> dict[str, Any]:
    """Return the answers of both interfaces, without the names of topics."""
    found = answers_of(gateway)
    for path in PATHS:
        answer = gateway.session.get(f"{gateway.url}/v1/{path}", auth=USER, timeout=30)
        is_json = "json" in answer.headers["Content-Type"]
        found[path] = (answer.status_code, answer.json() if is_json else answer.content)
    return dict(without(found, prefix).items())


def without(value: Any, prefix: str) -> Any:
    """Return a value without the prefix of topics and what is of the moment."""
    match value:
        case str():
            return value.replace(prefix, "")
        case dict():
            return {name: without(content, prefix) for name, content in value.items() if name not in OF_THE_MOMENT}
        case list() | tuple():
            return [without(one, prefix) for one in value]
        case _:
            return value


def run(world: World, *arguments: str) -> str:
    """Run a command on an installation."""
    options = ["--kafka", world.kafka, "--topic-prefix", world.catalogue.prefix, "--dir", str(world.folder)]
    done = CliRunner().invoke(app, [*arguments, *options])
    assert done.exit_code == 0, f"{done.output}{done.exception!r}"
    return done.output


def test_a_restored_installation_says_what_the_lost_one_said(
    kafka: str, topic_prefix: str, tmp_path: Path, fresh_database: Callable[[], AbstractContextManager[str]]
) -> None:
    """Load, backup, restore into an empty stack, claims and read model made anew, the latter in two ways."""
    backup = str(tmp_path / "backup")
    with closing(KafkaLog(kafka)) as log, fresh_database() as lost, fresh_database() as empty:
        here = World(kafka, Catalogue(f"{topic_prefix}here."), tmp_path / "here", blobs(tmp_path / "here"), log)
        there = World(kafka, Catalogue(f"{topic_prefix}there."), tmp_path / "there", blobs(tmp_path / "there"), log)
        create_topics(kafka, prefix=here.catalogue.prefix)
        with here.on(lost) as (installation, gateway):
            live(gateway, partial(installation.append, log), open_blobs(here.blobs_url))
            here.settle(installation)
            # The first ones fetch what is new.
            ask(gateway, here.catalogue.prefix)
            here.settle(installation)
            answers = ask(gateway, here.catalogue.prefix)
            here.settle(installation)
        claims, rows = claims_of(lost), without(rows_of(lost), here.catalogue.prefix)

        assert "verified" in run(here, "backup", backup, "--blobs", here.blobs_url)
        assert "are back" in run(there, "restore", backup, "--execute", "--blobs", there.blobs_url)
        run(there, "intake", "rebuild", "--postgres", empty)
        assert claims_of(empty) == claims
        with there.on(empty) as (installation, gateway):
            there.settle(installation)
            assert without(rows_of(empty), there.catalogue.prefix) == rows
            assert ask(gateway, there.catalogue.prefix) == answers
            there.settle(installation)
            assert claims_of(empty) == claims
            run(there, "projection", "rebuild", "--postgres", empty)
            run(there, "projection", "swap", "--postgres", empty)
            assert without(rows_of(empty), there.catalogue.prefix) == rows
            assert ask(gateway, there.catalogue.prefix) == answers


def blobs(folder: Path) -> str:
    """Make an empty blob folder; returns its URL."""
    (folder / "blobs").mkdir(parents=True)
    return (folder / "blobs").as_uri()
