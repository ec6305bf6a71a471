"""`datarun topics`: the topics of the catalogue."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from datarun.cli.options import DEFAULT_FOLDER, Folder

if TYPE_CHECKING:
    from datarun.log.brokers import Brokers

DEFAULT_PREFIX = "datarun."

app = typer.Typer(help="The topics of the event log.", no_args_is_help=True)


@app.callback()
def topics() -> None:
    """Work on the topics of the event log."""


@app.command()
def create(
    *,
    folder: Folder = DEFAULT_FOLDER,
    kafka: Annotated[str | None, typer.Option(metavar="HOST:PORT", help="The broker, instead of the folder's.")] = None,
    topic_prefix: Annotated[str, typer.Option(help="What the topics' names begin with.")] = DEFAULT_PREFIX,
) -> None:
    """Make the topics that are missing and set the share groups' configuration; refuse those that differ."""
    from datarun.log.admin import create_topics

    made = create_topics(_brokers(folder, kafka), prefix=topic_prefix)
    print("\n".join(made) if made else "every topic exists")


@app.command()
def check(
    *,
    folder: Folder = DEFAULT_FOLDER,
    kafka: Annotated[str | None, typer.Option(metavar="HOST:PORT", help="The broker, instead of the folder's.")] = None,
    topic_prefix: Annotated[str, typer.Option(help="What the topics' names begin with.")] = DEFAULT_PREFIX,
) -> None:
    """Compare topics, share groups, and the last records' keys and partitions, with the catalogue; 1 if they differ."""
    from contextlib import closing

    from datarun.log.admin import topic_differences
    from datarun.log.differences import missing, other_producers
    from datarun.log.kafka import KafkaLog
    from datarun.topics import TOPICS, Catalogue

    brokers, catalogue = _brokers(folder, kafka), Catalogue(topic_prefix)
    found = topic_differences(brokers, prefix=topic_prefix)
    if not {missing(catalogue.full_name(topic)) for topic in TOPICS} & set(found):
        with closing(KafkaLog(brokers)) as event_log:
            found += other_producers(event_log, catalogue)
    for one in found:
        print(f"{one.what}\n    {one.remedy}")
    if found:
        raise typer.Exit(1)
    print(f"the topics of {topic_prefix}* and their share groups are as declared")


def _brokers(folder: Path, kafka: str | None) -> Brokers:
    from datarun.log.brokers import Brokers
    from datarun.settings import kafka_security
    from datarun.stack.connection import Connection

    return Brokers(kafka or Connection.load(folder).kafka, kafka_security())
