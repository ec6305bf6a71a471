"""The projector's dead letters and the orphans, told apart by what the log says was decided about them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from psycopg2.extensions import cursor as Cursor
from psycopg2.sql import SQL, Identifier

from datarun.log import Position
from datarun.readmodel import SCHEMA, orphans
from datarun.readmodel.orphans import Patience

SHOWN_BYTES = 2000


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
_COUNT_ORPHANS = f"""
    select count(*) from {orphans.OVERDUE}
      and {orphans.PLACE} not in (select * from {_DECIDED} union all select * from {_OTHERS})"""  # noqa: S608 - constants


def _wanted(place: str) -> str:
    return f"""{place} > (%(topic)s, %(partition)s, %(offset)s)
        and (%(is_decided)s is null or %(is_decided)s = ({place} in (select * from {_DECIDED})))"""  # noqa: S608 - constants


_PLACE = '(topic, partition, "offset")'
_REFUSED = f"""
    select topic, partition, "offset", reason, detail, substr(key, 1, %(most)s), substr(value, 1, %(most)s),
        length(value), headers
    from {{schema}}.dead_letter where {_wanted(_PLACE)} order by 1, 2, 3 limit %(limit)s"""  # noqa: S608 - constants
_ORPHANS = f"""
    select {orphans.COLUMNS} from {orphans.OVERDUE} and {_wanted(orphans.PLACE)}
    order by run_partition, run_offset limit %(limit)s"""  # noqa: S608 - constants
_LIST = f"({_REFUSED}) union all ({_ORPHANS}) order by 1, 2, 3 limit %(limit)s"


def count_open(
    cursor: Cursor,
    *,
    decided: Sequence[Position],
    others: Sequence[Position],
    patience: Patience | None,
    schema: str = SCHEMA,
) -> int:
    """Return how many of the table and of the orphans nobody has decided about, and how many of the others are new.

    Without patience, which tables of another version have none for, there are no orphans.
    """
    values = {**_columns("decided", decided), **_columns("others", others)}
    cursor.execute(SQL(_COUNT).format(schema=Identifier(schema)), values)
    count = int((cursor.fetchone() or (0,))[0])
    if patience is not None:
        cursor.execute(SQL(_COUNT_ORPHANS).format(schema=Identifier(schema)), {**values, **patience.values()})
        count += int((cursor.fetchone() or (0,))[0])
    return count


def list_letters(
    cursor: Cursor,
    *,
    after: Position,
    limit: int,
    patience: Patience,
    decided: Sequence[Position] = (),
    is_decided: bool | None = None,
) -> list[ListedLetter]:
    """Return the letters that follow a position, with their first bytes: all, the decided ones or the others."""
    values = {**after._asdict(), "limit": limit, "most": SHOWN_BYTES, "is_decided": is_decided}
    statement = SQL(_LIST).format(schema=Identifier(SCHEMA))
    cursor.execute(statement, {**values, **_columns("decided", decided), **patience.values()})
    return [
        ListedLetter(Position(*row[:3]), row[3], row[4], _bytes(row[5]), _bytes(row[6]), row[7] or 0, row[8])
        for row in cursor.fetchall()
    ]


def _columns(name: str, positions: Sequence[Position]) -> dict[str, list[Any]]:
    topics, partitions, offsets = zip(*positions, strict=True) if positions else ((), (), ())
    return {f"{name}_topics": list(topics), f"{name}_partitions": list(partitions), f"{name}_offsets": list(offsets)}


def _bytes(value: memoryview | None) -> bytes | None:
    return None if value is None else bytes(value)
