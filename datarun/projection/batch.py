"""A stretch of the log, folded: one event a register, and the records that can never be applied. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import cast

from datarun.envelope import check_route, decode
from datarun.errors import Rejected
from datarun.log import StoredRecord
from datarun.projection.at_home import at_home
from datarun.projection.columns import Columns
from datarun.projection.evolve import Projected, Registers, evolve
from datarun.topics import Catalogue


@dataclass(slots=True)
class Batch:
    """What a stretch of the log comes to."""

    registers: Registers = field(default_factory=Registers)
    dead: list[Columns] = field(default_factory=list)


def fold(records: Iterable[StoredRecord], *, catalogue: Catalogue, into: Batch | None = None) -> Batch:
    """Fold records, each partition's in order; a record that can never be applied becomes a dead letter."""
    batch = Batch() if into is None else into
    known = list(records)
    for record, form in zip(known, at_home(catalogue)(known), strict=True):
        event = form
        if event is None:
            try:
                event = decode(record.value, record.headers)
                check_route(event, record, catalogue=catalogue)
            except Rejected as error:
                batch.dead.append(dead_letter(record, reason=error.reason, detail=str(error)))
                continue
        evolve(batch.registers, cast("Projected", event), record)
    return batch


def dead_letter(record: StoredRecord, *, reason: str, detail: str) -> Columns:
    """Return the row of a refused record: its bytes as they were."""
    return {
        "topic": record.topic,
        "partition": record.partition,
        "offset": record.offset,
        "reason": reason,
        "detail": detail,
        "key": _bytea(record.key),
        "value": _bytea(record.value),
        "headers": [
            [name, value if value is None else value.decode("utf-8", "replace")] for name, value in record.headers
        ],
    }


def _bytea(content: bytes | None) -> str | None:
    return None if content is None else rf"\x{content.hex()}"
