"""`datarun topics`: the topics of the catalogue."""

from __future__ import annotations

from typing import Annotated

import typer

from datarun.cli.options import DEFAULT_FOLDER, Folder

DEFAULT_PREFIX = "datarun."

app = typer.Typer(help="The topics of the event log.", no_args_is_help=True)


@app.callback()
def topics() -> None:
    """Work on the topics of the event log."""


@app.command()
def create(
    *,
    folder: Folder = DEFAULT_FOLDER,
    kafka: Annotated[str | None, typer.Option(metavar="HOST:PORT", help="The broker, instead of the folder's.")] = None,
    topic_prefix: Annotated[str, typer.Option(help="What the topics' names begin with.")] = DEFAULT_PREFIX,
) -> None:
    """Make the topics that are missing and set the share groups' configuration; refuse those that differ."""
    from datarun.log.admin import create_topics
    from datarun.stack.connection import Connection

    bootstrap = kafka or Connection.load(folder).kafka
    made = create_topics(bootstrap, prefix=topic_prefix)
    print("\n".join(made) if made else "every topic exists")
