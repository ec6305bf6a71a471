"""Whether two read models say the same: a checksum a table, whatever the order of its rows."""

from __future__ import annotations

from typing import NamedTuple

from psycopg2.extensions import cursor as Cursor

from datarun.projection.statements import in_schema
from datarun.topics import RUNNER_STATUS, Catalogue

_CHECKSUM = 'select count(*), coalesce(sum(hashtextextended(kept::text, 0)), 0)::text from "{schema}".{table} as kept'
_NOT_OF_TOPIC = " where topic <> %s"
COMPARED = ("dataset", "submission", "fold", "dead_letter")
"""Tables the log can always make anew; of runners it remembers only the last hour."""


class Checksum(NamedTuple):
    """How many rows a table has, and a sum over all of them."""

    rows: int
    total: str


def checksums(cursor: Cursor, *, schema: str, catalogue: Catalogue) -> dict[str, Checksum]:
    """Return the checksum of every table that a rebuild must reproduce."""
    found = {}
    for table in COMPARED:
        statement = in_schema(_CHECKSUM.replace("{table}", table), schema)
        if table == "dead_letter":
            cursor.execute(statement + _NOT_OF_TOPIC, (catalogue.full_name(RUNNER_STATUS),))
        else:
            cursor.execute(statement)
        found[table] = Checksum(*(cursor.fetchone() or (0, "0")))
    return found
