"""`datarun dlq`: the dead letters of projector and runners, and what is done about them."""

from __future__ import annotations

import json as jsonlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from datarun.cli.options import DEFAULT_FOLDER, Execute, Folder, Kafka, Postgres, TopicPrefix

if TYPE_CHECKING:
    from datarun.dead_letters.dealing import Desk
    from datarun.dead_letters.letters import DeadLetter

SHOWN_BYTES = 20_000

app = typer.Typer(help="Dead letters: records that could not be applied or run.", no_args_is_help=True)

Positions = Annotated[list[str], typer.Argument(metavar="TOPIC:PARTITION:OFFSET...")]
Reason = Annotated[str | None, typer.Option(help="Only letters of this reason, such as schema or misrouted.")]
Type = Annotated[str | None, typer.Option("--type", help="Only letters of this event, such as FoldTested.")]
All = Annotated[bool, typer.Option("--all", help="Also those that are dealt with.")]


@app.callback()
def dlq() -> None:
    """Work on dead letters; the log keeps every record."""


@app.command("ls")
def list_letters(
    *,
    reason: Reason = None,
    wire_type: Type = None,
    every: All = False,
    json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
    folder: Folder = DEFAULT_FOLDER,
    kafka: Kafka = None,
    postgres: Postgres = None,
    topic_prefix: TopicPrefix = None,
) -> None:
    """List dead letters that nobody has dealt with."""
    with _office(folder, kafka, postgres, topic_prefix) as office:
        found = [one for one in office.letters if _is_wanted(one, reason, wire_type, every=every)]
    if json:
        for one in found:
            print(jsonlib.dumps(_fields(one)))
    else:
        _print_table(found)


@app.command()
def show(
    position: Annotated[str, typer.Argument(metavar="TOPIC:PARTITION:OFFSET")],
    *,
    folder: Folder = DEFAULT_FOLDER,
    kafka: Kafka = None,
    postgres: Postgres = None,
    topic_prefix: TopicPrefix = None,
) -> None:
    """Show a dead letter, the record itself, and what a retry would do."""
    from datarun.log.reading import record_at

    with _office(folder, kafka, postgres, topic_prefix) as office:
        letter = office.named([position])[0]
        record, planned = record_at(office.desk.log, letter.position), office.desk.plan(letter)
    for name, value in _fields(letter).items():
        print(f"{name:<10} {value}")
    if record is not None:
        print(
            f"{'headers':<10} "
            + f"\n{'':<10} ".join(f"{_printable(name)}: {_text(value)}" for name, value in record.headers)
        )
        print(f"{'value':<10} {_text(record.value)}")
    print(f"{'retry':<10} {f'to {planned.record.topic}' if planned.record else f'impossible: {planned.problem}'}")


@app.command()
def retry(
    positions: Positions,
    *,
    execute: Execute = False,
    folder: Folder = DEFAULT_FOLDER,
    kafka: Kafka = None,
    postgres: Postgres = None,
    topic_prefix: TopicPrefix = None,
) -> None:
    """Append records to the topics they belong to, those that decode now; exit with 1 when one cannot be."""
    from datarun.dead_letters.letters import text_of

    with _office(folder, kafka, postgres, topic_prefix) as office:
        plans = [office.desk.plan(letter) for letter in office.named(positions)]
        for planned in plans:
            place = text_of(planned.letter.position)
            if planned.record is None:
                print(f"{place}  left alone: {planned.problem}")
            elif execute:
                print(f"{place}  is at {text_of(office.desk.retry(planned))} now")
            else:
                print(f"{place}  would be appended to {planned.record.topic}")
    if not execute:
        print("nothing was done: --execute does it")
    if any(planned.record is None for planned in plans):
        raise typer.Exit(1)


@app.command()
def drop(
    positions: Positions,
    *,
    note: Annotated[str, typer.Option(help="Why, for who reads of it later.")] = "",
    folder: Folder = DEFAULT_FOLDER,
    kafka: Kafka = None,
    postgres: Postgres = None,
    topic_prefix: TopicPrefix = None,
) -> None:
    """Mark dead letters as dealt with; the log keeps the records."""
    with _office(folder, kafka, postgres, topic_prefix) as office:
        for letter in office.named(positions):
            office.desk.drop(letter, note=note)
    print(f"{len(positions)} marked as dropped")


@dataclass(frozen=True, slots=True)
class _Office:
    """The letters there are, and the desk where they are dealt with."""

    letters: list[DeadLetter]
    desk: Desk

    def named(self, positions: list[str]) -> list[DeadLetter]:
        """Return the letters at some positions; raises NoPosition, NoSuchLetter."""
        from datarun.dead_letters.dealing import NoSuchLetter
        from datarun.dead_letters.letters import position_of

        known = {letter.position: letter for letter in self.letters}
        wanted = {position_of(text): text for text in positions}
        missing = [text for position, text in wanted.items() if position not in known]
        if missing:
            raise NoSuchLetter(f"there is no dead letter {missing[0]}: `datarun dlq ls --all` lists them")
        return [known[position] for position in wanted]


@contextmanager
def _office(folder: Path, kafka: str | None, postgres: str | None, topic_prefix: str | None) -> Iterator[_Office]:
    import getpass
    from contextlib import closing

    from datarun.dead_letters.dealing import Desk
    from datarun.dead_letters.ledger import read_letters
    from datarun.log.admin import cluster_id
    from datarun.log.kafka import KafkaLog
    from datarun.settings import load_settings

    settings = load_settings(folder, kafka=kafka, postgres_url=postgres, topic_prefix=topic_prefix)
    with closing(KafkaLog(settings.brokers)) as event_log, _cursor(settings.postgres_url) as cursor:
        letters = read_letters(event_log, cursor, catalogue=settings.catalogue, orphan_seconds=settings.orphan_seconds)
        by = getpass.getuser()
        yield _Office(letters, Desk(event_log, settings.catalogue, cluster_id(settings.brokers), by))


@contextmanager
def _cursor(url: str | None) -> Iterator[Any]:
    """Yield a cursor, or None where there is no database; the runners' letters are in the log."""
    from contextlib import closing

    from datarun.cli.servers import database_errors
    from datarun.db import connect

    if url is None:
        yield None
        return
    with (
        database_errors(),
        closing(connect(url, application="datarun-dlq")) as connection,
        connection,
        connection.cursor() as cursor,
    ):
        yield cursor


def _is_wanted(letter: DeadLetter, reason: str | None, wire_type: str | None, *, every: bool) -> bool:
    if letter.decision is not None and not every:
        return False
    named = letter.wire_type.removeprefix("datarun.").partition(".v")[0]
    return reason in (None, letter.reason) and wire_type in (None, named, letter.wire_type)


def _fields(letter: DeadLetter) -> dict[str, Any]:
    from datarun.dead_letters.letters import text_of

    decision = letter.decision
    decided = f"{decision.kind} by {decision.by} at {decision.at.isoformat()} {decision.note}" if decision else ""
    return {
        "position": text_of(letter.position),
        "type": _printable(letter.wire_type),
        "key": _printable(letter.key),
        "size": letter.size,
        "reason": _printable(letter.reason),
        "detail": _printable(letter.detail),
        "found_by": ", ".join(letter.found_by),
        "dealt_with": _printable(decided).strip(),
    }


def _print_table(letters: list[DeadLetter]) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table("position", "type", "key", "reason", "detail", "found by", "dealt with", box=None)
    for letter in letters:
        said = _fields(letter)
        columns = ("position", "type", "key", "reason", "detail", "found_by", "dealt_with")
        table.add_row(*(escape(str(said[name])[:300]) for name in columns))
    console = Console()
    if letters:
        console.print(table)
    console.print(f"{len(letters):,} dead letters", highlight=False)


def _text(content: bytes | None) -> str:
    if content is None:
        return "(none)"
    shown = content[:SHOWN_BYTES].decode("utf-8", "backslashreplace")
    return _printable(shown) if len(content) <= SHOWN_BYTES else f"{_printable(shown)}… ({len(content):,} bytes)"


def _printable(text: str) -> str:
    """Return a text that anybody may have written so that a terminal only shows it."""
    return "".join(mark if mark.isprintable() or mark == "\n" else f"\\x{ord(mark):02x}" for mark in text)
