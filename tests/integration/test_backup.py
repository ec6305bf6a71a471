"""`datarun backup`, `restore` and `blobs gc` with a real log: what comes back is what was there, also after kills."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from datarun.backup import MANIFEST, Manifest
from datarun.blob_collection import collect, unnamed
from datarun.blobs import LocalBlobs
from datarun.cli import app
from datarun.db import connect
from datarun.envelope import encode
from datarun.errors import DatarunError
from datarun.events import DataUploaded, Event, FoldTested, NamedBlob
from datarun.log import REQUEUED, Record, StoredRecord
from datarun.log.admin import create_topics, topic_differences
from datarun.log.kafka import KafkaLog
from datarun.object_blobs import ObjectBlobs
from datarun.projection.apply import apply
from datarun.topics import DATA_EVENTS, PROJECTED, RUNNER_STATUS, TOPICS, Catalogue, Kind
from tests.gateways import query, running_gateway
from tests.histories import CONTEXT, blob, dataset, heartbeat, requested, run_event, story
from tests.readmodel_dump import dump

DAY = 24 * 3600
FOLDS = range(1, 20)


@dataclass
class Site:
    """An installation: its topics, blobs and database."""

    kafka: str
    log: KafkaLog
    catalogue: Catalogue
    blobs: LocalBlobs
    blobs_url: str
    postgres_url: str
    folder: Path

    def append(self, *events: Event) -> None:
        """Append events."""
        for event in events:
            self.log.append(encode(event, catalogue=self.catalogue, context=CONTEXT)).result(30)

    def stored(self) -> list[StoredRecord]:
        """Return every record that a backup keeps, with nothing of its prefix, but for the mark of a request."""
        names = [self.catalogue.full_name(topic) for topic in TOPICS if topic is not RUNNER_STATUS]
        ends = self.log.end_offsets(names)
        records = [one for batch in self.log.read(dict.fromkeys(ends, 0), until_end=True) for one in batch]
        kept = [
            one._replace(
                topic=one.topic.removeprefix(self.catalogue.prefix),
                headers=[header for header in one.headers if header[0] != REQUEUED],
            )
            for one in records
        ]
        return sorted(kept, key=lambda one: one.position)

    def command(self, *arguments: str, code: int = 0, crash_at: str = "") -> str:
        """Run a command on this installation; with a crash, in a process of its own."""
        options = ["--dir", str(self.folder), "--kafka", self.kafka, "--topic-prefix", self.catalogue.prefix]
        options += ["--blobs", self.blobs_url]
        if arguments[0] == "blobs":
            options += ["--postgres", self.postgres_url]
        if crash_at:
            command = [sys.executable, "-m", "datarun.cli", *arguments, *options]
            environment = os.environ | {"DATARUN_CRASH_AT": crash_at}
            assert subprocess.run(command, env=environment, timeout=60, check=False).returncode == -signal.SIGKILL
            return ""
        done = CliRunner().invoke(app, [*arguments, *options])
        error = done.exception if isinstance(done.exception, DatarunError) else ""
        assert done.exit_code == code, f"{done.output}{done.exception!r}"
        return f"{done.output}{error}"

    def projected(self) -> dict[str, dict[object, object]]:
        """Bring the log into the read model and return it, with nothing of its prefix."""
        ends = self.log.end_offsets([self.catalogue.full_name(topic) for topic in PROJECTED])
        with closing(connect(self.postgres_url)) as connection:
            for batch in self.log.read(dict.fromkeys(ends, 0), until_end=True):
                apply(batch, connection, catalogue=self.catalogue)
            found = dump(connection)
        for row in found["fold"].values():
            row["request_topic"] = (row["request_topic"] or "").removeprefix(self.catalogue.prefix)
        return {table: found[table] for table in ("fold", "dataset", "submission")}

    def answers(self, folder: Path) -> list[str]:
        """Return what a gateway answers about all there is."""
        gateway = {"kafka": self.kafka, "postgres_url": self.postgres_url, "blobs_url": self.blobs_url}
        with running_gateway(folder, **gateway, prefix=self.catalogue.prefix) as running:
            paths = ("rawdata/", "submissionfold/", "submissionfold-light/", "submissionfold/4/")
            return [running.get(path).text for path in paths]


@pytest.fixture
def log(kafka: str) -> Iterator[KafkaLog]:
    """Open the session's log."""
    opened = KafkaLog(kafka)
    yield opened
    opened.close()


Make = Callable[[str], Site]


@pytest.fixture
def make(
    kafka: str, log: KafkaLog, topic_prefix: str, tmp_path: Path,
    fresh_database: Callable[[], AbstractContextManager[str]],
) -> Iterator[Make]:  # fmt: skip
    """Make installations without anything, not even topics."""
    databases = []

    def made(name: str) -> Site:
        folder = tmp_path / name
        (folder / "blobs").mkdir(parents=True)
        database = fresh_database()
        databases.append(database)
        url = (folder / "blobs").as_uri()
        catalogue = Catalogue(f"{topic_prefix}{name}.")
        return Site(kafka, log, catalogue, LocalBlobs(folder / "blobs"), url, database.__enter__(), folder)

    yield made
    for database in databases:
        database.__exit__(None, None, None)


@pytest.fixture
def site(make: Make) -> Site:
    """An installation with some folds, one of them with all its bytes, and a record nobody can read."""
    site = make("here")
    create_topics(site.kafka, prefix=site.catalogue.prefix)
    rows = site.blobs.put(b"a,b\n1,2\n")
    data = dataset().model_copy(update={"files": (NamedBlob(name="data.csv", blob=rows),)})
    index, code = site.blobs.put(bytes(8)), site.blobs.put(b"code")
    files = (NamedBlob(name="c.py", blob=code),)
    upload = {"name": "d", "target_column": "y", "workflow_elements": "c", "files": data.files, "uploaded_by": "u"}
    tested = run_event(FoldTested, 4).model_copy(
        update={"full_train_predictions": site.blobs.put(bytes(16)), "test_predictions": site.blobs.put(bytes(24))}
    )
    site.append(DataUploaded(raw_data_id=1, **upload))
    site.append(requested(4, dataset=data, files=files, train_is=index, test_is=index), tested, heartbeat("r", 1))
    site.append(*(event for fold_id in FOLDS if fold_id != 4 for event in story(fold_id)))
    name = site.catalogue.full_name(DATA_EVENTS)
    site.log.append(Record(name, b"1", b"\x00\xff", (("ce_type", b"x"),))).result(30)
    return site


def test_what_comes_back_gives_equal_tables_and_equal_answers(site: Site, make: Make, tmp_path: Path) -> None:
    """Records with their offsets and times, blobs, tables and answers are those of the installation that was lost."""
    backup = tmp_path / "backup"
    said = site.command("backup", str(backup), code=1)
    assert f"{len(site.stored()):,} records and 5 blobs, verified" in said
    assert f"{blob(7).sha256}\n" in said
    there = make("there")
    assert "would go back" in there.command("restore", str(backup))
    said = there.command("restore", str(backup), "--execute")
    assert f"{len(site.stored()):,} records and 5 blobs are back" in said
    assert "offset" not in said
    assert there.stored() == site.stored()
    assert topic_differences(there.kafka, prefix=there.catalogue.prefix) == []
    assert there.projected() == site.projected()
    assert there.answers(tmp_path / "g2") == site.answers(tmp_path / "g1")
    for record in there.log.read(dict.fromkeys(there.log.end_offsets(_queues(there)), 0), until_end=True):
        assert all(any(name == REQUEUED for name, _ in one.headers) for one in record)


def _queues(site: Site) -> list[str]:
    return [site.catalogue.full_name(topic) for topic in TOPICS if topic.kind is Kind.QUEUE]


def test_a_backup_goes_on_after_a_kill_and_adds_what_is_new(site: Site, tmp_path: Path) -> None:
    """Killed before anything is remembered, it begins again; given again, it appends what came since and no more."""
    backup = tmp_path / "backup"
    site.command("backup", str(backup), crash_at="backup.before_save")
    assert list((backup / "topics").rglob("*.zst"))
    site.command("backup", str(backup), code=1)
    first = Manifest.load(backup)
    assert first is not None
    assert sum(part.records for part in first.parts) == len(site.stored())
    lengths = {part.file: part.length for part in first.parts}
    site.append(*story(50))
    site.command("backup", str(backup), code=1)
    second = Manifest.load(backup)
    assert second is not None
    assert sum(part.records for part in second.parts) == len(site.stored())
    grown = [part for part in second.parts if part.length != lengths[part.file]]
    assert 0 < len(grown) < 5
    assert "is a backup of" in replace(site, catalogue=Catalogue("other.")).command("backup", str(backup), code=1)


def test_a_restore_goes_on_after_a_kill(site: Site, make: Make, tmp_path: Path) -> None:
    """Killed with some partitions written, the same command writes the others, and no record twice."""
    backup, there = tmp_path / "backup", make("there")
    site.command("backup", str(backup), code=1)
    there.command("restore", str(backup), "--execute", crash_at="restore.after_part:9")
    there.command("restore", str(backup), "--execute")
    assert there.stored() == site.stored()
    assert there.command("restore", str(backup), "--execute").startswith("0 records")


def test_an_installation_with_records_is_left_alone(site: Site, make: Make, tmp_path: Path) -> None:
    """A backup never mixes with what another installation has."""
    backup, there = tmp_path / "backup", make("there")
    site.command("backup", str(backup), code=1)
    create_topics(there.kafka, prefix=there.catalogue.prefix)
    there.append(requested(99))
    before = there.stored()
    assert "records that are not the backup's" in there.command("restore", str(backup), "--execute", code=1)
    assert there.stored() == before
    assert topic_differences(there.kafka, prefix=there.catalogue.prefix) == []


@pytest.mark.parametrize("what", ["cut", "changed", "blob", "manifest", "incomplete"])
def test_a_backup_that_is_not_whole_is_refused(site: Site, make: Make, tmp_path: Path, what: str) -> None:
    """A cut or changed file, a lost blob, a foreign manifest: nothing is written."""
    backup, there = tmp_path / "backup", make("there")
    site.command("backup", str(backup), code=1)
    file = max((backup / "topics").rglob("*.zst"), key=lambda path: path.stat().st_size)
    content = file.read_bytes()
    match what:
        case "cut":
            file.write_bytes(content[:-3])
        case "changed":
            file.write_bytes(content[:40] + bytes([content[40] ^ 1]) + content[41:])
        case "blob":
            next((backup / "blobs").glob("[0-9a-f][0-9a-f]/*/*")).unlink()
        case "manifest":
            (backup / MANIFEST).write_text(
                '{"format": "datarun.backup.v1", "source": "x", "complete": true, "more": 1}'
            )
        case "incomplete":
            (backup / MANIFEST).write_text('{"source": "x", "parts": []}')
    there.command("restore", str(backup), code=1)
    there.command("restore", str(backup), "--execute", code=1)
    assert not [name for name in _names(there.kafka) if name.startswith(there.catalogue.prefix)]


def _names(kafka: str) -> list[str]:
    from confluent_kafka.admin import AdminClient

    return list(AdminClient({"bootstrap.servers": kafka}).list_topics(timeout=10).topics)


def _age(site: Site, seconds: float) -> None:
    for one in site.blobs.kept():
        path = site.folder / "blobs" / one.sha256[:2] / one.sha256[2:4] / one.sha256
        os.utime(path, (one.touched_at - seconds, one.touched_at - seconds))


def test_blobs_that_nothing_names_are_collected_when_they_are_old(site: Site) -> None:
    """Of the old ones those of the log, of the outbox and those asked for since stay; a plan deletes nothing."""
    named = {one.sha256 for one in site.blobs.kept()}
    orphan, waiting, wanted = (site.blobs.put(content) for content in (b"orphan", b"waiting", b"wanted"))
    query(
        site.postgres_url,
        "insert into intake.outbox (id, ce_id, topic, key, value, headers, owner)"
        " values (1, gen_random_uuid(), 't', 'k', %s, '[]', 1)",
        f'{{"sha256":"{waiting.sha256}"}}',
    )
    young = site.command("blobs", "gc", "--execute")
    assert young.startswith("0 blobs deleted")
    _age(site, DAY + 60)
    assert site.blobs.size(wanted.sha256) == wanted.size
    plan = site.command("blobs", "gc")
    assert orphan.sha256 in plan
    assert "1 blobs, 6 bytes" in plan
    assert site.blobs.get(orphan) == b"orphan"
    assert site.command("blobs", "gc", "--execute").startswith("1 blobs deleted, 6 bytes")
    assert {one.sha256 for one in site.blobs.kept()} == {*named, waiting.sha256, wanted.sha256}


def test_an_object_store_is_collected_too(site: Site) -> None:
    """By the same look at the log and the claims, over what the store lists."""
    store, (orphan, wanted) = (
        ObjectBlobs(site.blobs_url),
        (site.blobs.put(content) for content in (b"orphan", b"wanted")),
    )
    named = {one.sha256 for one in site.blobs.kept()} - {orphan.sha256, wanted.sha256}
    _age(site, DAY + 60)
    with closing(connect(site.postgres_url)) as connection:
        found = unnamed(
            store, site.log, connection, catalogue=site.catalogue, seconds=DAY, told=lambda _done, _of: None
        )
    assert {one.sha256 for one in found} == {orphan.sha256, wanted.sha256}
    assert store.size(wanted.sha256) == wanted.size
    assert [one.sha256 for one in collect(store, found, seconds=DAY)] == [orphan.sha256]
    assert {one.sha256 for one in store.kept()} == {*named, wanted.sha256}
    assert "can be listed" in replace(site, blobs_url="https://x.example.org/b").command("blobs", "gc", code=1)


def test_a_blob_asked_for_after_the_look_is_not_deleted(site: Site) -> None:
    """Between the plan and the deletion somebody may find that the bytes are there, and name them."""
    orphan = site.blobs.put(b"orphan")
    _age(site, DAY + 60)
    assert site.blobs.put(b"orphan") == orphan
    assert not site.blobs.forget(orphan.sha256, untouched_seconds=DAY)
    assert site.blobs.get(orphan) == b"orphan"
