"""What is there of the read models: the live one, the one being rebuilt and the one kept for a way back."""

from __future__ import annotations

from dataclasses import dataclass

from psycopg2.extensions import connection as Connection

from datarun.dead_letters.ledger import Ledger, patience
from datarun.log import EventLog
from datarun.projection.offsets import read_offsets
from datarun.projection.statements import in_schema
from datarun.readmodel import NEXT, OLD, SCHEMA, VERSION
from datarun.readmodel.dead_letters import count_open
from datarun.readmodel.orphans import PATIENCE_SECONDS
from datarun.readmodel.schema import version_of
from datarun.topics import PROJECTED, Catalogue, Kind

_ROWS = """
select (select count(*) from "{schema}".fold where request_attempt > 0), (select count(*) from "{schema}".dataset),
       pg_size_pretty(sum(pg_total_relation_size(oid)))
from pg_class where relnamespace = '"{schema}"'::regnamespace and relkind = 'r'
"""


@dataclass(frozen=True, slots=True)
class Status:
    """One read model: what it holds and how many events of the log it has not seen."""

    schema: str
    version: str
    folds: int
    datasets: int
    open_dead_letters: int
    """Of its own and of runners', those that nobody has dealt with."""
    size: str
    projected: int
    behind: int


def status(
    connection: Connection, event_log: EventLog, *, catalogue: Catalogue, orphan_seconds: float = PATIENCE_SECONDS
) -> list[Status]:
    """Return every read model there is, the live one first; raises LogUnavailable."""
    # Of a compacted topic the past is gone, so its offsets say nothing of how much is left to read.
    topics = [catalogue.full_name(topic) for topic in PROJECTED if topic.kind is not Kind.STATE]
    ends = event_log.end_offsets(topics)
    known = Ledger(event_log, catalogue=catalogue).read_on()
    overdue = patience(event_log, catalogue=catalogue, seconds=orphan_seconds)
    found = []
    for schema in (SCHEMA, NEXT, OLD):
        with connection, connection.cursor() as cursor:
            version = version_of(connection, schema)
            if version is None:
                continue
            cursor.execute(in_schema(_ROWS, schema))
            folds, datasets, size = cursor.fetchone() or (0, 0, "")
            dead = count_open(
                cursor,
                decided=known.decided(),
                others=known.open(),
                # Tables of another version may not say where a run is.
                patience=overdue if version == VERSION else None,
                schema=schema,
            )
            offsets = read_offsets(cursor, schema=schema)
        projected = {tp: min(offsets.get(tp, 0), end) for tp, end in ends.items()}
        behind = sum(ends.values()) - sum(projected.values())
        found.append(Status(schema, version, folds, datasets, dead, size, sum(projected.values()), behind))
    return found
