"""The topic of dead letters: letters of runners and gateways, and what people decided, read on from where it was."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

from psycopg2.extensions import cursor as Cursor

from datarun.dead_letters.letters import (
    DECIDED_BY,
    DECISION,
    DETAIL,
    DROPPED,
    FOUND_BY,
    GATEWAY,
    NOTE,
    POSITION,
    REASON,
    RETRIED,
    RUNNER,
    DeadLetter,
    Decision,
    NoPosition,
    of_projector,
    position_of,
)
from datarun.envelope import Headers, header, now
from datarun.errors import Misrouted
from datarun.log import EventLog, Position, StoredRecord, TopicPartition
from datarun.projection.columns import moment
from datarun.readmodel.orphans import PATIENCE_SECONDS, Patience
from datarun.topics import DEAD_LETTERS, FOLD_EVENTS, QUEUE_OF, Catalogue

LONGEST_CHARACTERS = 2000
"""Of each text that is kept; the log has the whole."""


@dataclass(frozen=True, slots=True)
class Known:
    """The letters of runners and gateways, and decisions about any, by the position of the refused record."""

    letters: Mapping[Position, DeadLetter]
    decisions: Mapping[Position, Decision]
    is_full: bool = False
    """Whether there were more than may be kept; those are left out."""

    def decided(self, *kinds: str) -> list[Position]:
        """Return what was decided, in any way or in one of these."""
        return [position for position, decision in self.decisions.items() if not kinds or decision.kind in kinds]

    def open(self) -> list[Position]:
        """Return what they have found and nobody has dealt with."""
        return [position for position in self.letters if position not in self.decisions]


class Ledger:
    """Reads the topic on from where it was the last time; threads take turns."""

    def __init__(self, log: EventLog, *, catalogue: Catalogue, most: int | None = None) -> None:
        """Keep so many letters and decisions each at the most, however many somebody writes."""
        self._log = log
        self._catalogue = catalogue
        self._most = most
        self._turn = threading.Lock()
        self._next: dict[TopicPartition, int] = {}
        self._letters: dict[Position, DeadLetter] = {}
        self._decisions: dict[Position, Decision] = {}
        self._is_full = False
        self._known = Known(MappingProxyType({}), MappingProxyType({}))

    def read_on(self) -> Known:
        """Return what is known up to the topic's present end; raises LogUnavailable."""
        with self._turn:
            ends = self._log.end_offsets([self._catalogue.full_name(DEAD_LETTERS)])
            left = {tp: self._next.get(tp, 0) for tp, end in ends.items() if self._next.get(tp, 0) < end}
            if left:
                for batch in self._log.read(left, until_end=True):
                    for record in batch:
                        self._take(record)
                        self._next[TopicPartition(record.topic, record.partition)] = record.offset + 1
                # Behind the last record there may be a hole.
                self._next |= {tp: max(end, self._next.get(tp, 0)) for tp, end in ends.items()}
                letters, decisions = dict(self._letters), dict(self._decisions)
                self._known = Known(MappingProxyType(letters), MappingProxyType(decisions), self._is_full)
            return self._known

    def _take(self, record: StoredRecord) -> None:
        position = _named_by(record.headers, self._catalogue)
        if position is None:
            return
        kind = header(record.headers, DECISION)
        if kind is not None:
            if self._has_room(position, self._decisions):
                self._decisions[position] = _decision(record, kind)
        elif self._has_room(position, self._letters):
            self._letters[position] = _copied(record, position, self._letters.get(position))

    def _has_room(self, position: Position, kept: Mapping[Position, object]) -> bool:
        has_room = self._most is None or position in kept or len(kept) < self._most
        self._is_full = self._is_full or not has_room
        return has_room


def patience(log: EventLog, *, catalogue: Catalogue, seconds: float) -> Patience:
    """Return which runs without a request are orphans at this moment; raises LogUnavailable."""
    queues = [TopicPartition(catalogue.full_name(one), n) for one in QUEUE_OF.values() for n in range(one.partitions)]
    requests = log.offsets_at(queues, int((now().timestamp() - seconds) * 1000))
    return Patience(catalogue.full_name(FOLD_EVENTS), seconds, requests)


def merged(letter: DeadLetter, known: Known) -> DeadLetter:
    """Return a letter of the projector with what runners, gateways and people said of it."""
    copied = known.letters.get(letter.position)
    found_by = letter.found_by if copied is None else (*letter.found_by, *copied.found_by)
    return replace(letter, found_by=found_by, decision=known.decisions.get(letter.position))


def read_letters(
    log: EventLog, cursor: Cursor | None, *, catalogue: Catalogue, orphan_seconds: float = PATIENCE_SECONDS
) -> list[DeadLetter]:
    """Return every dead letter by its position, with what was decided; without a database the copies alone.

    Raises LogUnavailable, psycopg2's OperationalError.
    """
    projected = {}
    if cursor is not None:
        overdue = patience(log, catalogue=catalogue, seconds=orphan_seconds)
        projected = {letter.position: letter for letter in of_projector(cursor, overdue)}
    known = Ledger(log, catalogue=catalogue).read_on()
    letters = {**known.letters, **{position: merged(letter, known) for position, letter in projected.items()}}
    decided = known.decisions
    return [replace(letters[position], decision=decided.get(position)) for position in sorted(letters)]


def _named_by(headers: Headers, catalogue: Catalogue) -> Position | None:
    """Return the position that a record of the topic is about; anybody may have written it, so it may be none."""
    try:
        position = position_of(header(headers, POSITION) or "")
        if position.partition >= catalogue.topic(position.topic).partitions:
            return None
    except (NoPosition, Misrouted):
        return None
    return position


def _decision(record: StoredRecord, kind: str) -> Decision:
    by, note = _text(record.headers, DECIDED_BY), _text(record.headers, NOTE)
    return Decision(kind if kind in (RETRIED, DROPPED) else "unknown", by, moment(record.timestamp_ms), note)


def _copied(record: StoredRecord, position: Position, known: DeadLetter | None) -> DeadLetter:
    found_by = GATEWAY if header(record.headers, FOUND_BY) == GATEWAY else RUNNER
    if known is not None:
        return known if found_by in known.found_by else replace(known, found_by=(*known.found_by, found_by))
    return DeadLetter(
        position,
        reason=_text(record.headers, REASON),
        detail=_text(record.headers, DETAIL),
        found_by=(found_by,),
        wire_type=_text(record.headers, "ce_type"),
        key=(record.key or b"").decode("utf-8", "replace")[:LONGEST_CHARACTERS],
        size=len(record.value or b""),
    )


def _text(headers: Headers, name: str) -> str:
    return (header(headers, name) or "")[:LONGEST_CHARACTERS]
