"""Records become rows: position and effects in one SQL transaction, so each record has its effect exactly once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import Any

from psycopg2 import DataError
from psycopg2.extensions import connection as Connection
from psycopg2.extensions import cursor as Cursor

from datarun.crashes import crash_point
from datarun.log import StoredRecord, TopicPartition
from datarun.projection import columns, offsets, statements
from datarun.projection.batch import Batch, dead_letter, fold
from datarun.projection.columns import Columns
from datarun.projection.copying import BEGIN, END, Unfit
from datarun.projection.offsets import Offsets
from datarun.projection.statements import Register, in_schema, upsert
from datarun.projection.text import json_text
from datarun.projection.whole import COPY_FOLDS, Rows, whole_folds
from datarun.readmodel import SCHEMA
from datarun.topics import Catalogue

COPY_BYTES = 1024**2
"""Sent to the database at once."""


@dataclass(frozen=True, slots=True)
class Applied:
    """What became of a batch: records applied, records known before, and how many of the applied are dead letters."""

    count: int
    skipped: int
    dead: int


def apply(
    records: Sequence[StoredRecord], connection: Connection, *, catalogue: Catalogue, schema: str = SCHEMA
) -> Applied:
    """Bring records, each partition's in order, into the read model and commit.

    Known records are skipped. Raises Gap, having changed nothing, when records are missing, and psycopg2's
    OperationalError when the database is away: the same call may then be made again.
    """
    try:
        return _transact(records, connection, catalogue=catalogue, schema=schema)
    except DataError as error:
        # A value passed its schema and does not fit its column: of this batch nothing is stored yet.
        if len(records) == 1:
            return _bury(records[0], connection, schema=schema, detail=str(error))
    each = [apply([record], connection, catalogue=catalogue, schema=schema) for record in records]
    return Applied(sum(one.count for one in each), sum(one.skipped for one in each), sum(one.dead for one in each))


def load(batch: Batch, connection: Connection, *, start: Offsets, end: Offsets, schema: str) -> bool:
    """Bring a batch that leads from some offsets to others into the read model and commit.

    Returns False, having changed nothing, if the database refuses a value. Raises Gap if the read model is not at the
    start, which means that somebody else works on it, and psycopg2's OperationalError.
    """
    try:
        rows = whole_folds(batch.registers)
        with connection, connection.cursor() as cursor:
            position = offsets.lock_offsets(cursor, start, schema=schema)
            for tp, left in start.items():
                if position[tp] != left:
                    raise offsets.Gap(tp, expected=position[tp], found=left)
            _load_folds(cursor, batch, rows, schema=schema)
            _write(cursor, batch, end, schema=schema)
            crash_point("projector.before_commit")
        crash_point("projector.after_commit")
    except (DataError, Unfit):
        return False
    return True


def _load_folds(cursor: Cursor, batch: Batch, rows: Rows, *, schema: str) -> None:
    """Insert the folds nothing is known of yet, and take them out of the batch."""
    kept = batch.registers
    cursor.execute(in_schema(statements.TAKE_TURNS, schema))
    cursor.execute(in_schema(statements.KNOWN_FOLDS, schema), (list(rows),))
    new = rows.keys() - {fold_id for (fold_id,) in cursor.fetchall()}
    if not new:
        return
    # Sorted, since so the indexes grow at their ends.
    copied = b"".join((BEGIN, *map(rows.__getitem__, sorted(new)), END))
    cursor.copy_expert(in_schema(COPY_FOLDS, schema), BytesIO(copied), size=COPY_BYTES)
    for register in (kept.requests, kept.runs, kept.fetches):
        for fold_id in new & register.keys():
            del register[fold_id]


def _transact(records: Sequence[StoredRecord], connection: Connection, *, catalogue: Catalogue, schema: str) -> Applied:
    with connection, connection.cursor() as cursor:
        partitions = {TopicPartition(record.topic, record.partition) for record in records}
        position = offsets.lock_offsets(cursor, partitions, schema=schema)
        fresh = offsets.unseen(records, position, catalogue=catalogue)
        batch = fold(fresh, catalogue=catalogue)
        if fresh:
            _write(cursor, batch, position, schema=schema)
        crash_point("projector.before_commit")
    crash_point("projector.after_commit")
    return Applied(len(fresh), len(records) - len(fresh), len(batch.dead))


def _bury(record: StoredRecord, connection: Connection, *, schema: str, detail: str) -> Applied:
    with connection, connection.cursor() as cursor:
        tp = TopicPartition(record.topic, record.partition)
        position = offsets.lock_offsets(cursor, [tp], schema=schema)
        dead = Batch(dead=[dead_letter(record, reason="unstorable", detail=detail)])
        position[tp] = max(position[tp], record.offset + 1)
        _write(cursor, dead, position, schema=schema)
    return Applied(1, 0, 1)


def _write(cursor: Cursor, batch: Batch, position: offsets.Offsets, *, schema: str) -> None:
    parts: list[tuple[str, list[Columns]]] = [
        (upsert(register, schema), rows) for register, rows in _rows(batch) if rows
    ]
    if batch.dead:
        parts.append((in_schema(statements.BURY, schema), batch.dead))
    parts.append((in_schema(statements.MOVE_OFFSETS, schema), offsets.rows(position)))
    turns = in_schema(statements.TAKE_TURNS, schema)
    script = ";".join([turns, *(statement for statement, _ in parts), statements.NOTIFY])
    cursor.execute(script, [json_text(rows) for _, rows in parts])


def _rows(batch: Batch) -> list[tuple[Register, list[Columns]]]:
    kept = batch.registers
    return [
        (statements.UPLOAD, _table(kept.uploads, columns.upload)),
        (statements.SPLIT_REQUEST, _table(kept.split_requests, columns.split_request)),
        (statements.SPLIT_RESULT, _table(kept.split_results, columns.split_result)),
        (statements.SUBMISSION, _table(kept.submissions, columns.submission)),
        (statements.REQUEST, _table(kept.requests, columns.request)),
        (statements.RUN, _table(kept.runs, columns.run)),
        (statements.FETCH, _table(kept.fetches, columns.fetch)),
        (statements.HEARTBEAT, _table(kept.heartbeats, columns.heartbeat)),
    ]


def _table(register: dict[Any, Any], to_columns: Callable[[Any], Columns]) -> list[Columns]:
    return [to_columns(kept) for kept in register.values()]
