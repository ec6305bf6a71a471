"""The migrations and the tables that the code declares are one and the same."""

from __future__ import annotations

from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.runtime.migration import MigrationContext

from datarun.db import engine, upgrade
from datarun.intake.tables import metadata
from tests.gateways import query

TABLES = "select count(*) from information_schema.tables where table_schema = 'intake'"


def test_migrations_make_what_is_declared(postgres_url: str) -> None:
    """After all migrations nothing is left to migrate."""
    with engine(postgres_url).connect() as connection:
        context = MigrationContext.configure(
            connection,
            opts={
                "include_schemas": True,
                "version_table_schema": "intake",
                "include_name": lambda name, kind, _: kind != "schema" or name == "intake",
            },
        )
        assert compare_metadata(context, metadata) == []


def test_upgrading_twice_and_going_back(postgres_url: str) -> None:
    """A second upgrade changes nothing; a downgrade leaves only the version table, and the way forward is open."""
    before = query(postgres_url, TABLES)
    upgrade(postgres_url)
    assert query(postgres_url, TABLES) == before
    config = Config()
    config.set_main_option("script_location", "datarun:migrations")
    with engine(postgres_url).begin() as connection:
        config.attributes["connection"] = connection
        command.downgrade(config, "base")
    assert query(postgres_url, TABLES) == [(1,)]
    upgrade(postgres_url)
    assert query(postgres_url, TABLES) == before
