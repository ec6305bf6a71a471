"""Makes the read model's tables, in the live schema or in another one for a rebuild."""

from __future__ import annotations

from psycopg2.extensions import connection as Connection
from psycopg2.sql import SQL, Identifier
from sqlalchemy import MetaData
from sqlalchemy.dialects import postgresql
from sqlalchemy.schema import CreateIndex, CreateTable, DDLElement

from datarun.readmodel import SCHEMA, VERSION
from datarun.readmodel.tables import metadata


def create_read_model(connection: Connection, *, schema: str = SCHEMA) -> None:
    """Make schema, tables and indexes where they are missing; the caller commits."""
    with connection.cursor() as cursor:
        cursor.execute(SQL("create schema if not exists {}").format(Identifier(schema)))
        for statement in _statements(schema):
            cursor.execute(statement)
        cursor.execute(SQL("comment on schema {} is %s").format(Identifier(schema)), (VERSION,))


def drop_read_model(connection: Connection, *, schema: str) -> None:
    """Drop a schema with all its tables; the caller commits."""
    with connection.cursor() as cursor:
        cursor.execute(SQL("drop schema if exists {} cascade").format(Identifier(schema)))


def _statements(schema: str) -> list[str]:
    elsewhere = MetaData(schema=schema)
    for table in metadata.sorted_tables:
        table.to_metadata(elsewhere, schema=schema)
    dialect = postgresql.dialect()  # type: ignore[no-untyped-call]
    tables: list[DDLElement] = [CreateTable(table, if_not_exists=True) for table in elsewhere.sorted_tables]
    indexes: list[DDLElement] = [
        CreateIndex(index, if_not_exists=True) for table in elsewhere.sorted_tables for index in table.indexes
    ]
    return [str(create.compile(dialect=dialect)) for create in (*tables, *indexes)]
