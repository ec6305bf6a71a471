"""`datarun deploy`: files for the supervisors of other machines."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(help="Files that let other machines run the services.", no_args_is_help=True)


@app.callback()
def deploy() -> None:
    """Write what other machines need."""


@app.command()
def systemd(
    *,
    list_file: Annotated[Path, typer.Option("--list", help="The list of runners, one line a host.")],
    out: Annotated[Path, typer.Option(help="Folder to write to, one folder a host in it.")],
    kafka: Annotated[str, typer.Option(metavar="HOST:PORT", help="Kafka, as every host reaches it.")],
    gateway: Annotated[str, typer.Option(metavar="URL", help="The gateway, as every runner reaches it.")],
    postgres: Annotated[str | None, typer.Option(metavar="URL", help="The database, for the server's host.")] = None,
    blobs: Annotated[str | None, typer.Option(metavar="URL", help="The blob store, for the server's host.")] = None,
    home: Annotated[str, typer.Option(help="Where the checkout is on every host.")] = "/opt/datarun",
    user: Annotated[str, typer.Option(help="Whom the services run as.")] = "datarun",
) -> None:
    """Write systemd units: gateway and projector for one host, a runner for each line of the list."""
    from datarun.deployment.systemd import Installation, render, write
    from datarun.runner_list import load_runners

    installation = Installation(kafka=kafka, gateway=gateway, postgres=postgres, blobs=blobs, home=home, user=user)
    rendered = render(installation, load_runners(list_file))
    write(rendered, out)
    for name in sorted(rendered):
        print(out / name)
