"""Dealing with dead letters: a record that decodes now goes where it belongs, another one is marked as given up."""

from __future__ import annotations

from dataclasses import dataclass

from datarun.dead_letters.letters import DROPPED, RETRIED, DeadLetter, decision_record, text_of
from datarun.envelope import decode
from datarun.errors import DatarunError, Misrouted, Rejected
from datarun.log import EventLog, Position, Record
from datarun.log.copies import copy_of
from datarun.log.reading import record_at
from datarun.readmodel.orphans import ORPHAN
from datarun.topics import Catalogue, topic_of


class NoSuchLetter(DatarunError):
    """There is no such dead letter."""


@dataclass(frozen=True, slots=True)
class Retry:
    """What retrying a dead letter comes to: a record to append, or why there is none."""

    letter: DeadLetter
    record: Record | None
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Desk:
    """Where letters are dealt with, and by whom."""

    log: EventLog
    catalogue: Catalogue
    cluster: str
    by: str

    def plan(self, letter: DeadLetter) -> Retry:
        """Return what a retry would append; raises LogUnavailable."""
        if letter.reason == ORPHAN:
            return Retry(letter, None, "its request is missing; once it comes, this is no dead letter any more")
        record = record_at(self.log, letter.position)
        if record is None:
            return Retry(letter, None, "the log has the record no more")
        try:
            event = decode(record.value, record.headers)
            if record.key != event.key.encode():
                raise Misrouted(f"the key of this {type(event).__name__} is {event.key}")
        except Rejected as error:
            return Retry(letter, None, f"{error.reason}: {error}")
        topic = topic_of(event)
        copy = copy_of(record, cluster=self.cluster, topic=topic, name=self.catalogue.full_name(topic))
        return Retry(letter, copy)

    def retry(self, planned: Retry) -> Position:
        """Append the record, then that the letter is dealt with, and return where the record is now.

        At least once: after a crash between the two a second retry appends it again, with the same event id.
        """
        if planned.record is None:
            raise DatarunError(f"{text_of(planned.letter.position)} cannot be retried: {planned.problem}")
        position = self.log.append(planned.record).result()
        self._decide(planned.letter, RETRIED, note=f"now {text_of(position)}")
        return position

    def drop(self, letter: DeadLetter, *, note: str = "") -> None:
        """Say that nobody wants the record any more; the log keeps it."""
        self._decide(letter, DROPPED, note=note)

    def _decide(self, letter: DeadLetter, kind: str, *, note: str) -> None:
        record = decision_record(letter.position, kind, by=self.by, note=note, catalogue=self.catalogue)
        self.log.append(record).result()
