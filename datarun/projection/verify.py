"""Whether a rebuilt read model says the same as the live one, at equal offsets while the live projection goes on.

A snapshot of the live one is held still, and the rebuilt one is brought to exactly that snapshot's offsets.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from psycopg2.extensions import connection as Connection

from datarun.log import TopicPartition
from datarun.projection.compare import Checksum, Difference, checksums, differences
from datarun.projection.offsets import Offsets, read_offsets
from datarun.projection.rebuild import Rebuild
from datarun.readmodel import SCHEMA, VERSION
from datarun.readmodel.schema import version_of


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a comparison came to; `live` is None where there was nothing to compare with."""

    rebuilt: dict[str, Checksum]
    live: dict[str, Checksum] | None = None
    ahead: tuple[TopicPartition, ...] = ()
    """Where the rebuilt schema is past the live one, so that they cannot be compared."""

    @property
    def equal(self) -> bool:
        """Whether nothing speaks against the rebuilt read model."""
        return not self.ahead and self.live in (None, self.rebuilt)


@dataclass(frozen=True, slots=True)
class _Level:
    """Two connections that see both read models at equal offsets; `live` is None without a comparable one."""

    rebuilt: Connection
    live: Connection | None
    ahead: tuple[TopicPartition, ...]


def verify(rebuild: Rebuild) -> Verdict:
    """Compare the checksums of every table; raises UnderWay, NotBuilt, and what a rebuild raises."""
    with rebuild.alone() as connection:
        return verify_alone(rebuild, connection)


def verify_alone(rebuild: Rebuild, connection: Connection) -> Verdict:
    """Do the same on the connection that keeps others from the read models."""
    schema, catalogue = rebuild.ground.schema, rebuild.ground.catalogue
    with _level(rebuild, connection) as level, connection, connection.cursor() as cursor:
        rebuilt = checksums(cursor, schema=schema, catalogue=catalogue)
        if level.live is None:
            return Verdict(rebuilt)
        with level.live.cursor() as live:
            return Verdict(rebuilt, checksums(live, schema=SCHEMA, catalogue=catalogue), level.ahead)


def differ(rebuild: Rebuild, *, limit: int) -> list[Difference]:
    """Return the first rows of every table that differ; raises UnderWay, NotBuilt, and what a rebuild raises."""
    with rebuild.alone() as connection, _level(rebuild, connection) as level, connection:
        if level.live is None:
            return []
        ground = rebuild.ground
        return differences(level.live, connection, schema=ground.schema, catalogue=ground.catalogue, limit=limit)


@contextmanager
def _level(rebuild: Rebuild, connection: Connection) -> Iterator[_Level]:
    with connection:
        rebuild.check_built(connection)
    live = rebuild.ground.open_database()
    try:
        # First near it, so that the snapshot need not wait long for the rest.
        rebuild.bring_to(connection, _snapshot(live))
        goal = _snapshot(live)
        reached = rebuild.bring_to(connection, goal)
        ahead = tuple(tp for tp, offset in goal.items() if reached[tp] != offset)
        is_comparable = any(goal.values()) and version_of(live, SCHEMA) == VERSION
        yield _Level(connection, live if is_comparable else None, ahead if is_comparable else ())
    finally:
        live.close()


def _snapshot(live: Connection) -> Offsets:
    """Return the live read model's offsets in a new snapshot that stays; none if there is no live read model."""
    live.rollback()
    live.set_session(isolation_level="REPEATABLE READ", readonly=True)
    with live.cursor() as cursor:
        return read_offsets(cursor, schema=SCHEMA) if version_of(live, SCHEMA) else {}
