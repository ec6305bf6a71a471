"""`datarun schemas`: what a checkout publishes about its events."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(help="JSON Schemas, examples, AsyncAPI and the page about events.", no_args_is_help=True)

Checkout = Annotated[Path, typer.Option("--checkout", help="The checkout whose files are meant.")]
HERE = Path()


@app.callback()
def schemas() -> None:
    """Work on what is published about events."""


@app.command()
def write(checkout: Checkout = HERE) -> None:
    """Write what is stale; refuse a declaration that breaks a published version, and write nothing then."""
    from datarun.published.files import write

    for path in write(checkout):
        print(path)


@app.command()
def check(checkout: Checkout = HERE) -> None:
    """Say what is stale, missing or broken; exit code 1 if anything is."""
    from datarun.published.files import problems

    found = problems(checkout)
    print("\n".join(found) if found else "everything published is as declared")
    if found:
        raise typer.Exit(1)
