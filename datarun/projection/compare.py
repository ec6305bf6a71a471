"""What two read models say: a checksum a table whatever the order of its rows, and the rows that differ, explained."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any, NamedTuple

from psycopg2.extensions import connection as Connection
from psycopg2.extensions import cursor as Cursor
from psycopg2.extras import RealDictCursor

from datarun.projection.statements import ALL, in_schema
from datarun.readmodel import SCHEMA
from datarun.topics import RUNNER_STATUS, Catalogue

_CHECKSUM = 'select count(*), coalesce(sum(hashtextextended(kept::text, 0)), 0)::text from "{schema}".{table} as kept'
_HASHES = 'select {key}, hashtextextended(kept::text, 0) from "{schema}".{table} as kept'
_REMEMBERED = {"dead_letter": " where topic <> %(forgetful)s"}
_ROW = 'select * from "{schema}".{table} where ({key}) = %s'
_KEYS = {
    "dataset": ("raw_data_id",),
    "submission": ("submission_id",),
    "fold": ("fold_id",),
    "dead_letter": ('topic collate "C"', "partition", '"offset"'),
}
COMPARED = tuple(_KEYS)
"""Tables the log can always make anew; of runners it remembers only the last hour."""
_ROWS_A_TRIP = 10_000

Key = tuple[Any, ...]
Row = dict[str, Any]


class Checksum(NamedTuple):
    """How many rows a table has, and a sum over all of them."""

    rows: int
    total: str


@dataclass(frozen=True, slots=True)
class Difference:
    """A row that only one of two read models has, or the columns in which its two forms differ."""

    table: str
    key: Key
    columns: dict[str, tuple[Any, Any]]
    """Name -> live and rebuilt value; none for a row that one of the two lacks."""
    why: str


def checksums(cursor: Cursor, *, schema: str, catalogue: Catalogue) -> dict[str, Checksum]:
    """Return the checksum of every table that a rebuild must reproduce."""
    found = {}
    for table in COMPARED:
        statement = _in_table(_CHECKSUM, table, schema) + _REMEMBERED.get(table, "")
        cursor.execute(statement, {"forgetful": catalogue.full_name(RUNNER_STATUS)})
        found[table] = Checksum(*(cursor.fetchone() or (0, "0")))
    return found


def differences(
    live: Connection, rebuilt: Connection, *, schema: str, catalogue: Catalogue, limit: int
) -> list[Difference]:
    """Return the first rows of every table that are not the same in the live read model and a rebuilt one."""
    found: list[Difference] = []
    for table in COMPARED:
        unequal = _unequal(_hashes(live, table, SCHEMA, catalogue), _hashes(rebuilt, table, schema, catalogue))
        found += [
            _difference(table, key, _row(live, table, SCHEMA, key), _row(rebuilt, table, schema, key))
            for key in islice(unequal, limit)
        ]
    return found


def _hashes(connection: Connection, table: str, schema: str, catalogue: Catalogue) -> Iterator[tuple[Key, int]]:
    keys = _KEYS[table]
    statement = _in_table(f"{_HASHES}{_REMEMBERED.get(table, '')} order by {{key}}", table, schema)
    with connection.cursor(name=f"datarun_{table}") as cursor:
        cursor.itersize = _ROWS_A_TRIP
        cursor.execute(statement, {"forgetful": catalogue.full_name(RUNNER_STATUS)})
        for row in cursor:
            yield row[: len(keys)], row[-1]


def _unequal(live: Iterator[tuple[Key, int]], rebuilt: Iterator[tuple[Key, int]]) -> Iterator[Key]:
    """Yield, of two sequences ordered by key, the keys that are not in both with the same hash."""
    left, right = next(live, None), next(rebuilt, None)
    while left is not None or right is not None:
        if right is None or (left is not None and left[0] < right[0]):
            key, left = left[0] if left else (), next(live, None)
            yield key
        elif left is None or right[0] < left[0]:
            key, right = right[0], next(rebuilt, None)
            yield key
        else:
            if left[1] != right[1]:
                yield left[0]
            left, right = next(live, None), next(rebuilt, None)


def _row(connection: Connection, table: str, schema: str, key: Key) -> Row | None:
    with connection.cursor(cursor_factory=RealDictCursor) as cursor:
        cursor.execute(_in_table(_ROW, table, schema), (key,))
        row = cursor.fetchone()
        return row and {name: bytes(value) if isinstance(value, memoryview) else value for name, value in row.items()}


def _difference(table: str, key: Key, live: Row | None, rebuilt: Row | None) -> Difference:
    if rebuilt is None:
        return Difference(table, key, {}, "only the live read model has it: no event of the log says so")
    if live is None:
        return Difference(table, key, {}, "the live read model lacks what the log says")
    columns = {name: (value, rebuilt[name]) for name, value in live.items() if value != rebuilt[name]}
    return Difference(table, key, columns, f"{', '.join(_sources(table, columns))} of the log say otherwise")


def _sources(table: str, columns: Iterable[str]) -> list[str]:
    """Return the events that fill these columns."""
    changed = set(columns)
    filled = [
        register for register in ALL if register.table == table and changed & {*register.columns, *register.shared}
    ]
    return list(dict.fromkeys(event for register in filled for event in register.events)) or ["a record"]


def _in_table(statement: str, table: str, schema: str) -> str:
    return in_schema(statement.replace("{table}", table).replace("{key}", ", ".join(_KEYS[table])), schema)
