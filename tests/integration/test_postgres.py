"""The local Postgres under every identity it can have."""

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import psycopg2
import pytest

from datarun.stack.identity import Identity, RootRefused, drop_to, find_identity
from datarun.stack.postgres import Postgres, PostgresUnusable, local_postgres
from datarun.stack.process import tail

NOBODY = 65534


@contextmanager
def running(server: Postgres, log: Path) -> Iterator[psycopg2.extensions.connection]:
    """Run the server and connect to it."""
    server.prepare()
    command = server.command()
    with log.open("ab") as file:
        process = subprocess.Popen(command.argv, stdout=file, stderr=file, **command.popen_options())
    try:
        deadline = time.monotonic() + 20
        while not server.is_ready():
            assert process.poll() is None, tail(log)
            assert time.monotonic() < deadline
            time.sleep(0.02)
        connection = psycopg2.connect(server.url.replace("+psycopg2", ""))
        yield connection
        connection.close()
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(20)


@pytest.fixture
def server(servers: Path, cache: Path, request: pytest.FixtureRequest) -> Postgres:
    """Return a server that is not started, in a folder of its own that anyone may search."""
    servers.chmod(0o755)
    return local_postgres(servers / request.node.name, cache=cache, durable=False)


def value(connection: psycopg2.extensions.connection, statement: str) -> object:
    """Return the one value a statement gives, having committed it."""
    with connection, connection.cursor() as cursor:
        cursor.execute(statement)
        row = cursor.fetchone()
        return row and row[0]


def test_it_speaks_by_a_socket_that_only_we_reach(server: Postgres, tmp_path: Path) -> None:
    """No TCP port is opened, and the folder is closed to others."""
    with running(server, tmp_path / "log") as connection:
        assert value(connection, "show listen_addresses") == ""
        assert server.folder.stat().st_mode & 0o077 == 0
        assert server.folder.stat().st_uid == os.geteuid()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has another identity to take")
def test_where_namespaces_are_closed_another_user_gets_the_folder(server: Postgres, tmp_path: Path) -> None:
    """The data survives a change of identity in both directions."""
    own = server.identity
    dropped = replace(server, identity=Identity(drop_to(NOBODY, NOBODY), owner_uid=NOBODY))
    with running(server, tmp_path / "log") as connection:
        value(connection, "create table kept as select 42 as number; select 1")
    for identity in (dropped, replace(server, identity=own)):
        with running(identity, tmp_path / "log") as connection:
            assert value(connection, "select number from kept") == 42
        assert server.folder.stat().st_uid == (NOBODY if identity is dropped else 0)


def test_a_killed_server_starts_again_over_what_it_left(server: Postgres, tmp_path: Path) -> None:
    """Its pid may belong to another process by then."""
    with running(server, tmp_path / "log") as connection:
        value(connection, "create table kept as select 42 as number; select 1")
    for name in ("postmaster.pid", ".s.PGSQL.5432.lock"):
        (server.folder / name).write_text(f"{os.getpid()}\n{server.folder}\n0\n5432\n{server.folder}\n\n")
    with running(server, tmp_path / "log") as connection:
        assert value(connection, "select number from kept") == 42


@pytest.mark.skipif(os.geteuid() != 0, reason="only root needs another identity")
def test_a_program_that_cannot_run_is_named(tmp_path: Path) -> None:
    """The error says what to do instead."""
    with pytest.raises(RootRefused, match="--postgres URL"):
        find_identity(tmp_path / "postgres")


def test_a_path_too_long_everywhere_is_refused(tmp_path: Path) -> None:
    """Neither the folder nor the cache can hold the socket."""
    with pytest.raises(PostgresUnusable, match="shorter"):
        local_postgres(tmp_path / ("x" * 120), cache=tmp_path / ("y" * 120))
