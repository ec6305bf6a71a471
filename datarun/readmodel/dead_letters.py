"""The projector's dead letters, told apart by what the log says was decided about them, over a cursor."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from psycopg2.extensions import cursor as Cursor
from psycopg2.sql import SQL, Identifier

from datarun.log import Position
from datarun.readmodel import SCHEMA


@dataclass(frozen=True, slots=True)
class ListedLetter:
    """A record that can never be applied."""

    position: Position
    reason: str
    detail: str
    key: bytes | None
    value: bytes | None
    size: int
    headers: list[list[str | None]]


_GIVEN = "unnest(%({name}_topics)s::text[], %({name}_partitions)s::integer[], %({name}_offsets)s::bigint[])"
_DECIDED, _OTHERS = _GIVEN.format(name="decided"), _GIVEN.format(name="others")
_COUNT = f"""
    select (
        select count(*) from {{schema}}.dead_letter
        where (topic, partition, "offset") not in (select * from {_DECIDED})
    ) + (
        select count(*) from {_OTHERS} as found (topic, partition, "offset")
        where not exists (
            select from {{schema}}.dead_letter kept
            where (kept.topic, kept.partition, kept."offset") = (found.topic, found.partition, found."offset"))
    )"""  # noqa: S608 - constants
_LIST = f"""
    select topic, partition, "offset", reason, detail, substr(key, 1, %(most)s), substr(value, 1, %(most)s),
        coalesce(length(value), 0), headers
    from rm.dead_letter
    where (topic, partition, "offset") > (%(topic)s, %(partition)s, %(offset)s)
      and (%(is_decided)s is null or %(is_decided)s = ((topic, partition, "offset") in (select * from {_DECIDED})))
    order by topic, partition, "offset" limit %(limit)s"""  # noqa: S608 - constants


def count_open(cursor: Cursor, *, decided: Sequence[Position], others: Sequence[Position], schema: str = SCHEMA) -> int:
    """Return how many of the table nobody has decided about, and of the others how many are not in the table."""
    values = {**_columns("decided", decided), **_columns("others", others)}
    cursor.execute(SQL(_COUNT).format(schema=Identifier(schema)), values)
    return int((cursor.fetchone() or (0,))[0])


def list_letters(
    cursor: Cursor,
    *,
    after: Position,
    limit: int,
    most_bytes: int,
    decided: Sequence[Position] = (),
    is_decided: bool | None = None,
) -> list[ListedLetter]:
    """Return the letters that follow a position, of their values so many bytes: all, the decided ones or the others."""
    values = {**after._asdict(), "limit": limit, "most": most_bytes, "is_decided": is_decided}
    cursor.execute(_LIST, {**values, **_columns("decided", decided)})
    return [
        ListedLetter(Position(*row[:3]), row[3], row[4], _bytes(row[5]), _bytes(row[6]), row[7], row[8])
        for row in cursor.fetchall()
    ]


def _columns(name: str, positions: Sequence[Position]) -> dict[str, list[Any]]:
    topics, partitions, offsets = zip(*positions, strict=True) if positions else ((), (), ())
    return {f"{name}_topics": list(topics), f"{name}_partitions": list(partitions), f"{name}_offsets": list(offsets)}


def _bytes(value: memoryview | None) -> bytes | None:
    return None if value is None else bytes(value)
