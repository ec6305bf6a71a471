"""What a runner reads beside its queues: fences, the broker's time off everybody's heartbeats, where queues ended.

Fences are read from the beginning of their compacted topic; until that is done no fold starts.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping
from contextlib import closing

import structlog

from datarun import envelope
from datarun.errors import LogUnavailable, Rejected
from datarun.events import FoldFenced
from datarun.log import EventLog, StoredRecord, TopicPartition
from datarun.topics import FOLD_CONTROL, QUEUES, RUNNER_STATUS, Catalogue
from services.runner.fences import Fences

PAUSE_SECONDS = 1.0
STOP_SECONDS = 2.0

log = structlog.get_logger(__name__)


class Control:
    """A thread that follows fold-control and runner-status; `on_fence` is called in it with each fence."""

    def __init__(
        self,
        event_log: EventLog,
        *,
        catalogue: Catalogue,
        fences: Fences,
        on_fence: Callable[[int, int], None],
    ) -> None:
        self._log = event_log
        self._catalogue = catalogue
        self._fences = fences
        self._on_fence = on_fence
        self._stopping = threading.Event()
        self._caught_up = False
        self._newest_ms: int | None = None
        self._next: dict[TopicPartition, int] = {}
        self._queue_ends: Mapping[str, int] = {}
        self._placed = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def is_current(self) -> bool:
        """Whether every fence that was there at the start is known, and the broker's time."""
        return self._caught_up and self._newest_ms is not None

    @property
    def now_ms(self) -> int:
        """The broker's time in ms, not older than the newest heartbeat of any runner; 0 before there was one."""
        return self._newest_ms or 0

    @property
    def queue_ends(self) -> Mapping[str, int]:
        """Where each queue ended when this runner started."""
        return self._queue_ends

    def start(self, *, on_failure: Callable[[], None]) -> None:
        """Begin to follow; `on_failure` is called if that ends before `stop`."""
        self._thread = threading.Thread(target=self._run, args=(on_failure,), daemon=True, name="control")
        self._thread.start()

    def wait_placed(self, seconds: float) -> bool:
        """Wait until whatever is appended from now on will be read, or for the given time; tell which."""
        return self._placed.wait(seconds)

    def stop(self) -> None:
        """End, within a bound."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join(STOP_SECONDS)

    def _run(self, on_failure: Callable[[], None]) -> None:
        try:
            while not self._stopping.is_set():
                try:
                    self._follow()
                except LogUnavailable as error:
                    log.warning("control.log_unavailable", error=str(error))
                    self._stopping.wait(PAUSE_SECONDS)
        except Exception:
            # A runner that sees no fences must not go on.
            log.exception("control.failed")
            on_failure()

    def _follow(self) -> None:
        names = {name: self._catalogue.full_name(topic) for name, topic in QUEUES.items()}
        control, status = self._catalogue.full_name(FOLD_CONTROL), self._catalogue.full_name(RUNNER_STATUS)
        ends = self._log.end_offsets([control, status, *names.values()])
        if not self._queue_ends:
            self._queue_ends = {name: ends[TopicPartition(topic, 0)] for name, topic in names.items()}
        fences = {tp: end for tp, end in ends.items() if tp.topic == control}
        # Old heartbeats say nothing of the present.
        beats = {tp: self._next.get(tp, end) for tp, end in ends.items() if tp.topic == status}
        start = {tp: self._next.get(tp, 0) for tp in fences} | beats
        self._next = dict(start)
        self._placed.set()
        with closing(self._log.read(start)) as batches:  # type: ignore[type-var]
            for batch in batches:
                self._take(batch, control)
                self._caught_up |= all(self._next[tp] >= end for tp, end in fences.items())
                if self._stopping.is_set():
                    return

    def _take(self, batch: Iterable[StoredRecord], control: str) -> None:
        for record in batch:
            self._next[TopicPartition(record.topic, record.partition)] = record.offset + 1
            if record.topic == control:
                self._learn(record)
            else:
                self._newest_ms = max(self._newest_ms or 0, record.timestamp_ms)

    def _learn(self, record: StoredRecord) -> None:
        try:
            event = envelope.decode(record.value, record.headers)
            envelope.check_route(event, record, catalogue=self._catalogue)
        except Rejected as refusal:
            log.warning("control.refused", partition=record.partition, offset=record.offset, reason=str(refusal))
            return
        if isinstance(event, FoldFenced):
            # Known first: a fold that starts now sees it, or is seen by what follows.
            self._fences.learn(event.fold_id, event.attempt)
            self._on_fence(event.fold_id, event.attempt)
