"""`datarun blobs`: the store of the bytes that events name."""

from __future__ import annotations

from typing import Annotated

import typer

from datarun.cli.options import DEFAULT_FOLDER, Execute, Folder, Kafka, Postgres, TopicPrefix

app = typer.Typer(help="The blobs that events name.", no_args_is_help=True)


@app.callback()
def blobs() -> None:
    """Work on the blob store."""


@app.command()
def gc(
    *,
    hours: Annotated[float, typer.Option(min=24, help="Only blobs that nobody put or asked for so long.")] = 24,
    execute: Execute = False,
    folder: Folder = DEFAULT_FOLDER,
    kafka: Kafka = None,
    postgres: Postgres = None,
    blobs: Annotated[str | None, typer.Option(metavar="URL", help="The blob store, instead of the folder's.")] = None,
    topic_prefix: TopicPrefix = None,
) -> None:
    """Delete old blobs that neither the log nor a claim of the gateway names; without --execute only list them."""
    from contextlib import closing

    from datarun.blob_collection import collect, unnamed
    from datarun.blobs import open_collected
    from datarun.cli.bars import bar
    from datarun.cli.servers import database_errors
    from datarun.db import connect
    from datarun.log.kafka import KafkaLog
    from datarun.settings import load_settings

    servers = {"kafka": kafka, "postgres_url": postgres, "blobs": blobs, "topic_prefix": topic_prefix}
    settings = load_settings(folder, **servers)
    store = open_collected(settings.blobs)
    with (
        database_errors(),
        closing(connect(settings.postgres, application="datarun-blobs")) as connection,
        closing(KafkaLog(settings.brokers)) as log,
        bar("reading the log") as told,
    ):
        found = unnamed(store, log, connection, catalogue=settings.catalogue, seconds=hours * 3600, told=told)
        deleted = collect(store, found, seconds=hours * 3600) if execute else []
    if not execute:
        for blob in found:
            print(f"{blob.sha256}  {blob.size:,}")
        print(f"{len(found):,} blobs, {sum(one.size for one in found):,} bytes; --execute deletes them")
    else:
        print(f"{len(deleted):,} blobs deleted, {sum(one.size for one in deleted):,} bytes")
