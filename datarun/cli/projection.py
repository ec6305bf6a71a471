"""`datarun projection`: the read model made anew from the log, beside the live one."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Annotated

import typer

from datarun.cli.options import DEFAULT_FOLDER, Folder

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress

    from datarun.projection.rebuild import Outcome

LIVE = "rm"

app = typer.Typer(help="The read model, which the log can make anew.", no_args_is_help=True)


@app.callback()
def projection() -> None:
    """Work on the read model."""


@app.command()
def rebuild(
    *,
    folder: Folder = DEFAULT_FOLDER,
    schema: Annotated[str, typer.Option(help="Schema to build in; an interrupted rebuild goes on.")] = "rm_next",
    fresh: Annotated[bool, typer.Option("--fresh", help="Drop the schema first.")] = False,
    jobs: Annotated[int, typer.Option(min=1, max=12, help="Processes to work with.")] = min(os.cpu_count() or 1, 12),
    kafka: Annotated[str | None, typer.Option(metavar="HOST:PORT", help="The broker, instead of the folder's.")] = None,
    postgres: Annotated[str | None, typer.Option(metavar="URL", help="The database, instead of the folder's.")] = None,
    topic_prefix: Annotated[str | None, typer.Option(help="What the topics' names begin with.")] = None,
) -> None:
    """Project the whole log into another schema and compare it with the live read model."""
    from functools import partial

    from rich.console import Console

    from datarun.db import connect
    from datarun.log.kafka import KafkaLog
    from datarun.projection.rebuild import Rebuild
    from datarun.projection.share import Ground
    from datarun.settings import load_settings

    if schema == LIVE:
        raise typer.BadParameter("that is the live read model; build beside it", param_hint="--schema")
    settings = load_settings(folder, kafka=kafka, postgres_url=postgres, topic_prefix=topic_prefix)
    ground = Ground(
        partial(KafkaLog, settings.brokers), partial(connect, settings.postgres), settings.catalogue, schema
    )
    console = Console()
    with _bar(console) as bar:
        task = bar.add_task("rebuilding", total=None)
        work = Rebuild(ground, jobs=jobs, progress=lambda done, total: bar.update(task, completed=done, total=total))
        outcome = work.run(fresh=fresh)
    _report(console, outcome, schema)
    if not outcome.equal:
        raise typer.Exit(1)


def _bar(console: Console) -> Progress:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    return Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), console=console
    )


def _report(console: Console, outcome: Outcome, schema: str) -> None:
    from rich.table import Table

    speed = outcome.applied / outcome.seconds if outcome.seconds else 0.0
    console.print(f"{outcome.applied:,} events in {outcome.seconds:.1f} s, {speed:,.0f} events/s")
    if outcome.live is None:
        console.print(f"There is no live read model to compare {schema} with.")
        return
    for tp in outcome.ahead:
        console.print(f"{schema} is further than the live read model in {tp.topic}[{tp.partition}]: not comparable.")
    table = Table("table", f"{LIVE} rows", f"{schema} rows", "")
    for name, of_live in outcome.live.items():
        rebuilt = outcome.rebuilt[name]
        table.add_row(name, f"{of_live.rows:,}", f"{rebuilt.rows:,}", "equal" if of_live == rebuilt else "DIFFERENT")
    console.print(table)
