"""The read model as it is in Postgres, in the shape of `tests.histories.tables`."""

from __future__ import annotations

from typing import Any

from psycopg2.extensions import connection as Connection
from psycopg2.extras import RealDictCursor

from tests.histories import Tables

KEYS = {
    "fold": ("fold_id",),
    "dataset": ("raw_data_id",),
    "submission": ("submission_id",),
    "runner": ("runner_id",),
    "dead_letter": ("topic", "partition", "offset"),
}


def dump(connection: Connection, *, schema: str = "rm") -> Tables:
    """Return every row of every table but the offsets."""
    with connection, connection.cursor(cursor_factory=RealDictCursor) as cursor:
        found: Tables = {}
        for table, keys in KEYS.items():
            cursor.execute(f'select * from "{schema}".{table}')  # noqa: S608 - a test's own names
            rows = [{name: _plain(value) for name, value in row.items()} for row in cursor.fetchall()]
            found[table] = {row[keys[0]] if len(keys) == 1 else tuple(row[key] for key in keys): row for row in rows}
    return found


def _plain(value: Any) -> Any:
    return rf"\x{bytes(value).hex()}" if isinstance(value, memoryview) else value
