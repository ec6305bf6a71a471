"""What is dead: the projector's letters are rows beside its offsets, those of runners and gateways copies in a topic.

All name the refused record by where it stands in the log, which still has it. What people decided is in that topic
too, so that a read model made anew has forgotten nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from psycopg2.extensions import cursor as Cursor

from datarun.errors import DatarunError
from datarun.log import Position, Record, StoredRecord
from datarun.readmodel import SCHEMA, VERSION, orphans
from datarun.readmodel.orphans import Patience
from datarun.topics import DEAD_LETTERS, Catalogue

RUNNER, PROJECTOR, GATEWAY = "runner", "projector", "gateway"
RETRIED, DROPPED = "retried", "dropped"
REASON, DETAIL, POSITION = "datarun-reason", "datarun-detail", "datarun-position"
FOUND_BY = "datarun-found-by"
"""Not said by runners."""
CUT_FROM = "datarun-cut-from"
LETTER_BYTES = 900_000
"""With what is added to its headers a letter must not be larger than a record may be."""
DECISION, DECIDED_BY, NOTE = "datarun-decision", "datarun-decided-by", "datarun-note"
_THERE = "select to_regclass('rm.dead_letter') is not null, obj_description(to_regnamespace('rm'), 'pg_namespace')"
_REFUSED = """
select topic, partition, "offset", reason, detail, key, null, length(value), headers
from rm.dead_letter"""
_ORPHANS = f"select {orphans.COLUMNS} from {orphans.OVERDUE}".replace("{schema}", SCHEMA)  # noqa: S608 - constants


class NoPosition(DatarunError):
    """A position is written as topic:partition:offset."""


@dataclass(frozen=True, slots=True)
class Decision:
    """What somebody did about a dead letter."""

    kind: str
    by: str
    at: datetime
    note: str


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A refused record: where it stands, why and by whom it was refused, what it says it is."""

    position: Position
    reason: str
    detail: str
    found_by: tuple[str, ...]
    wire_type: str
    key: str
    size: int | None
    decision: Decision | None = None


def decision_record(position: Position, kind: str, *, by: str, note: str, catalogue: Catalogue) -> Record:
    """Return the record that says a dead letter is dealt with; nothing is deleted."""
    about = text_of(position).encode()
    headers = ((DECISION, kind.encode()), (POSITION, about), (DECIDED_BY, by.encode()), (NOTE, note.encode()))
    return Record(catalogue.full_name(DEAD_LETTERS), about, b"{}", headers)


def letter_record(record: StoredRecord, *, reason: str, detail: str, found_by: str, catalogue: Catalogue) -> Record:
    """Return the record that keeps a refused one, with the reason and where it stands."""
    headers = [(name, value) for name, value in record.headers if value is not None]
    about = text_of(record.position)
    for name, text in ((REASON, reason), (DETAIL, detail), (POSITION, about), (FOUND_BY, found_by)):
        headers.append((name, text.encode("utf-8", "replace")))
    value = record.value or b""
    if len(value) > LETTER_BYTES:
        headers.append((CUT_FROM, str(len(value)).encode()))
    return Record(catalogue.full_name(DEAD_LETTERS), record.key or b"", value[:LETTER_BYTES], tuple(headers))


def text_of(position: Position) -> str:
    """Return a position as people and headers write it."""
    return f"{position.topic}:{position.partition}:{position.offset}"


def position_of(text: str) -> Position:
    """Return the position a text names; raises NoPosition."""
    topic, _, rest = text.partition(":")
    partition, _, offset = rest.partition(":")
    if not (topic and _is_number(partition, 9) and _is_number(offset, 18)):
        raise NoPosition(f"{text[:200]!r} is not written as topic:partition:offset")
    return Position(topic, int(partition), int(offset))


def _is_number(text: str, most: int) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= most


def of_projector(cursor: Cursor, patience: Patience) -> Sequence[DeadLetter]:
    """Return the projector's letters and the orphans; nobody is asked what was decided.

    Raises psycopg2's OperationalError.
    """
    cursor.execute(_THERE)
    is_there, version = cursor.fetchone() or (False, None)
    if not is_there:
        return []
    cursor.execute(_REFUSED)
    rows = cursor.fetchall()
    if version == VERSION:
        cursor.execute(_ORPHANS, patience.values())
        rows += cursor.fetchall()
    return [
        DeadLetter(
            Position(topic, partition, offset),
            reason=reason,
            detail=detail,
            found_by=(PROJECTOR,),
            wire_type=next((value for name, value in headers if name == "ce_type" and value), ""),
            key=bytes(key or b"").decode("utf-8", "replace"),
            size=size,
        )
        for topic, partition, offset, reason, detail, key, _, size, headers in rows
    ]
