"""`datarun replay` of a real log into a file, topics, tables and the standard output, also after a kill -9."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from datarun.cli import app
from datarun.db import connect
from datarun.envelope import decode, encode
from datarun.errors import DatarunError, Retryable
from datarun.events import DataUploaded, FoldTested
from datarun.log import REQUEUED, Record, StoredRecord, parquet
from datarun.log.admin import create_topics
from datarun.log.archive import read_lines
from datarun.log.copies import REPLAYED
from datarun.log.kafka import KafkaLog
from datarun.log.lines import from_line
from datarun.projection.apply import apply
from datarun.readmodel.schema import create_read_model
from datarun.topics import DATA_EVENTS, FOLD_EVENTS, PROJECTED, TOPICS, Catalogue
from tests.histories import CONTEXT, story
from tests.readmodel_dump import dump

FOLDS = range(1, 25)
_SMALL_PIECES = """
import datarun.log.kafka as kafka
import datarun.log.parquet as parquet
import datarun.replay.tables as tables
kafka.READ_BATCH = tables.RECORDS_A_BATCH = 25
parquet.WORTH_A_GROUP = 20
from datarun.cli import main
main()
"""


@dataclass
class Installation:
    """An installation whose log tells of some folds, and the command that replays it."""

    log: KafkaLog
    kafka: str
    catalogue: Catalogue
    postgres_url: str
    folder: Path

    def run(self, *arguments: str, code: int = 0, crash_at: str = "") -> tuple[bytes, str]:
        """Replay and return what was printed and what was said; with a crash, in a process of its own."""
        options = ["--dir", str(self.folder), "--kafka", self.kafka, "--topic-prefix", self.catalogue.prefix]
        command = ["replay", *arguments, *options, "--postgres", self.postgres_url]
        if crash_at:
            command = [sys.executable, "-c", _SMALL_PIECES, *command]
            environment = os.environ | {"DATARUN_CRASH_AT": crash_at}
            assert subprocess.run(command, env=environment, timeout=60, check=False).returncode == -signal.SIGKILL
            return b"", ""
        done = CliRunner().invoke(app, command)
        error = done.exception if isinstance(done.exception, DatarunError) else ""
        found = 3 if isinstance(error, Retryable) else done.exit_code
        assert found == code, f"{done.output}{error}"
        return done.stdout_bytes, f"{done.stderr}{error}"

    def stored(self, catalogue: Catalogue | None = None) -> list[StoredRecord]:
        """Return every record of an installation, each partition's in order."""
        ends = self.log.end_offsets([(catalogue or self.catalogue).full_name(topic) for topic in TOPICS])
        records = [one for batch in self.log.read(dict.fromkeys(ends, 0), until_end=True) for one in batch]
        return sorted(records, key=lambda one: one.position)

    def projected(self, records: list[StoredRecord], schema: str) -> dict[str, dict[object, object]]:
        """Return the tables that come of records, whose offsets have no gaps."""
        connection = connect(self.postgres_url)
        with closing(connection):
            with connection:
                create_read_model(connection, schema=schema)
            known = {self.catalogue.full_name(topic) for topic in PROJECTED}
            apply([one for one in records if one.topic in known], connection, catalogue=self.catalogue, schema=schema)
            return dump(connection, schema=schema)

    def dumped(self, schema: str) -> dict[str, dict[object, object]]:
        """Return the tables of a schema."""
        with closing(connect(self.postgres_url)) as connection:
            return dump(connection, schema=schema)


@pytest.fixture(scope="module")
def installation(
    kafka: str, module_postgres_url: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Installation]:
    """A log of some folds, of a dataset, and of one record that nobody can read."""
    folder = tmp_path_factory.mktemp("replay")
    catalogue = Catalogue(f"t{folder.stat().st_ino:x}r.")
    create_topics(kafka, prefix=catalogue.prefix)
    log = KafkaLog(kafka)
    events = [
        DataUploaded(raw_data_id=1, name="d", target_column="y", workflow_elements="c", files=(), uploaded_by="u")
    ]
    events += [event for fold_id in FOLDS for event in story(fold_id)]
    for future in [log.append(encode(event, catalogue=catalogue, context=CONTEXT)) for event in events]:
        future.result(30)
    log.append(Record(catalogue.full_name(DATA_EVENTS), b"1", b"\x00\xff", (("ce_type", b"x"),))).result(30)
    yield Installation(log, kafka, catalogue, module_postgres_url, folder)
    log.close()


def plain(records: list[StoredRecord], prefix: str) -> list[tuple[object, ...]]:
    """Return what a copy keeps: topic, key, bytes and headers but the copy's own, a partition's in order."""
    return [
        (
            one.topic.removeprefix(prefix),
            one.partition,
            one.key,
            one.value,
            tuple(header for header in one.headers if header[0] not in (REPLAYED, REQUEUED)),
        )
        for one in sorted(records, key=lambda one: one.position)
    ]


def test_a_plan_counts_and_writes_nothing(installation: Installation, tmp_path: Path) -> None:
    """Without --execute there is a table of what is meant, and no file."""
    printed, said = installation.run("--to-file", str(tmp_path / "x"), "--type", "FoldTested", "--dataset", "1")
    tested = [event for fold_id in FOLDS for event in story(fold_id) if isinstance(event, FoldTested)]
    assert f"{len(tested):>12,}  {installation.catalogue.prefix}fold-events  FoldTested.v1\n" in said
    assert (printed, list(tmp_path.iterdir())) == (b"", [])


def test_a_file_holds_every_byte_though_the_replay_was_killed(installation: Installation, tmp_path: Path) -> None:
    """Killed with some pieces written and none remembered, the same command leaves each record once."""
    file = tmp_path / "log.jsonl.zst"
    arguments = ("--to-file", str(file), "--rate", "400", "--execute")
    installation.run(*arguments, crash_at="replay.after_piece:2")
    assert file.stat().st_size > 0
    _, said = installation.run("--to-file", str(file), "--rate", "300", "--type", "FoldLost", "--execute", code=1)
    assert "other options" in said
    installation.run(*arguments)
    found = [from_line(line, catalogue=installation.catalogue) for line in read_lines(file)]
    assert sorted(found, key=lambda one: one.position) == [
        one._replace(headers=list(one.headers)) for one in installation.stored()
    ]
    assert [path.name for path in tmp_path.iterdir()] == [file.name]
    _, said = installation.run(*arguments, code=1)
    assert "--fresh" in said


@pytest.mark.parametrize(
    ("seam", "is_resumed"),
    [
        ("replay.after_piece:1", False),
        ("table.before_group:1", False),
        ("table.before_group:3", True),
        ("replay.before_save:1", False),
        ("replay.before_save:2", True),
        ("table.before_name", True),
        ("table.after_name", True),
    ],
)
def test_a_table_holds_every_byte_though_the_replay_was_killed(
    installation: Installation, tmp_path: Path, seam: str, *, is_resumed: bool
) -> None:
    """Killed at any seam, the same command goes on from its last row group; until it is whole it has no name."""
    file = tmp_path / "log.parquet"
    arguments = ("--to-file", str(file), "--execute")
    installation.run(*arguments, crash_at=seam)
    assert file.exists() == (seam == "table.after_name")
    _, said = installation.run(*arguments, "--type", "FoldLost", code=1)
    assert "other options" in said
    _, said = installation.run(*arguments)
    stored = installation.stored()
    assert (int(said.partition(" events")[0]) < len(stored)) == is_resumed, said
    found = sorted(parquet.read(file, catalogue=installation.catalogue), key=lambda one: one.position)
    assert found == [one._replace(headers=list(one.headers)) for one in stored]
    assert [path.name for path in tmp_path.iterdir()] == [file.name]
    _, said = installation.run(*arguments, code=1)
    assert "--fresh" in said


def test_a_table_that_somebody_spoiled_is_not_gone_on_with(installation: Installation, tmp_path: Path) -> None:
    """What was written to it is looked for, and --fresh begins again."""
    file = tmp_path / "log.parquet"
    arguments = ("--to-file", str(file), "--execute")
    for part in ("part", "groups"):
        installation.run(*arguments, "--fresh", crash_at="table.before_group:3")
        (tmp_path / f"log.parquet.{part}").write_bytes(b"PAR1")
        _, said = installation.run(*arguments, code=1)
        assert "--fresh" in said
    installation.run(*arguments, "--fresh")
    assert len(list(parquet.read(file, catalogue=installation.catalogue))) == len(installation.stored())
    assert [path.name for path in tmp_path.iterdir()] == [file.name]


def test_topics_hold_each_record_once_though_the_replay_was_killed(installation: Installation) -> None:
    """Copies are found again by where they came from, so what was appended and not remembered is not doubled."""
    there = Catalogue(f"{installation.catalogue.prefix}copy.")
    arguments = ("--to-prefix", there.prefix, "--rate", "400", "--execute")
    installation.run(*arguments, crash_at="replay.after_piece:2")
    assert installation.stored(there)
    installation.run(*arguments)
    copies = installation.stored(there)
    assert plain(copies, there.prefix) == plain(installation.stored(), installation.catalogue.prefix)
    assert all(any(name == REPLAYED for name, _ in one.headers) for one in copies)


def test_a_copy_does_not_go_back_to_where_it_came_from(installation: Installation) -> None:
    """Replaying the copies into the original's topics appends none of them, and not a request either."""
    there = Catalogue(f"{installation.catalogue.prefix}back.")
    installation.run("--to-prefix", there.prefix, "--topic", "fold-events", "--key", "5", "--execute")
    before = installation.stored()
    back = replace(installation, catalogue=there, folder=installation.folder / "back")
    _, said = back.run("--to-prefix", installation.catalogue.prefix, "--execute")
    assert said.startswith("0 events")
    assert installation.stored() == before
    _, said = installation.run("--to-prefix", installation.catalogue.prefix, "--execute", code=1)
    assert "datarun recall" in said
    assert installation.stored() == before


def test_a_schema_is_as_projected_though_the_replay_was_killed(installation: Installation) -> None:
    """Tables have the offsets of what they hold: the whole log, with a kill in between, gives the usual tables."""
    arguments = ("--to-schema", "played", "--execute")
    installation.run(*arguments, crash_at="projector.before_commit:2")
    installation.run(*arguments, "--rate", "400", crash_at="projector.after_commit:2")
    before = installation.dumped("played")
    assert 0 < len(before["fold"]) < len(FOLDS)
    installation.run(*arguments)
    assert installation.dumped("played") == installation.projected(installation.stored(), "expected")
    _, said = installation.run(*arguments)
    assert said.startswith("0 events")


def test_a_schema_of_some_folds_has_these_alone(installation: Installation) -> None:
    """What is not meant is passed over, also behind the last that is."""
    installation.run("--to-schema", "some", "--where", "fold_id in [3, 4] and attempt == 1", "--execute")
    whole, some = installation.projected(installation.stored(), "all_of_it"), installation.dumped("some")
    assert some["fold"] == {fold_id: whole["fold"][fold_id] for fold_id in (3, 4)}
    assert some["dataset"] == {}


def test_a_schema_loses_what_its_database_refuses_alone(installation: Installation) -> None:
    """The rest of what is meant is there, and nothing that is not."""
    with closing(connect(installation.postgres_url)) as connection, connection, connection.cursor() as cursor:
        create_read_model(connection, schema="narrow")
        cursor.execute("alter table narrow.fold alter column runner_id type varchar(8)")
    installation.run("--to-schema", "narrow", "--where", "fold_id in [3, 12]", "--execute")
    found = installation.dumped("narrow")
    assert sorted((number, row["run_rank"]) for number, row in found["fold"].items()) == [(3, 9), (12, 0)]
    assert {row["reason"] for row in found["dead_letter"].values()} == {"unstorable"}
    _, said = installation.run("--to-schema", "narrow", "--where", "fold_id in [3, 12]", "--execute")
    assert said.startswith("0 events")


def test_the_live_tables_and_two_places_at_once_are_refused(installation: Installation, tmp_path: Path) -> None:
    """A replay never writes into a read model that somebody uses."""
    for arguments in (["--to-schema", "rm"], ["--to-schema", "rm_next"], ["--to-schema", 'x"y'], []):
        installation.run(*arguments, "--execute", code=2)
    installation.run("--to-stdout", "--to-file", str(tmp_path / "x"), code=2)
    _, said = installation.run("--to-stdout", "--type", "FoldTestd", code=1)
    assert "FoldTested" in said


def test_lines_of_a_span_go_to_another_program(installation: Installation) -> None:
    """Offsets and times bound what is read; another topic, or another time, has nothing."""
    offsets = ("--topic", "fold-events", "--from-offset", "1", "--to-offset", "3", "--last", "1h")
    printed, _ = installation.run("--to-stdout", *offsets, "--execute")
    found = [from_line(line, catalogue=installation.catalogue) for line in printed.splitlines()]
    name = installation.catalogue.full_name(FOLD_EVENTS)
    expected = [one for one in installation.stored() if one.topic == name and one.offset in (1, 2)]
    assert sorted(one.position for one in found) == [one.position for one in expected]
    assert all(decode(one.value, one.headers) for one in found)
    assert installation.run("--to-stdout", "--to", "1h", "--execute")[0] == b""


def test_a_submission_is_meant_with_its_fetches(installation: Installation) -> None:
    """A fetch does not name its submission; its fold's request does."""
    printed, _ = installation.run("--to-stdout", "--submission", "1", "--topic", "fold-events", "--execute")
    keys = {from_line(line, catalogue=installation.catalogue).key for line in printed.splitlines()}
    assert keys == {str(fold_id).encode() for fold_id in FOLDS if fold_id % 3 + 1 == 1}
    assert printed.count(b"PredictionsFetched") > 0


def test_no_group_is_joined(installation: Installation) -> None:
    """A replay leaves no consumer group behind and moves none."""
    from confluent_kafka.admin import AdminClient

    client = AdminClient({"bootstrap.servers": installation.kafka})
    before = {group.group_id for group in client.list_consumer_groups().result().valid}
    installation.run("--to-stdout", "--execute")
    after = {group.group_id for group in client.list_consumer_groups().result().valid}
    assert not {name for name in after - before if installation.catalogue.prefix in name or "reader" in name}


def test_a_database_that_is_away_is_told(installation: Installation) -> None:
    """It is an error message with an exit code of its own, not a trace."""
    away = Installation(
        installation.log,
        installation.kafka,
        installation.catalogue,
        "postgresql://127.0.0.1:1/none",
        installation.folder,
    )
    _, said = away.run("--to-schema", "x", "--execute", code=3)
    assert said.startswith("the database did not answer")
