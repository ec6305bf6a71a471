"""Servers of a benchmark's own, as `datarun up` starts them, and a live projector between them."""

from __future__ import annotations

import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from psycopg2 import Error
from psycopg2.extensions import connection as Database

from datarun.cli.environment import cache_folder, trust_system_certificates
from datarun.stack.kafka import local_kafka
from datarun.stack.postgres import local_postgres
from datarun.stack.prepare import ensure_kafka
from datarun.stack.process import Command


@contextmanager
def running(command: Command) -> Iterator[None]:
    """Run a server, silently, until the block ends."""
    options = command.popen_options()
    process = subprocess.Popen(command.argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **options)
    try:
        yield
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(30)


@contextmanager
def servers() -> Iterator[tuple[str, str]]:
    """Yield a broker's address and a database's URL, as `datarun up` starts them."""
    trust_system_certificates()
    cache = cache_folder()
    program, template = ensure_kafka(cache)
    with tempfile.TemporaryDirectory(prefix="datarun-bench-") as folder, ExitStack() as stack:
        broker = local_kafka(program, Path(folder) / "kafka")
        broker.folder.mkdir()
        broker.prepare(template)
        database = local_postgres(Path(folder) / "postgres", cache=cache)
        database.prepare()
        stack.enter_context(running(broker.command()))
        stack.enter_context(running(database.command()))
        while not (broker.is_ready() and database.is_ready()):
            time.sleep(0.05)
        yield broker.bootstrap, database.url


@contextmanager
def projector(kafka: str, url: str, prefix: str) -> Iterator[None]:
    """Run the live projector."""
    command = [
        sys.executable,
        "-m",
        "services.projector",
        "--kafka",
        kafka,
        "--postgres",
        url,
        "--topic-prefix",
        prefix,
    ]
    process = subprocess.Popen([*command, "--session-timeout", "2"], stderr=subprocess.DEVNULL)
    try:
        yield
    finally:
        process.terminate()
        process.wait(20)


def projected(database: Database) -> int:
    """Return how many events are projected, 0 while there is no read model."""
    try:
        with database, database.cursor() as cursor:
            cursor.execute("select coalesce(sum(next_offset), 0) from rm.projection_offset")
            [(count,)] = cursor.fetchall()
            return int(count)
    except Error:
        return 0
