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


@app.command()
def keys(
    *,
    name: Annotated[str, typer.Option(help="What the key is called.")] = "datarun",
    role: Annotated[
        list[str] | None, typer.Option(help="A role whose events it may sign; by default every one.")
    ] = None,
) -> None:
    """Print a file with a new key to sign events with, for DATARUN_SIGNING_KEYS."""
    from datarun.signing_keys import ROLES, new_file

    unknown = set(role or ()) - set(ROLES)
    if unknown:
        raise typer.BadParameter(f"{min(unknown)!r} is not one of {', '.join(ROLES)}", param_hint="--role")
    print(new_file(name, role or ROLES))


@app.command()
def acls(
    *,
    kafka: Annotated[str, typer.Option(metavar="HOST:PORT", help="The brokers.")],
    topic_prefix: Annotated[str, typer.Option(help="What the topics' names begin with.")] = "datarun.",
    principal: Annotated[
        list[str] | None,
        typer.Option(metavar="ROLE=NAME", help="What a role is called at the brokers; by default datarun-ROLE."),
    ] = None,
) -> None:
    """Print the commands that let each role do at the brokers what it must, and nothing else."""
    from datarun.deployment.acls import ROLES, rules
    from datarun.topics import Catalogue

    names = {role: f"datarun-{role}" for role in ROLES}
    for given in principal or ():
        role, _, name = given.partition("=")
        if role not in names or not name:
            raise typer.BadParameter(
                f"{given!r} is not one of {', '.join(ROLES)}, = and a name", param_hint="--principal"
            )
        names[role] = name
    for rule in rules(Catalogue(topic_prefix)):
        print(rule.command(kafka, f"User:{names[rule.role]}"))
