"""Which log and database a command works on, and what it says when they do not answer."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import psycopg2

from datarun.db import connect
from datarun.errors import DatabaseUnavailable
from datarun.log.kafka import KafkaLog
from datarun.projection.share import Ground
from datarun.settings import load_settings


def ground(folder: Path, kafka: str | None, postgres: str | None, topic_prefix: str | None, *, schema: str) -> Ground:
    """Return the servers that the options, the environment or the folder name; raises DatarunError."""
    settings = load_settings(folder, kafka=kafka, postgres_url=postgres, topic_prefix=topic_prefix)
    return Ground(partial(KafkaLog, settings.brokers), partial(connect, settings.postgres), settings.catalogue, schema)


@contextmanager
def database_errors() -> Iterator[None]:
    """Raise DatabaseUnavailable, which the command line knows, for what psycopg2 raises."""
    try:
        yield
    except psycopg2.OperationalError as error:
        raise DatabaseUnavailable(f"the database did not answer: {error}".strip()) from error
