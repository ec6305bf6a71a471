"""`datarun backup` and `datarun restore`: the log and its blobs in a folder, and back."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from datarun.cli.options import DEFAULT_FOLDER, Execute, Folder, Kafka, TopicPrefix

Blobs = Annotated[str | None, typer.Option(metavar="URL", help="The blob store, instead of the folder's.")]
SHOWN = 10


def backup(
    to: Annotated[Path, typer.Argument(metavar="FOLDER", file_okay=False)],
    *,
    folder: Folder = DEFAULT_FOLDER,
    kafka: Kafka = None,
    blobs: Blobs = None,
    topic_prefix: TopicPrefix = None,
) -> None:
    """Bring a folder to all that the log holds now, with every blob it names, and verify it.

    Given again it adds what is new; interrupted or killed, it goes on. 1 when blobs are not in the store.
    """
    from contextlib import closing

    from datarun.backup.taking import Source, take
    from datarun.blobs import open_blobs
    from datarun.cli.bars import bar
    from datarun.log.admin import cluster_id
    from datarun.log.kafka import KafkaLog
    from datarun.settings import load_settings

    settings = load_settings(folder, kafka=kafka, blobs=blobs, topic_prefix=topic_prefix)
    name = f"{cluster_id(settings.brokers)}/{settings.topic_prefix}"
    with closing(KafkaLog(settings.brokers)) as event_log, bar("backup") as shown:
        source = Source(event_log, open_blobs(settings.blobs), settings.catalogue, name)
        made = take(source, to, told=shown.step)
    print(f"{to}: {sum(part.records for part in made.parts):,} records and {made.blobs:,} blobs, verified")
    if made.missing:
        print(f"{len(made.missing):,} blobs that records name are not in the store:")
        print("\n".join(made.missing[:SHOWN]))
        raise typer.Exit(1)


def restore(
    backup_folder: Annotated[Path, typer.Argument(metavar="FOLDER", exists=True, file_okay=False)],
    *,
    execute: Execute = False,
    folder: Folder = DEFAULT_FOLDER,
    kafka: Kafka = None,
    blobs: Blobs = None,
    topic_prefix: TopicPrefix = None,
) -> None:
    """Fill an installation that has no records yet; without --execute the backup is only verified.

    No service may work on the topics meanwhile. Interrupted or killed, the same command goes on.
    """
    from contextlib import closing

    from datarun.backup.bringing import Target, examine
    from datarun.backup.bringing import restore as bring_back
    from datarun.blobs import open_blobs
    from datarun.cli.bars import bar
    from datarun.log.kafka import KafkaLog
    from datarun.settings import load_settings

    settings = load_settings(folder, kafka=kafka, blobs=blobs, topic_prefix=topic_prefix)
    if not execute:
        with bar("verifying") as shown:
            manifest, named = examine(backup_folder, catalogue=settings.catalogue, told=shown.step)
        print(f"{sum(part.records for part in manifest.parts):,} records and {len(named):,} blobs would go back")
        print("nothing was done: --execute does it")
        return
    with closing(KafkaLog(settings.brokers)) as event_log, bar("restoring") as shown:
        target = Target(settings.brokers, event_log, open_blobs(settings.blobs), settings.catalogue)
        done = bring_back(backup_folder, target, told=shown.step)
    print(f"{done.records:,} records and {done.blobs:,} blobs are back, at their times")
    if done.moved:
        print(f"{done.moved:,} of them have a smaller offset than they had: the log had holes before them")
