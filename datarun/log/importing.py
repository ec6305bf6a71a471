"""Records of another log, or of this one's past, appended: each checked first, in their order, with their own ids.

A request in a queue is marked as handed out before: runners start it only if the gateway says that it is still open.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable
from concurrent.futures import Future
from dataclasses import dataclass, field

from datarun.log import REQUEUED, EventLog, Position, Record, StoredRecord
from datarun.log.selection import entry
from datarun.topics import Catalogue, Kind

IN_FLIGHT = 1000
APPEND_SECONDS = 60.0


@dataclass(slots=True)
class Outcome:
    """How many records were, or would be, appended to each topic, and which are refused, with their reasons."""

    appended: Counter[str] = field(default_factory=Counter)
    refused: list[tuple[Position, str]] = field(default_factory=list)


def append_all(records: Iterable[StoredRecord], event_log: EventLog | None, *, catalogue: Catalogue) -> Outcome:
    """Append records that may be, or without a log only look at them; raises LogUnavailable.

    After an error it is not known which of the last thousand are in the log; all of them may be appended again.
    """
    outcome = Outcome()
    waiting: deque[Future[Position]] = deque()
    for record in records:
        refusal = entry(record, catalogue=catalogue).refusal
        if refusal is not None:
            outcome.refused.append((record.position, f"{refusal.reason}: {refusal}"))
            continue
        if event_log is not None:
            waiting.append(event_log.append(_copy(record, catalogue)))
            if len(waiting) >= IN_FLIGHT:
                waiting.popleft().result(APPEND_SECONDS)
        outcome.appended[record.topic] += 1
    for future in waiting:
        future.result(APPEND_SECONDS)
    return outcome


def _copy(record: StoredRecord, catalogue: Catalogue) -> Record:
    is_queued = catalogue.topic(record.topic).kind is Kind.QUEUE
    headers = [(name, value) for name, value in record.headers if value is not None and name != REQUEUED]
    if is_queued:
        headers.append((REQUEUED, f"{record.partition}:{record.offset}".encode()))
    return Record(record.topic, record.key or b"", record.value or b"", tuple(headers), single=is_queued)
