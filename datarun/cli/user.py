"""`datarun user`: who may use the gateway."""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import Annotated

import typer

from datarun.cli.options import DEFAULT_FOLDER, Folder, Postgres

app = typer.Typer(help="Accounts of the gateway.", no_args_is_help=True)


@app.callback()
def user() -> None:
    """Work on the accounts of the gateway."""


@app.command()
def add(
    name: str,
    *,
    folder: Folder = DEFAULT_FOLDER,
    postgres: Postgres = None,
    role: Annotated[str, typer.Option(help="admin, organiser, participant or runner.")] = "participant",
    password_file: Annotated[Path | None, typer.Option(help="Read the password here, instead of making one.")] = None,
) -> None:
    """Add an account, or let a revoked one in again; without --password-file its new password is printed, this once."""
    from datarun import accounts
    from datarun.settings import database_url, read_secret

    password = read_secret(password_file, "password file") if password_file else secrets.token_urlsafe(18)
    accounts.add(database_url(folder, postgres), name, password, role, revoked_too=True)
    print(f"added {name}" if password_file else password)


@app.command("ls")
def list_accounts(*, folder: Folder = DEFAULT_FOLDER, postgres: Postgres = None) -> None:
    """List the accounts."""
    from rich.console import Console
    from rich.table import Table

    from datarun import accounts
    from datarun.settings import database_url

    table = Table("name", "role", "added", "revoked", box=None)
    for known in accounts.ls(database_url(folder, postgres)):
        revoked = f"{known.revoked_at:%Y-%m-%d %H:%M}" if known.revoked_at else ""
        table.add_row(known.username, known.role, f"{known.created_at:%Y-%m-%d %H:%M}", revoked)
    Console().print(table)


@app.command()
def revoke(name: str, *, folder: Folder = DEFAULT_FOLDER, postgres: Postgres = None) -> None:
    """Let an account and its tokens in no more; gateways do so for five seconds more at most."""
    from datarun import accounts
    from datarun.settings import database_url

    accounts.revoke(database_url(folder, postgres), name)
    print(f"revoked {name}")
