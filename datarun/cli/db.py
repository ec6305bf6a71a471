"""`datarun db`: the schema of the database."""

from __future__ import annotations

from typing import Annotated

import typer

from datarun.cli.options import DEFAULT_FOLDER, Folder

app = typer.Typer(help="The database of the gateway and the projector.", no_args_is_help=True)


@app.callback()
def db() -> None:
    """Work on the database."""


@app.command()
def upgrade(
    *,
    folder: Folder = DEFAULT_FOLDER,
    postgres: Annotated[str | None, typer.Option(metavar="URL", help="The database, instead of the folder's.")] = None,
) -> None:
    """Bring the tables to the newest version; an up-to-date database is left as it is."""
    import psycopg2

    from datarun import db as database
    from datarun.errors import DatabaseUnavailable
    from datarun.stack.connection import Connection

    try:
        database.upgrade(postgres or Connection.load(folder).postgres_url)
    except psycopg2.OperationalError as error:
        raise DatabaseUnavailable(f"the database could not be upgraded: {error}".strip()) from error
    print("the database is at its newest version")
