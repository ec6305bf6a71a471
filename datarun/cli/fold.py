"""`datarun fold`: one fold; cancelled by way of the gateway, taken out of the log, run again where there is none."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from datarun.cli.options import DEFAULT_FOLDER, Folder, Kafka, TopicPrefix
from datarun.cli.services import PASS_THROUGH

app = typer.Typer(help="Folds.", no_args_is_help=True)


@app.callback()
def fold() -> None:
    """Work on folds."""


@app.command()
def cancel(
    fold_id: Annotated[int, typer.Argument(min=1, max=2_147_483_647)],
    *,
    folder: Folder = DEFAULT_FOLDER,
    reason: Annotated[str, typer.Option(help="Shown with the fold.")] = "",
) -> None:
    """Cancel a fold: it does not start, or is killed with everything it started."""
    from datarun.cancellation import cancel_fold
    from datarun.stack.connection import Connection

    print(cancel_fold(Connection.load(folder), fold_id, reason=reason))


@app.command()
def export(
    fold_id: Annotated[int, typer.Argument(min=1, max=2_147_483_647)],
    file: Annotated[Path, typer.Argument(dir_okay=False, help="Written whole or not at all.")],
    *,
    folder: Folder = DEFAULT_FOLDER,
    kafka: Kafka = None,
    blobs: Annotated[str | None, typer.Option(metavar="URL", help="The blob store, instead of the folder's.")] = None,
    topic_prefix: TopicPrefix = None,
) -> None:
    """Write a capsule: the fold's events, data, code, indices and predictions, held-out labels included."""
    from contextlib import closing

    from datarun.capsule.writing import export_fold
    from datarun.http_blobs import CACHE_MIB, blobs_of
    from datarun.log.kafka import KafkaLog
    from datarun.settings import load_settings

    settings = load_settings(folder, kafka=kafka, blobs=blobs, topic_prefix=topic_prefix)
    store = blobs_of(settings, cache_folder=folder / "blob-cache", cache_mib=CACHE_MIB)
    with closing(KafkaLog(settings.brokers)) as event_log:
        made = export_fold(event_log, store, fold_id, file, catalogue=settings.catalogue)
    print(f"{file}: fold {fold_id}, {len(made.files)} files, {sum(one.size for one in made.files):,} bytes")
    print("it holds the held-out labels of its dataset: mind who gets it")


@app.command(context_settings=PASS_THROUGH, add_help_option=False)
def run(context: typer.Context) -> None:
    """Run the fold of a capsule again, without any server, and compare its predictions bit for bit."""
    os.execv(sys.executable, [sys.executable, "-m", "services.runner.capsule", *context.args])  # noqa: S606 - no shell is wanted
