"""`datarun intake`: what gateways have promised, made anew from the log."""

from __future__ import annotations

import typer

from datarun.cli.options import DEFAULT_FOLDER, Folder, Kafka, Postgres, TopicPrefix

app = typer.Typer(help="The write side: which names, ids, attempts and versions are taken.", no_args_is_help=True)


@app.callback()
def intake() -> None:
    """Work on the write side."""


@app.command()
def rebuild(
    *,
    folder: Folder = DEFAULT_FOLDER,
    kafka: Kafka = None,
    postgres: Postgres = None,
    topic_prefix: TopicPrefix = None,
) -> None:
    """Bring the log's claims into a database that lost them, while no gateway works on it; users are not in the log."""
    from datarun.cli.projection_report import bar
    from datarun.cli.servers import database_errors, ground
    from datarun.intake.rebuild import rebuild as bring_back

    where = ground(folder, kafka, postgres, topic_prefix, schema="intake")
    with database_errors(), bar("recovering claims") as progress:
        found = bring_back(where, progress=progress)
    print(f"{found.events:,} events read in {found.seconds:.1f} s")
    print(
        f"{found.datasets:,} datasets, {found.submissions:,} submissions, {found.folds:,} folds, "
        f"{found.cancellations:,} cancellations; accounts and tokens are not in the log"
    )
