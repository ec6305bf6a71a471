"""Appends the runner's events; results are never given up while the process lives."""

from __future__ import annotations

import threading
from concurrent.futures import Future
from datetime import datetime

import structlog

from datarun import envelope
from datarun.errors import LogUnavailable, Rejected
from datarun.events import Event
from datarun.log import EventLog, Position, Record, StoredRecord
from datarun.topics import DEAD_LETTERS, Catalogue

LETTER_BYTES = 900_000
RETRY_SECONDS = (0.1, 0.5, 1.0, 2.0, 5.0)

log = structlog.get_logger(__name__)


class Publisher:
    """Encodes events as this runner's and appends them; at least once, with the same id every time."""

    def __init__(self, event_log: EventLog, *, catalogue: Catalogue, source: str) -> None:
        self._log = event_log
        self._catalogue = catalogue
        self._source = source
        self._given_up = threading.Event()

    def append(self, event: Event, *, cause: StoredRecord | None = None) -> Future[Position]:
        """Append an event once; the future ends with its position or LogUnavailable."""
        return self._log.append(self._record(event, cause))

    def append_surely(self, event: Event, *, cause: StoredRecord | None = None) -> None:
        """Append an event and return when the log has it; a log that is away is tried again until `give_up`."""
        record = self._record(event, cause)
        for attempt in range(1_000_000):
            try:
                self._log.append(record).result()
            except LogUnavailable as error:
                log.warning("publisher.retrying", event_type=event.type_name(), key=event.key, error=str(error))
                pause = RETRY_SECONDS[min(attempt, len(RETRY_SECONDS) - 1)]
                if self._given_up.wait(pause):
                    raise
            else:
                return

    def dead_letter(self, record: StoredRecord, refusal: Rejected) -> None:
        """Keep a record nobody can run, with its reason and where it stood."""
        headers = [(name, value) for name, value in record.headers if value is not None]
        headers += [
            ("datarun-reason", refusal.reason.encode()),
            ("datarun-detail", str(refusal).encode()),
            ("datarun-position", f"{record.topic}:{record.partition}:{record.offset}".encode()),
        ]
        topic = self._catalogue.full_name(DEAD_LETTERS)
        value = record.value or b""
        if len(value) > LETTER_BYTES:
            # With what is added it would be larger than a record may be; the whole is at its position for ever.
            headers.append(("datarun-cut-from", str(len(value)).encode()))
        letter = Record(topic, record.key or b"", value[:LETTER_BYTES], tuple(headers))
        self._log.append(letter).result()
        log.warning("runner.dead_letter", reason=refusal.reason, detail=str(refusal), offset=record.offset)

    def give_up(self) -> None:
        """Stop retrying: the process is about to end, and its lease says the rest."""
        self._given_up.set()

    def _record(self, event: Event, cause: StoredRecord | None) -> Record:
        headers = cause.headers if cause else ()
        context = envelope.Context(
            source=self._source,
            time=self._now(),
            correlation_id=envelope.header(headers, "ce_correlationid"),
            causation_id=envelope.header(headers, "ce_id"),
            traceparent=envelope.header(headers, "traceparent"),
        )
        return envelope.encode(event, catalogue=self._catalogue, context=context)

    @staticmethod
    def _now() -> datetime:
        return envelope.now()
