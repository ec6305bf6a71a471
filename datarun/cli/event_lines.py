"""Events as lines for people and for programs."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

    from datarun.log import StoredRecord
    from datarun.log.selection import Entry
    from datarun.topics import Catalogue


def print_entries(entries: Iterable[Entry], catalogue: Catalogue, *, as_json: bool) -> None:
    """Print events as a table, or as a line of JSON each."""
    if as_json:
        for entry in entries:
            print(json_line(entry, catalogue))
        return
    from rich.table import Table

    table = Table("position", "time (broker)", "event", "key", "says", box=None, pad_edge=False)
    for entry in entries:
        table.add_row(*map(_escaped, cells(entry, catalogue)))
    _console().print(table)


def _console() -> Console:
    from rich.console import Console

    console = Console()
    # Into a pipe goes all of it, whatever width Rich believes a pipe to have.
    return console if console.is_terminal else Console(width=400)


def cells(entry: Entry, catalogue: Catalogue) -> list[str]:
    """Return where and when an event is, what it is, its key, and what it says."""
    from datetime import UTC, datetime

    record = entry.record
    when = datetime.fromtimestamp(record.timestamp_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S.%f")[:-3]
    what = header_of(record, "ce_type").removeprefix("datarun.")
    where = f"{record.topic.removeprefix(catalogue.prefix)}:{record.partition}:{record.offset}"
    key = (record.key or b"").decode("utf-8", "replace")
    return [where, when, *map(printable, (what, key, _says(entry)))]


def _says(entry: Entry) -> str:
    if entry.refusal is not None:
        reason = header_of(entry.record, "datarun-reason")
        return f"kept for {reason}" if reason else f"DEAD LETTER {entry.refusal.reason}: {entry.refusal}"
    names = ("attempt", "delivery", "submission_id", "runner_id", "stage", "cause", "requirement", "name")
    said = {name: getattr(entry.event, name) for name in names if getattr(entry.event, name, None) is not None}
    return " ".join(f"{name}={value}" for name, value in said.items())


def json_line(entry: Entry, catalogue: Catalogue) -> str:
    """Return an event as a line of JSON."""
    return json.dumps(told(entry, catalogue), ensure_ascii=False)


def told(entry: Entry, catalogue: Catalogue) -> dict[str, Any]:
    """Return all of a record, its event in place of its bytes."""
    from datarun.log.lines import said_of

    told = said_of(entry.record, catalogue=catalogue)
    if entry.refusal is not None:
        return told | {"refused": entry.refusal.reason, "detail": str(entry.refusal)}
    event = entry.event
    return told if event is None else told | {"value": event.model_dump(mode="json", exclude_none=True)}


def header_of(record: StoredRecord, name: str) -> str:
    """Return a header's text, empty without one."""
    from datarun.envelope import header

    return header(record.headers, name) or ""


def printable(text: str) -> str:
    """Leave out what a terminal would take for a command."""
    return "".join(character if character.isprintable() else " " for character in text)


def _escaped(text: str) -> str:
    from rich.markup import escape

    return escape(text)
