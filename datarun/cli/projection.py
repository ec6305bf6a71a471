"""`datarun projection`: the read model made anew from the log beside the live one, compared, and put in its place."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from datarun.cli.options import DEFAULT_FOLDER, Folder, Kafka, Postgres, TopicPrefix
from datarun.readmodel import NEXT, OLD, SCHEMA

if TYPE_CHECKING:
    from pathlib import Path

    from datarun.projection.rebuild import Rebuild
    from datarun.projection.share import Ground
    from datarun.projection.verify import Verdict

Schema = Annotated[str, typer.Option(help="The schema that is built beside the live one.")]

app = typer.Typer(help="The read model, which the log can make anew.", no_args_is_help=True)


@app.callback()
def projection() -> None:
    """Work on the read model."""


@app.command()
def status(
    *,
    folder: Folder = DEFAULT_FOLDER,
    kafka: Kafka = None,
    postgres: Postgres = None,
    topic_prefix: TopicPrefix = None,
) -> None:
    """Show the read models there are: their version, what they hold and how far behind the log they are."""
    from datarun.cli.projection_report import show_status
    from datarun.cli.servers import database_errors, ground
    from datarun.projection.share import opened
    from datarun.projection.status import status as read_status
    from datarun.settings import load_settings

    seconds = load_settings(folder, kafka=kafka, postgres_url=postgres, topic_prefix=topic_prefix).orphan_seconds
    live = ground(folder, kafka, postgres, topic_prefix, schema=SCHEMA)
    with database_errors(), opened(live) as (event_log, connection):
        show_status(read_status(connection, event_log, catalogue=live.catalogue, orphan_seconds=seconds))


@app.command()
def rebuild(
    *,
    folder: Folder = DEFAULT_FOLDER,
    schema: Schema = NEXT,
    fresh: Annotated[bool, typer.Option("--fresh", help="Drop the schema first.")] = False,
    kafka: Kafka = None,
    postgres: Postgres = None,
    topic_prefix: TopicPrefix = None,
) -> None:
    """Project the whole log into another schema and compare it with the live one; interrupted, it goes on."""
    from datarun.projection.verify import verify as compare

    with _work(_beside(folder, kafka, postgres, topic_prefix, schema=schema), "rebuilding") as work:
        work.build(fresh=fresh)
        verdict = compare(work)
    _conclude(work, verdict)


@app.command()
def verify(
    *,
    folder: Folder = DEFAULT_FOLDER,
    schema: Schema = NEXT,
    kafka: Kafka = None,
    postgres: Postgres = None,
    topic_prefix: TopicPrefix = None,
) -> None:
    """Compare the checksums of every table at equal offsets; exit with 1 when they differ."""
    from datarun.projection.verify import verify as compare

    with _work(_beside(folder, kafka, postgres, topic_prefix, schema=schema), "catching up") as work:
        verdict = compare(work)
    _conclude(work, verdict)


@app.command()
def diff(
    *,
    folder: Folder = DEFAULT_FOLDER,
    schema: Schema = NEXT,
    limit: Annotated[int, typer.Option(min=1, help="So many rows of a table at the most.")] = 20,
    json: Annotated[bool, typer.Option("--json", help="One JSON object a row.")] = False,
    kafka: Kafka = None,
    postgres: Postgres = None,
    topic_prefix: TopicPrefix = None,
) -> None:
    """Show the first rows that differ, and what of the log says otherwise; exit with 1 when there are any."""
    from datarun.cli.projection_report import show_differences
    from datarun.projection.verify import differ

    with _work(_beside(folder, kafka, postgres, topic_prefix, schema=schema), "catching up") as work:
        found = differ(work, limit=limit)
    show_differences(found, schema, as_json=json)
    if found:
        raise typer.Exit(1)


@app.command()
def swap(
    *,
    folder: Folder = DEFAULT_FOLDER,
    schema: Schema = NEXT,
    accept_differences: Annotated[
        bool, typer.Option("--accept-differences", help="Swap although the two are not equal.")
    ] = False,
    kafka: Kafka = None,
    postgres: Postgres = None,
    topic_prefix: TopicPrefix = None,
) -> None:
    """Put the rebuilt read model in the live one's place, which is kept as rm_old; nobody has to stop."""
    from datarun.cli.projection_report import show_swapped
    from datarun.projection.swap import swap as put_in_place

    with _work(_beside(folder, kafka, postgres, topic_prefix, schema=schema), "catching up") as work:
        swapped = put_in_place(work, accept_differences=accept_differences)
    show_swapped(swapped, f"{schema} is live; the one before it is {OLD}")


@app.command()
def rollback(
    *,
    folder: Folder = DEFAULT_FOLDER,
    kafka: Kafka = None,
    postgres: Postgres = None,
    topic_prefix: TopicPrefix = None,
) -> None:
    """Bring rm_old up to date and put it in the live one's place again, which is kept as rm_next."""
    from datarun.cli.projection_report import show_swapped
    from datarun.projection.swap import roll_back

    with _work(_beside(folder, kafka, postgres, topic_prefix, schema=OLD), "catching up") as work:
        swapped = roll_back(work)
    show_swapped(swapped, f"{OLD} is live again; the one it replaced is {NEXT}")


def _beside(folder: Path, kafka: str | None, postgres: str | None, topic_prefix: str | None, *, schema: str) -> Ground:
    from datarun.cli.servers import ground

    if schema == SCHEMA:
        raise typer.BadParameter("that is the live read model; build beside it", param_hint="--schema")
    return ground(folder, kafka, postgres, topic_prefix, schema=schema)


@contextmanager
def _work(ground: Ground, doing: str) -> Iterator[Rebuild]:
    from datarun.cli.projection_report import bar
    from datarun.cli.servers import database_errors
    from datarun.projection.rebuild import Rebuild

    with database_errors(), bar(doing) as progress:
        yield Rebuild(ground, progress=progress)


def _conclude(work: Rebuild, verdict: Verdict) -> None:
    from datarun.cli.projection_report import show_verdict

    show_verdict(work, verdict)
    if not verdict.equal:
        raise typer.Exit(1)
