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


def version_of(connection: Connection, schema: str) -> str | None:
    """Return the version of a schema's tables, None if it is not there; the caller ends the transaction."""
    with connection.cursor() as cursor:
        cursor.execute("select obj_description(to_regnamespace(%s), 'pg_namespace')", (schema,))
        row = cursor.fetchone()
    return None if row is None or row[0] is None else str(row[0])


def drop_read_model(connection: Connection, *, schema: str) -> None:
    """Drop a schema with all its tables; the caller commits."""
    with connection.cursor() as cursor:
        cursor.execute(SQL("drop schema if exists {} cascade").format(Identifier(schema)))


def put_in_place(connection: Connection, schema: str, *, kept_as: str) -> None:
    """Give a schema the live one's name and that one another, whose former bearer is dropped; the caller commits."""
    live, next_, kept = Identifier(SCHEMA), Identifier(schema), Identifier(kept_as)
    with connection.cursor() as cursor:
        if version_of(connection, SCHEMA) is not None:
            cursor.execute(SQL("drop schema if exists {} cascade").format(kept))
            cursor.execute(SQL("alter schema {} rename to {}").format(live, kept))
        cursor.execute(SQL("alter schema {} rename to {}").format(next_, live))


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
