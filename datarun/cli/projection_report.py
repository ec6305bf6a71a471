"""What `datarun projection` shows: a bar while it works, and tables of what came of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import orjson
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from datarun.projection.compare import Difference
from datarun.projection.rebuild import Progress as Told
from datarun.projection.rebuild import Rebuild
from datarun.projection.status import Status
from datarun.projection.swap import Swapped
from datarun.projection.verify import Verdict
from datarun.readmodel import SCHEMA

SHOWN_CHARACTERS = 60


class _Speed(ProgressColumn):
    """Events a second."""

    def render(self, task: Task) -> Text:
        """Return the speed of the last seconds."""
        speed = task.finished_speed or task.speed
        return Text("" if speed is None else f"{speed:,.0f} events/s")


@contextmanager
def bar(doing: str) -> Iterator[Told]:
    """Show a bar and yield what it is told the progress by."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), _Speed(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as shown:
        task = shown.add_task(doing, total=None)
        yield lambda done, total: shown.update(task, completed=done, total=total)


def show_status(found: Sequence[Status]) -> None:
    """Show a line for every read model."""
    table = Table("schema", "version", "folds", "datasets", "open dead letters", "size", "events", "behind")
    for one in found:
        counts = (one.folds, one.datasets, one.open_dead_letters)
        numbers = [f"{number:,}" for number in counts]
        table.add_row(one.schema, one.version, *numbers, one.size, f"{one.projected:,}", f"{one.behind:,}")
    Console().print(table)


def show_verdict(work: Rebuild, verdict: Verdict) -> None:
    """Show how fast it went and whether the tables are equal."""
    console, schema = Console(), work.ground.schema
    speed = work.applied / work.seconds if work.seconds else 0.0
    console.print(f"{work.applied:,} events in {work.seconds:.1f} s, {speed:,.0f} events/s")
    if verdict.live is None:
        console.print(f"There is no live read model of this version to compare {schema} with.")
        return
    for tp in verdict.ahead:
        console.print(f"{schema} is further than the live read model in {tp.topic}[{tp.partition}]: not comparable.")
    table = Table("table", f"{SCHEMA} rows", f"{schema} rows", "")
    for name, of_live in verdict.live.items():
        rebuilt = verdict.rebuilt[name]
        table.add_row(name, f"{of_live.rows:,}", f"{rebuilt.rows:,}", "equal" if of_live == rebuilt else "DIFFERENT")
    console.print(table)


def show_differences(found: Sequence[Difference], schema: str, *, as_json: bool) -> None:
    """Show the rows that differ."""
    if as_json:
        for one in found:
            columns = {name: {SCHEMA: live, schema: rebuilt} for name, (live, rebuilt) in one.columns.items()}
            line = {"table": one.table, "key": one.key, "columns": columns, "why": one.why}
            print(orjson.dumps(line, default=_text).decode())
        return
    console = Console()
    if not found:
        console.print("No row differs.")
        return
    table = Table("table", "key", "column", SCHEMA, schema, "why")
    for one in found:
        key = ", ".join(map(str, one.key))
        for name, (live, rebuilt) in (one.columns or {"": ("", "")}).items():
            table.add_row(one.table, key, name, _text(live), _text(rebuilt), one.why)
    console.print(table)


def show_swapped(swapped: Swapped, said: str) -> None:
    """Show what a swap took."""
    held, renaming = swapped.held_seconds * 1000, swapped.renaming_seconds * 1000
    console = Console()
    if swapped.verdict is not None and not swapped.verdict.equal:
        console.print("The two were not equal.")
    console.print(
        f"{said}. The live projection was held for {held:.0f} ms to catch up with {swapped.caught_up} events, "
        f"{renaming:.0f} ms of it for the renaming; readers waited for nothing."
    )


def _text(value: Any) -> str:
    return str(value)[:SHOWN_CHARACTERS]
