"""`datarun events` on a real Kafka: what is in the log is found, told, taken along and brought back byte for byte."""

from __future__ import annotations

import json
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from datarun.cli import app as command_line
from datarun.envelope import encode
from datarun.events import FoldStarted, FoldTested
from datarun.log import Record, StoredRecord
from datarun.log.admin import create_topics
from datarun.log.kafka import KafkaLog
from datarun.projection.batch import fold
from datarun.topics import PROJECTED, Catalogue
from tests.gateways import ROOT
from tests.histories import requested, run_event, story, tables
from tests.projecting import CONTEXT, Installation

COMMAND = [sys.executable, "-m", "datarun.cli", "events"]


@pytest.fixture(scope="module")
def log(kafka: str) -> Iterator[KafkaLog]:
    """Open the session's log."""
    opened = KafkaLog(kafka)
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def installation(kafka: str, log: KafkaLog, tmp_path_factory: pytest.TempPathFactory) -> Installation:
    """Make an installation with the stories of three folds, and two records that are no events."""
    prefix = f"t{uuid.uuid4().hex[:8]}."
    create_topics(kafka, prefix=prefix)
    made = Installation(kafka, "", Catalogue(prefix), tmp_path_factory.mktemp("installation"))
    made.append(log, [event for number in (1, 2, 3) for event in story(number)])
    good = encode(run_event(FoldTested, 1), catalogue=made.catalogue, context=CONTEXT)
    for value in (b"\xff\x00\x1b[31m no json", b"{}"):
        log.append(Record(good.topic, good.key, value, good.headers)).result(20)
    return made


def events(installation: Installation, *arguments: str, prefix: str | None = None) -> Result:
    """Run the command."""
    servers = ["--kafka", installation.kafka, "--topic-prefix", prefix or installation.catalogue.prefix]
    return CliRunner().invoke(command_line, ["events", *arguments, *servers])


def listed(installation: Installation, *arguments: str) -> list[dict[str, object]]:
    """Return what `ls --json` lists."""
    told = events(installation, "ls", "--json", *arguments)
    assert told.exit_code == 0, told.stderr
    return [json.loads(line) for line in told.stdout.splitlines()]


def stored(log: KafkaLog, prefix: str) -> list[StoredRecord]:
    """Return every record below a prefix."""
    ends = log.end_offsets([Catalogue(prefix).full_name(topic) for topic in PROJECTED])
    return [record for batch in log.read(dict.fromkeys(ends, 0), until_end=True) for record in batch]


def test_events_are_found_by_what_they_are_and_say(installation: Installation, log: KafkaLog) -> None:
    """By type, key, submission, dataset, topic, offset and time; the newest last; what is no event with its reason."""
    everything = listed(installation)
    assert len(everything) == len(stored(log, installation.catalogue.prefix))
    times = [one["timestamp_ms"] for one in everything]
    assert times == sorted(times)  # type: ignore[type-var]
    assert {one["key"] for one in listed(installation, "--type", "FoldStarted", "--key", "2")} == {"2"}
    of_submission = listed(installation, "--type", "FoldTested", "--submission", "3")
    assert {one["key"] for one in of_submission} == {"2"}
    assert listed(installation, "--dataset", "99") == []
    assert [one["offset"] for one in listed(installation, "--topic", "fold-requests.high", "--offsets", "1:2")] == [1]
    assert listed(installation, "--since", "2020-01-01", "--until", "2020-01-02") == []
    assert len(listed(installation, "--since", "1h", "--limit", "2")) == 2
    refused = [one["refused"] for one in everything if "refused" in one]
    assert sorted(refused) == ["schema", "undecodable"]  # type: ignore[type-var]
    table = events(installation, "ls").stdout
    assert "DEAD LETTER undecodable" in table
    assert "\x1b" not in table


def test_one_event_is_shown_by_its_place_and_by_its_id(installation: Installation) -> None:
    """With every header and field; what is not there is said so."""
    one = listed(installation, "--type", "FoldStarted", "--key", "3")[0]
    place = f"{one['topic']}:{one['partition']}:{one['offset']}"
    by_place = json.loads(events(installation, "show", place).stdout)
    assert by_place == one
    by_id = events(installation, "show", dict(by_place["headers"])["ce_id"]).stdout
    assert json.loads(by_id) == one
    assert events(installation, "show", "fold-events:0:999999").exit_code != 0


def test_validate_says_what_would_be_a_dead_letter(installation: Installation) -> None:
    """Everything is decoded; the exit code says whether something is wrong."""
    told = events(installation, "validate")
    assert told.exit_code == 1
    assert "2 records would be dead letters" in told.stdout
    sound = events(installation, "validate", "--topic", "fold-requests.high")
    assert sound.exit_code == 0, sound.stdout
    assert "0 records would be dead letters" in sound.stdout


@pytest.mark.parametrize("name", ["log.jsonl.zst", "log.parquet"])
def test_an_export_is_imported_into_another_installation(
    installation: Installation, log: KafkaLog, tmp_path: Path, name: str
) -> None:
    """Dry by default; then the same events with the same ids, giving the same rows, and requests that are doubted."""
    file, prefix = tmp_path / name, f"{installation.catalogue.prefix}{name}."
    create_topics(installation.kafka, prefix=prefix)
    exported = events(installation, "export", str(file))
    assert exported.exit_code == 0, exported.stderr
    assert events(installation, "export", str(file)).exit_code == 1
    dry = events(installation, "import", str(file), prefix=prefix)
    assert dry.exit_code == 1
    assert "nothing was appended" in dry.stdout
    assert dry.stdout.count("refused: ") == 2
    assert stored(log, prefix) == []
    assert events(installation, "import", str(file), "--execute", prefix=prefix).exit_code == 1
    before, after = stored(log, installation.catalogue.prefix), stored(log, prefix)
    batch, copied = fold(before, catalogue=installation.catalogue), fold(after, catalogue=Catalogue(prefix))
    assert copied.dead == []
    assert tables(copied)["fold"].keys() == tables(batch)["fold"].keys()
    ids = {(dict(record.headers)["ce_id"], record.key) for record in before if len(record.value or b"") > 20}
    assert {(dict(record.headers)["ce_id"], record.key) for record in after} == ids
    queued = [record for record in after if "fold-requests" in record.topic]
    assert queued
    assert all("datarun-requeued" in dict(record.headers) for record in queued)


def test_what_is_no_export_is_refused(installation: Installation, tmp_path: Path) -> None:
    """Another file, or one cut off, is named with what is wrong; nothing else is said to be there."""
    file = tmp_path / "other"
    file.write_text("hello")
    told = events(installation, "import", str(file))
    assert told.exit_code == 1
    assert "cannot be read" in str(told.exception)


def test_tail_prints_what_comes(installation: Installation, log: KafkaLog) -> None:
    """Only what is appended after it began, of what was asked for."""
    servers = ["--kafka", installation.kafka, "--topic-prefix", installation.catalogue.prefix]
    command = [*COMMAND, "tail", "--type", "FoldStarted", "--json", *servers]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        assert process.stdout is not None
        time.sleep(3)
        for attempt in range(2, 40):
            # Whether it listens already nobody says; one of these is heard.
            installation.append(log, [run_event(FoldStarted, 3, attempt=attempt), requested(3, attempt=attempt)])
            time.sleep(0.1)
        line = json.loads(process.stdout.readline())
        process.terminate()
    assert line["value"]["fold_id"] == 3
    assert line["value"]["attempt"] >= 2
    assert dict(line["headers"])["ce_type"] == "datarun.FoldStarted.v1"
