"""What a test may ask for: one real Kafka and one real Postgres for the whole session, started when first asked for."""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

from datarun.cli.environment import cache_folder, trust_system_certificates
from datarun.stack.kafka import Kafka, local_kafka
from datarun.stack.ports import free_ports
from datarun.stack.postgres import Postgres, local_postgres
from datarun.stack.prepare import ensure_kafka
from datarun.stack.process import Command, open_log, tail
from tests.brokers import add_settings
from tests.tls import SecureListener, add_listener, add_user, ensure_certificate

READY_SECONDS = 60


@pytest.fixture(scope="session")
def cache() -> Path:
    """Return the folder that holds Kafka's jars and archives between sessions."""
    trust_system_certificates()
    return cache_folder()


@pytest.fixture(scope="session")
def servers() -> Iterator[Path]:
    """Return a folder for the session's servers, with a path short enough for a Unix socket."""
    with tempfile.TemporaryDirectory(prefix="datarun-test-") as folder:
        yield Path(folder)


@pytest.fixture(scope="session")
def broker(cache: Path, servers: Path) -> Iterator[tuple[Kafka, SecureListener]]:
    """Run the session's one real broker, with a listener that asks for no proof and one that does."""
    program, template = ensure_kafka(cache)
    found = local_kafka(program, servers / "kafka")
    found.folder.mkdir()
    found.prepare(template)
    listener = SecureListener(free_ports(1)[0], ensure_certificate(program.java, cache) / "ca.pem")
    add_listener(found, listener)
    # A machine may stand still for seconds; what a broker does that is taken for dead then has tests of its own.
    add_settings(found, {"broker.session.timeout.ms": "60000"})
    with _running(found.command(), servers / "kafka.log", found.is_ready, signal.SIGTERM):
        yield found, listener


@pytest.fixture(scope="session")
def kafka(broker: tuple[Kafka, SecureListener]) -> str:
    """Return where the session's one broker is; give every test's topics a `topic_prefix`."""
    return broker[0].bootstrap


@pytest.fixture(scope="session")
def secure_kafka(broker: tuple[Kafka, SecureListener]) -> SecureListener:
    """Return the same broker's listener that asks for TLS and a password."""
    add_user(broker[0].bootstrap)
    return broker[1]


@pytest.fixture(scope="session")
def postgres(cache: Path, servers: Path) -> Iterator[Postgres]:
    """Run the session's one Postgres server."""
    server = local_postgres(servers / "postgres", cache=cache, durable=False)
    server.prepare()
    with _running(server.command(), servers / "postgres.log", server.is_ready, signal.SIGINT):
        yield server


@pytest.fixture(scope="session")
def migrated(postgres: Postgres) -> str:
    """Return the name of a database on which every migration ran: the template of each test's own."""
    from datarun.db import upgrade

    name = "migrated"
    _execute(postgres, f"create database {name}")
    upgrade(postgres.url_of(name))
    return name


@pytest.fixture(scope="session")
def fresh_database(postgres: Postgres, migrated: str) -> Callable[[], AbstractContextManager[str]]:
    """Return what makes a fresh, migrated database for a block of code; several threads may call it."""
    one_at_a_time = threading.Lock()

    @contextmanager
    def database() -> Iterator[str]:
        name = f"test_{uuid.uuid4().hex[:12]}"
        with one_at_a_time:
            _execute(postgres, f"create database {name} template {migrated} strategy file_copy")
        yield postgres.url_of(name)
        _execute(postgres, f"drop database {name} with (force)")

    return database


@pytest.fixture
def postgres_url(fresh_database: Callable[[], AbstractContextManager[str]]) -> Iterator[str]:
    """Make a fresh, migrated database, and drop it after the test."""
    with fresh_database() as url:
        yield url


@pytest.fixture(scope="module")
def module_postgres_url(fresh_database: Callable[[], AbstractContextManager[str]]) -> Iterator[str]:
    """Make a fresh, migrated database for all tests of a module."""
    with fresh_database() as url:
        yield url


@pytest.fixture
def topic_prefix() -> str:
    """Return a prefix that makes a test's topics its own, such as `t3f9a2c.`."""
    return f"t{uuid.uuid4().hex[:8]}."


@pytest.fixture
def blobs_url(tmp_path: Path) -> str:
    """Return the URL of an empty blob folder."""
    folder = tmp_path / "blobs"
    folder.mkdir()
    return folder.as_uri()


def _execute(server: Postgres, statement: str) -> None:
    import psycopg2

    connection = psycopg2.connect(f"postgresql://postgres@/postgres?host={server.socket_folder}")
    connection.autocommit = True
    with connection.cursor() as cursor:
        cursor.execute(statement)
    connection.close()


@contextmanager
def _running(command: Command, log: Path, is_ready: Callable[[], bool], stop: signal.Signals) -> Iterator[None]:
    descriptor = open_log(log)
    with subprocess.Popen(command.argv, stdout=descriptor, stderr=descriptor, **command.popen_options()) as process:
        os.close(descriptor)
        try:
            deadline = time.monotonic() + READY_SECONDS
            while not is_ready():
                assert process.poll() is None, tail(log)
                assert time.monotonic() < deadline, tail(log)
                time.sleep(0.02)
            yield
        finally:
            process.send_signal(stop)
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
