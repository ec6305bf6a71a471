"""The thread beside Faust: runs the reaper, says how far behind the projection is, and ends a process that stalls.

It has its own connections to Kafka and Postgres, so what it sees does not depend on what it watches.
"""

from __future__ import annotations

import os
import threading
import time

import structlog
from psycopg2 import InterfaceError, OperationalError

from datarun import notify
from datarun.db import connect
from datarun.errors import LogUnavailable
from datarun.log import EventLog
from datarun.log.holes import is_hole
from datarun.projection.offsets import Offsets
from datarun.settings import Settings
from datarun.topics import PROJECTED, Kind
from services.projector.reaper import Reaper
from services.projector.running import Postgres
from services.projector.stall import Stall

TICK_SECONDS = 1.0
TICKS_A_LOOK = 5
TICKS_A_ROUND = 2
"""Every so many ticks the queues are looked at, too; nothing there is decided within seconds."""
EXIT_UNEXPECTED = 70
EXIT_STALLED = 75

log = structlog.get_logger(__name__)


class Watch:
    """Ticks once a second until stopped."""

    def __init__(self, settings: Settings, url: str, *, patience_seconds: float) -> None:
        self._settings = settings
        self._patience_seconds = patience_seconds
        self._url = url
        self._stall = Stall()
        self._read_model: Postgres | None = None
        self._left: Offsets = {}
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True, name="projector-watch")

    def start(self) -> None:
        """Start ticking."""
        self._thread.start()

    def stop(self) -> None:
        """Stop ticking; a tick under way may still end."""
        self._stopping.set()

    def _run(self) -> None:
        try:
            self._watch()
        except Exception:
            log.exception("projector.watch_failed")
            os._exit(EXIT_UNEXPECTED)

    def _watch(self) -> None:
        from datarun.log.kafka import KafkaLog  # noqa: PLC0415 - not needed to get ready
        from datarun.log.vigil import watch_topics  # noqa: PLC0415

        watch_topics(self._settings.brokers, prefix=self._settings.topic_prefix)
        event_log = KafkaLog(self._settings.brokers)
        reaper = Reaper(event_log, catalogue=self._settings.catalogue, patience_seconds=self._patience_seconds)
        ticks = 0
        while not self._stopping.wait(TICK_SECONDS):
            ticks += 1
            try:
                self._tick(reaper, event_log, ticks)
            except (LogUnavailable, OperationalError, InterfaceError) as error:
                log.warning("projector.watch_blind", error=str(error).strip())
                self._blind(reaper)
        self._blind(reaper)

    def _tick(self, reaper: Reaper, event_log: EventLog, ticks: int) -> None:
        if self._read_model is None:
            self._read_model = Postgres(connect(self._url, application="datarun-reaper"))
        if self._read_model.lock():
            reaper.tick(self._read_model)
            reaper.tick_splits(self._read_model)
            if ticks % TICKS_A_ROUND == 0:
                reaper.tick_overtaken(self._read_model)
        else:
            reaper.restart()
        if ticks % TICKS_A_LOOK == 0:
            self._look(self._read_model, event_log)

    def _look(self, read_model: Postgres, event_log: EventLog) -> None:
        # The past of a compacted topic may be gone, so its offsets say nothing of how much is left to read.
        topics = [self._settings.catalogue.full_name(topic) for topic in PROJECTED if topic.kind is not Kind.STATE]
        ends = event_log.end_offsets(topics)
        offsets = read_model.offsets()
        left = {tp: end - offsets.get(tp, 0) for tp, end in ends.items() if end > offsets.get(tp, 0)}
        self._pass_over_holes(read_model, event_log, left, offsets)
        behind = sum(left.values())
        notify.status(f"{behind} events behind")
        if self._stall.look(behind=behind, progress=sum(offsets.values()), now=time.monotonic()):
            log.critical("projector.stalled", behind=behind)
            os._exit(EXIT_STALLED)

    def _pass_over_holes(self, read_model: Postgres, event_log: EventLog, left: Offsets, offsets: Offsets) -> None:
        """Move the projection to the end of a partition that ends in a hole; no record will ever come to do so."""
        for tp, count in left.items():
            start = offsets.get(tp, 0)
            if self._left.get(tp) == count and is_hole(event_log, tp, start, start + count):
                read_model.pass_over(tp, start, start + count)
                log.info("projector.hole", topic=tp.topic, partition=tp.partition, offset=start, count=count)
        self._left = left

    def _blind(self, reaper: Reaper) -> None:
        reaper.restart()
        self._stall.restart()
        if self._read_model is not None:
            # Its end gives the advisory lock to another projector's reaper.
            self._read_model.close()
            self._read_model = None
