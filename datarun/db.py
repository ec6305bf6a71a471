"""Postgres: one engine factory, one way to psycopg2, one upgrade to the newest schema."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import psycopg2
from psycopg2.extensions import connection as Connection

from datarun import migrations, readmodel

if TYPE_CHECKING:
    from sqlalchemy import Engine

DRIVER = "postgresql+psycopg2://"


def engine(url: str, *, pool_size: int = 8) -> Engine:
    """Return an engine; a connection that died is noticed before it is used."""
    from sqlalchemy import create_engine  # noqa: PLC0415 - a third of a second that a projector has no use for

    return create_engine(_driver_url(url), pool_size=pool_size, max_overflow=0, pool_pre_ping=True, pool_timeout=5)


def connect(
    url: str, *, application: str = "datarun", idle_seconds: float | None = None, settings: Sequence[str] = ()
) -> Connection:
    """Return a psycopg2 connection; raises psycopg2.OperationalError when Postgres does not answer in 5 s.

    With `idle_seconds` a process that is stopped in a transaction loses it, and its locks, after so long. `settings`
    are the server's, `name=value`, for this connection.
    """
    # libpq knows the same URL without a driver's name.
    dsn = "postgresql://" + url.partition("://")[2]
    limit = () if idle_seconds is None else (f"idle_in_transaction_session_timeout={int(idle_seconds * 1000)}",)
    options = " ".join(f"-c {setting}" for setting in (*limit, *settings))
    return psycopg2.connect(dsn, connect_timeout=5, application_name=application, options=options)


def upgrade(url: str) -> None:
    """Bring the intake schema to its newest version and make the read model if it is missing or of another version.

    A read model of another version gives way to one that was rebuilt beside it; without such a one it is dropped, and
    its offsets with it, so that the projector makes it again from the log.
    """
    connection = connect(url, application="datarun-upgrade")
    try:
        # Two services may start at once; the lock is the session's, so a crash frees it.
        with connection.cursor() as cursor:
            cursor.execute("select pg_advisory_lock(hashtext('datarun.upgrade'))")
        connection.commit()
        intake, read_model = _versions(connection)
        if intake != migrations.HEAD:
            _migrate(url)
        if read_model != readmodel.VERSION:
            _remake_read_model(connection)
        connection.commit()
    finally:
        connection.close()


def outdated(url: str) -> str:
    """Return what of the tables is of another version than this program, "" for none; raises psycopg2.Error."""
    connection = connect(url, application="datarun-doctor")
    try:
        intake, read_model = _versions(connection)
    finally:
        connection.close()
    found = (("intake", intake, migrations.HEAD), ("rm", read_model, readmodel.VERSION))
    return "; ".join(f"{schema} is at {seen or 'nothing'}, not {due}" for schema, seen, due in found if seen != due)


def _versions(connection: Connection) -> tuple[str | None, str | None]:
    with connection.cursor() as cursor:
        cursor.execute(
            "select to_regclass('intake.alembic_version'), obj_description(to_regnamespace('rm'), 'pg_namespace')"
        )
        table, read_model = cursor.fetchone() or (None, None)
        if table is None:
            return None, read_model
        cursor.execute("select version_num from intake.alembic_version")
        (intake,) = cursor.fetchone() or (None,)
    return intake, read_model


def _migrate(url: str) -> None:
    from alembic import command  # noqa: PLC0415 - half a second that only an upgrade pays
    from alembic.config import Config  # noqa: PLC0415

    config = Config()
    config.set_main_option("script_location", "datarun:migrations")
    upgrading = engine(url, pool_size=1)
    with upgrading.begin() as opened:
        config.attributes["connection"] = opened
        command.upgrade(config, "head")
    upgrading.dispose()


def _remake_read_model(connection: Connection) -> None:
    from datarun.readmodel import schema  # noqa: PLC0415 - needs SQLAlchemy

    if schema.version_of(connection, readmodel.NEXT) == readmodel.VERSION:
        schema.put_in_place(connection, readmodel.NEXT, kept_as=readmodel.OLD)
    else:
        schema.drop_read_model(connection, schema=readmodel.SCHEMA)
        schema.create_read_model(connection)


def _driver_url(url: str) -> str:
    # SQLAlchemy 2.1 reads a bare postgresql:// as psycopg 3.
    return DRIVER + url.removeprefix("postgresql://") if url.startswith("postgresql://") else url
