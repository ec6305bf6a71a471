"""The whole database lost and made anew from a real log: equal tables, and equal answers of a real gateway."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from datarun.blobs import open_blobs
from datarun.envelope import encode
from datarun.events import (
    DataUploaded,
)
from datarun.log.admin import create_topics
from datarun.log.kafka import KafkaLog
from datarun.topics import Catalogue
from tests.histories import dataset
from tests.projecting import CONTEXT
from tests.worlds import World, answers_of, claims_of, live, rows_of


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
            live(gateway, partial(installation.append, world.log), open_blobs(world.blobs_url))
            world.settle(installation)
            # The first ones fetch what is new.
            answers_of(gateway)
            world.settle(installation)
            answers = answers_of(gateway)
            world.settle(installation)
            assert type(world.rebuild(lost).exception).__name__ == "GatewaysRunning"
        claims, rows = claims_of(lost), rows_of(lost)
        for _ in range(2):
            assert world.rebuild(empty).exit_code == 0
            assert claims_of(empty) == claims
        with world.on(empty) as (installation, gateway):
            world.settle(installation)
            assert answers_of(gateway) == answers
            assert rows_of(empty) == rows
            assert gateway.upload("a fourth") == len(claims["dataset"]) + 1
            world.settle(installation)
        assert world.rebuild(lost).exit_code == 0
        assert [row["name"] for row in claims_of(lost)["dataset"]] == ["iris", "wine", "custom", "a fourth"]


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
    assert [(row["raw_data_id"], row["rows"]) for row in claims_of(postgres_url)["dataset"]] == [(1, 3)]


def _uploaded(raw_data_id: int) -> DataUploaded:
    told = {"name": "taken", "target_column": "y", "workflow_elements": "classifier", "uploaded_by": "somebody"}
    return DataUploaded(raw_data_id=raw_data_id, files=dataset().files, rows=3, **told)
