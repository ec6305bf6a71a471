"""`datarun events`: what is in the log, to look at, to take along and to bring back."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from datarun.cli.event_lines import cells, header_of, json_line, print_entries, printable, told
from datarun.cli.options import DEFAULT_FOLDER, Folder

if TYPE_CHECKING:
    from collections.abc import Callable

    from datarun.log import EventLog, StoredRecord
    from datarun.log.selection import Selection
    from datarun.topics import Catalogue

Kafka = Annotated[str | None, typer.Option(metavar="HOST:PORT", help="The broker, instead of the folder's.")]
Prefix = Annotated[str | None, typer.Option(help="What the topics' names begin with.")]
Topics = Annotated[list[str] | None, typer.Option("--topic", help="Of this topic, without its prefix.")]
Partition = Annotated[int | None, typer.Option(min=0, help="Of this partition.")]
Offsets = Annotated[str | None, typer.Option(metavar="FROM:TO", help="Of these offsets; TO is not among them.")]
Since = Annotated[str | None, typer.Option(metavar="TIME", help="From 2026-05-04T12:30 (UTC) on, or from 90m ago on.")]
Until = Annotated[str | None, typer.Option(metavar="TIME", help="Before this moment.")]
Types = Annotated[list[str] | None, typer.Option("--type", help="Of this type, such as FoldTested.")]
Keys = Annotated[list[str] | None, typer.Option("--key", help="With this key: a fold's, dataset's or runner's id.")]
Datasets = Annotated[list[int] | None, typer.Option("--dataset", help="That names this dataset.")]
Submissions = Annotated[list[int] | None, typer.Option("--submission", help="That names this submission.")]
AsJson = Annotated[bool, typer.Option("--json", help="A line of JSON each.")]

app = typer.Typer(help="The events in the log.", no_args_is_help=True)


@dataclass(frozen=True, slots=True)
class Opened:
    """A log and the topics of its installation."""

    log: EventLog
    catalogue: Catalogue


@app.callback()
def events() -> None:
    """Look at the events in the log."""


@app.command()
def ls(
    *,
    topic: Topics = None,
    partition: Partition = None,
    offsets: Offsets = None,
    since: Since = None,
    until: Until = None,
    kind: Types = None,
    key: Keys = None,
    dataset: Datasets = None,
    submission: Submissions = None,
    limit: Annotated[int, typer.Option(min=1, help="The last so many.")] = 100,
    as_json: AsJson = False,
    folder: Folder = DEFAULT_FOLDER,
    kafka: Kafka = None,
    topic_prefix: Prefix = None,
) -> None:
    """List events, the newest last."""
    import heapq

    from datarun.log.selection import select

    selection = _selection(topic, (partition, offsets), (since, until), (kind, key), (dataset, submission))
    with _opened(folder, kafka, topic_prefix) as at:
        found = select(at.log, selection, catalogue=at.catalogue)
        newest = heapq.nlargest(limit, found, key=lambda one: (one.record.timestamp_ms, one.record.position))
        print_entries(reversed(newest), at.catalogue, as_json=as_json)


@app.command()
def tail(
    *,
    topic: Topics = None,
    kind: Types = None,
    key: Keys = None,
    dataset: Datasets = None,
    submission: Submissions = None,
    as_json: AsJson = False,
    folder: Folder = DEFAULT_FOLDER,
    kafka: Kafka = None,
    topic_prefix: Prefix = None,
) -> None:
    """Print events as they come, until Ctrl-C."""
    from contextlib import suppress

    from datarun.log.selection import follow

    selection = _selection(topic, (None, None), (None, None), (kind, key), (dataset, submission))
    with _opened(folder, kafka, topic_prefix) as at, suppress(KeyboardInterrupt):
        for batch in follow(at.log, selection, catalogue=at.catalogue):
            for entry in batch:
                line = json_line(entry, at.catalogue) if as_json else "  ".join(cells(entry, at.catalogue))
                print(line, flush=True)


@app.command()
def show(
    which: Annotated[str, typer.Argument(help="An event's id, or TOPIC:PARTITION:OFFSET.")],
    *,
    folder: Folder = DEFAULT_FOLDER,
    kafka: Kafka = None,
    topic_prefix: Prefix = None,
) -> None:
    """Show one event with its headers; every record of it, if it was appended more than once."""
    from datarun.log.selection import Selection, select

    named = which.rsplit(":", 2)
    with _opened(folder, kafka, topic_prefix) as at:
        if len(named) == 3 and named[1].isdecimal() and named[2].isdecimal():  # noqa: PLR2004 - as the argument says
            offset = int(named[2])
            topics = topics_named([named[0]])
            selection = Selection(topics, partition=int(named[1]), first_offset=offset, stop_offset=offset + 1)
            matches: Callable[[StoredRecord], bool] = lambda record: record.offset == offset  # noqa: E731
        else:
            selection, matches = Selection(), lambda record: header_of(record, "ce_id") == which
        found = [one for one in select(at.log, selection, catalogue=at.catalogue) if matches(one.record)]
        for one in found:
            print(json.dumps(told(one, at.catalogue), indent=2, ensure_ascii=False))
    if not found:
        raise typer.BadParameter(f"the log has no event {which}", param_hint="WHICH")


@app.command()
def export(
    file: Annotated[
        Path, typer.Argument(help="The file to write, such as log.jsonl.zst or log.parquet; it must not exist.")
    ],
    *,
    topic: Topics = None,
    partition: Partition = None,
    offsets: Offsets = None,
    since: Since = None,
    until: Until = None,
    kind: Types = None,
    key: Keys = None,
    dataset: Datasets = None,
    submission: Submissions = None,
    folder: Folder = DEFAULT_FOLDER,
    kafka: Kafka = None,
    topic_prefix: Prefix = None,
) -> None:
    """Write records to a file, byte for byte: as JSON lines, compressed with Zstandard, or as a Parquet table."""
    from datarun.log import jsonl, parquet
    from datarun.log.selection import select

    selection = _selection(topic, (partition, offsets), (since, until), (kind, key), (dataset, submission))
    with _opened(folder, kafka, topic_prefix) as at, _progress("exporting") as progress:
        found = select(at.log, selection, catalogue=at.catalogue, progress=progress)
        write = parquet.write if file.suffix == parquet.SUFFIX else jsonl.write
        count = write(file, (one.record for one in found), catalogue=at.catalogue)
    print(f"{count} records in {file}, {file.stat().st_size} bytes")


@app.command("import")
def import_(
    file: Annotated[Path, typer.Argument(help="A file of `datarun events export`.")],
    *,
    execute: Annotated[bool, typer.Option("--execute", help="Append them; else only say what would be.")] = False,
    folder: Folder = DEFAULT_FOLDER,
    kafka: Kafka = None,
    topic_prefix: Prefix = None,
) -> None:
    """Append the records of a file to the log, in their order; 1 when some are refused. By default it only looks."""
    from datarun.log import jsonl, parquet
    from datarun.log.importing import append_all

    with _opened(folder, kafka, topic_prefix) as at:
        read = parquet.read if file.suffix == parquet.SUFFIX else jsonl.read
        records = read(file, catalogue=at.catalogue)
        outcome = append_all(records, at.log if execute else None, catalogue=at.catalogue)
    for name, count in sorted(outcome.appended.items()):
        print(f"{name}: {count} {'appended' if execute else 'would be appended'}")
    for position, why in outcome.refused:
        print(f"refused: {position.topic}:{position.partition}:{position.offset} {printable(why)}")
    if not execute:
        print("nothing was appended; --execute does it")
    if outcome.refused:
        raise typer.Exit(1)


@app.command()
def validate(
    *,
    topic: Topics = None,
    since: Since = None,
    folder: Folder = DEFAULT_FOLDER,
    kafka: Kafka = None,
    topic_prefix: Prefix = None,
) -> None:
    """Decode the whole log and say what would be a dead letter, and why; exit code 1 if anything would."""
    from collections import Counter

    from datarun.log.selection import select
    from datarun.topics import DEAD_LETTERS

    selection = _selection(topic, (None, None), (since, None), (None, None), (None, None), but=(DEAD_LETTERS.name,))
    types: Counter[str] = Counter()
    dead = 0
    with _opened(folder, kafka, topic_prefix) as at:
        for one in select(at.log, selection, catalogue=at.catalogue):
            if one.refusal is None:
                types[header_of(one.record, "ce_type")] += 1
            else:
                dead += 1
                print("  ".join(cells(one, at.catalogue)))
    for name, count in sorted(types.items()):
        print(f"{count:>10}  {name}")
    print(f"{sum(types.values())} events are as declared, {dead} records would be dead letters")
    if dead:
        raise typer.Exit(1)


@contextmanager
def _opened(folder: Path, kafka: str | None, topic_prefix: str | None) -> Iterator[Opened]:
    from datarun.log.kafka import KafkaLog
    from datarun.settings import load_settings

    settings = load_settings(folder, kafka=kafka, topic_prefix=topic_prefix)
    event_log = KafkaLog(settings.brokers)
    try:
        yield Opened(event_log, settings.catalogue)
    finally:
        event_log.close()


def _selection(
    topics: list[str] | None,
    place: tuple[int | None, str | None],
    time: tuple[str | None, str | None],
    said: tuple[list[str] | None, list[str] | None],
    about: tuple[list[int] | None, list[int] | None],
    *,
    but: tuple[str, ...] = (),
) -> Selection:
    from datarun.log.selection import Selection

    partition, offsets = place
    first, stop = _range(offsets)
    return Selection(
        topics=tuple(topic for topic in topics_named(topics) if topic.name not in but),
        partition=partition,
        first_offset=first,
        stop_offset=stop,
        since_ms=_milliseconds(time[0]),
        until_ms=_milliseconds(time[1]),
        types=frozenset(said[0] or ()),
        keys=frozenset(key.encode() for key in said[1] or ()),
        datasets=frozenset(about[0] or ()),
        submissions=frozenset(about[1] or ()),
    )


def topics_named(names: list[str] | None) -> tuple[Any, ...]:
    """Return the topics of some names, all without any; raises typer.BadParameter."""
    from datarun.topics import TOPICS

    known = {topic.name: topic for topic in TOPICS}
    unknown = [name for name in names or () if name not in known]
    if unknown:
        raise typer.BadParameter(f"{unknown[0]!r} is none of {', '.join(known)}", param_hint="--topic")
    return tuple(known[name] for name in names) if names else TOPICS


def _range(text: str | None) -> tuple[int, int | None]:
    if text is None:
        return 0, None
    first, colon, stop = text.partition(":")
    if not colon or not all(part == "" or part.isdecimal() for part in (first, stop)):
        raise typer.BadParameter(f"{text!r} is not FROM:TO, FROM: or :TO", param_hint="--offsets")
    return int(first or 0), int(stop) if stop else None


def _milliseconds(text: str | None) -> int | None:
    from datetime import UTC, datetime

    from datarun.cli.moments import moment

    return None if text is None else int(moment(text, now=datetime.now(UTC)).timestamp() * 1000)


@contextmanager
def _progress(what: str) -> Iterator[Callable[[int, int], None]]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
