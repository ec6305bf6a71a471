"""`datarun dlq` on a real log and a real database: the letters of projector and runner, retried and dropped."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from typer.testing import CliRunner

from datarun.cli import app
from datarun.db import connect
from datarun.dead_letters.letters import NoPosition, position_of, text_of
from datarun.envelope import encode
from datarun.errors import Undecodable
from datarun.events import FoldTested
from datarun.log import Position, Record, StoredRecord
from datarun.log.admin import create_topics
from datarun.log.copies import REPLAYED
from datarun.log.kafka import KafkaLog
from datarun.log.reading import record_at
from datarun.projection.apply import apply
from datarun.topics import DATA_EVENTS, FOLD_EVENTS, FOLD_REQUESTS_HIGH, PROJECTED, Catalogue
from services.runner.publisher import Publisher
from tests.histories import CONTEXT, requested, run_event


@dataclass
class Office:
    """An installation with dead letters."""

    log: KafkaLog
    catalogue: Catalogue
    postgres_url: str
    options: tuple[str, ...]

    def append(self, record: Record) -> Position:
        """Append a record as a foreign producer would."""
        return self.log.append(record).result(30)

    def project(self) -> None:
        """Bring what is new into the read model, as the projector does."""
        connection = connect(self.postgres_url)
        ends = self.log.end_offsets([self.catalogue.full_name(topic) for topic in PROJECTED])
        for batch in self.log.read(dict.fromkeys(ends, 0), until_end=True):
            apply(batch, connection, catalogue=self.catalogue)
        connection.close()

    def records(self, name: str) -> list[StoredRecord]:
        """Return what a topic holds."""
        ends = self.log.end_offsets([name])
        return [record for batch in self.log.read(dict.fromkeys(ends, 0), until_end=True) for record in batch]

    def dlq(self, *arguments: str, code: int = 0) -> str:
        """Run `datarun dlq` and return what it printed."""
        result = CliRunner().invoke(app, ["dlq", *arguments, *self.options])
        assert result.exit_code == code, result.output
        return result.output

    def listed(self, *arguments: str) -> list[dict[str, str]]:
        """Return what `datarun dlq ls` lists."""
        return [json.loads(line) for line in self.dlq("ls", "--json", *arguments).splitlines()]


@pytest.fixture
def office(kafka: str, postgres_url: str, topic_prefix: str, tmp_path: Path) -> Iterator[Office]:
    """An installation with its topics, and nothing in them."""
    create_topics(kafka, prefix=topic_prefix)
    log = KafkaLog(kafka)
    options = ("--dir", str(tmp_path), "--kafka", kafka, "--postgres", postgres_url, "--topic-prefix", topic_prefix)
    yield Office(log, Catalogue(topic_prefix), postgres_url, options)
    log.close()


def _misplaced(office: Office) -> Position:
    """Append a result to the topic of the datasets, and have the projector refuse it."""
    record = encode(run_event(FoldTested, 7), catalogue=office.catalogue, context=CONTEXT)
    place = office.append(Record(office.catalogue.full_name(DATA_EVENTS), record.key, record.value, record.headers))
    office.project()
    return place


def test_a_misplaced_record_goes_where_it_belongs(office: Office) -> None:
    """A plan appends nothing; executed, the record is in its own topic, byte for byte, and the letter is dealt with."""
    place = _misplaced(office)
    (letter,) = office.listed()
    assert (letter["position"], letter["reason"], letter["found_by"]) == (text_of(place), "misrouted", "projector")
    own = office.catalogue.full_name(FOLD_EVENTS)
    assert "nothing was done" in office.dlq("retry", text_of(place))
    assert office.records(own) == []
    assert f"is at {own}:" in office.dlq("retry", text_of(place), "--execute")
    (moved,) = office.records(own)
    original = record_at(office.log, place)
    assert original is not None
    assert (moved.key, moved.value) == (original.key, original.value)
    assert moved.headers[-1][0] == REPLAYED
    assert moved.headers[-1][1].endswith(f"/{text_of(place)}".encode())
    assert office.listed() == []
    (dealt,) = office.listed("--all")
    assert dealt["dealt_with"].startswith("retried by ")
    office.project()
    assert office.listed() == []


def test_both_kinds_of_letters_are_one_list(office: Office) -> None:
    """A request that neither projector nor runner can read is one letter, which cannot be retried."""
    queue = office.catalogue.full_name(FOLD_REQUESTS_HIGH)
    good = encode(requested(3), catalogue=office.catalogue, context=CONTEXT)
    place = office.append(Record(queue, good.key, b"\x00not JSON\x1b[2J", good.headers))
    record = record_at(office.log, place)
    assert record is not None
    Publisher(office.log, catalogue=office.catalogue, source="test").dead_letter(record, Undecodable("no JSON"))
    assert [letter["found_by"] for letter in office.listed()] == ["runner"]
    office.project()
    assert [letter["found_by"] for letter in office.listed()] == ["projector, runner"]
    assert office.listed("--reason", "misrouted") == []
    assert len(office.listed("--type", "FoldRequested")) == 1
    assert "left alone: undecodable" in office.dlq("retry", text_of(place), "--execute", code=1)
    assert len(office.records(queue)) == 1
    shown = office.dlq("show", text_of(place))
    assert "retry      impossible: undecodable" in shown
    assert "\\x1b[2J" in shown


def test_what_is_dropped_stays_dropped_though_the_read_model_is_made_anew(office: Office) -> None:
    """The decision is in the log: a projection from the beginning finds the letter, which is dealt with."""
    place = _misplaced(office)
    office.dlq("drop", text_of(place), "--note", "a test of somebody")
    assert office.listed() == []
    connection = connect(office.postgres_url)
    with connection, connection.cursor() as cursor:
        cursor.execute("truncate rm.dead_letter, rm.projection_offset")
    connection.close()
    office.project()
    assert office.listed() == []
    (dealt,) = office.listed("--all")
    assert dealt["dealt_with"].endswith("a test of somebody")


def test_a_foreign_letter_about_nothing_is_no_letter(office: Office) -> None:
    """Who writes letters about positions that cannot be changes nothing for the others."""
    place = _misplaced(office)
    topic = office.catalogue.prefix + "dead-letters"
    for about in (b"", b"x", b"no-topic:0:1", f"{place.topic}:999:0".encode(), b"\xff:0:0", b"a:0:9" + b"9" * 40):
        office.append(Record(topic, b"1", b"", (("datarun-position", about), ("datarun-reason", b"forged"))))
    assert [letter["position"] for letter in office.listed()] == [text_of(place)]


def test_an_unknown_letter_is_refused(office: Office) -> None:
    """A position without a letter, or that is none, changes nothing."""
    for text in ("data-events:0:5", "5", "a:b:c"):
        result = CliRunner().invoke(app, ["dlq", "drop", text, *office.options])
        assert result.exit_code == 1
    assert office.records(office.catalogue.prefix + "dead-letters") == []


@pytest.mark.parametrize("text", ["", ":", "a:1", "a:1:", "a::1", "a:-1:2", "a:1:+2", "a:٣:1", ":1:2", "a:1:2:3"])
def test_what_is_no_position_is_refused(text: str) -> None:
    """Only topic:partition:offset is a position."""
    with pytest.raises(NoPosition):
        position_of(text)


def test_a_position_is_written_as_it_is_read() -> None:
    """Writing a position and reading it again is the same position."""
    place = Position("datarun.fold-events", 11, 2**59)
    assert position_of(text_of(place)) == place
