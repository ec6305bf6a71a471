"""`datarun token`: what programs use in place of a password."""

from __future__ import annotations

from typing import Annotated

import typer

from datarun.cli.options import DEFAULT_FOLDER, Folder, Postgres

app = typer.Typer(help="Tokens of the gateway.", no_args_is_help=True)


@app.callback()
def token() -> None:
    """Work on the tokens of the gateway."""


@app.command()
def add(
    name: str,
    *,
    folder: Folder = DEFAULT_FOLDER,
    postgres: Postgres = None,
    role: Annotated[str | None, typer.Option(help="Needed for a name without an account, such as a runner's.")] = None,
    days: Annotated[int | None, typer.Option(min=1, max=36500, help="Days it is valid.")] = None,
) -> None:
    """Print a new token for an account or a runner, this once."""
    from datarun import tokens
    from datarun.settings import database_url

    made = tokens.make()
    tokens.add(database_url(folder, postgres), made, name, role=role, days=days)
    print(made)


@app.command("ls")
def list_tokens(*, folder: Folder = DEFAULT_FOLDER, postgres: Postgres = None) -> None:
    """List the tokens by their first characters."""
    from rich.console import Console
    from rich.table import Table

    from datarun import tokens
    from datarun.settings import database_url

    table = Table("token", "name", "role", "made", "valid until", box=None)
    for known in tokens.ls(database_url(folder, postgres)):
        expiry = f"{known.expires_at:%Y-%m-%d %H:%M}" if known.expires_at else "it is revoked"
        until = f"revoked {known.revoked_at:%Y-%m-%d %H:%M}" if known.revoked_at else expiry
        table.add_row(f"{known.prefix}…", known.username, known.role, f"{known.created_at:%Y-%m-%d %H:%M}", until)
    Console().print(table)


@app.command()
def revoke(prefix: str, *, folder: Folder = DEFAULT_FOLDER, postgres: Postgres = None) -> None:
    """End the token that begins like this; gateways let it in for five seconds more at most."""
    from datarun import tokens
    from datarun.settings import database_url

    tokens.revoke(database_url(folder, postgres), prefix)
    print(f"revoked {prefix[: tokens.SHOWN_CHARACTERS]}")
