"""`datarun user`: who may use the gateway."""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import Annotated

import typer

from datarun.cli.options import DEFAULT_FOLDER, Folder

app = typer.Typer(help="Accounts of the gateway.", no_args_is_help=True)


@app.callback()
def user() -> None:
    """Work on the accounts of the gateway."""


@app.command()
def add(
    name: str,
    *,
    folder: Folder = DEFAULT_FOLDER,
    postgres: Annotated[str | None, typer.Option(metavar="URL", help="The database, instead of the folder's.")] = None,
    role: Annotated[str, typer.Option(help="admin, organiser, participant or runner.")] = "participant",
    password_file: Annotated[Path | None, typer.Option(help="Read the password here, instead of making one.")] = None,
) -> None:
    """Add an account; without --password-file its new password is printed, this once."""
    from datarun.accounts import add as add_account
    from datarun.stack.connection import Connection

    password = password_file.read_text(encoding="utf-8").strip() if password_file else secrets.token_urlsafe(18)
    add_account(postgres or Connection.load(folder).postgres_url, name, password, role)
    print(f"added {name}" if password_file else password)
