"""Follows the topic `environments`: builds what is asked for, puts it in force, says what came of it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from typing import Any

import structlog

from datarun import envelope
from datarun.crashes import crash_point
from datarun.environments import Environments, package_of
from datarun.errors import DatarunError, LogUnavailable, Rejected
from datarun.events import PackageFailed, PackageInstalled, PackageRequested
from datarun.log import EventLog, StoredRecord, TopicPartition
from datarun.topics import ENVIRONMENTS, Catalogue
from services.runner.environments.builder import Builder, Outcome
from services.runner.environments.shelf import Shelf
from services.runner.execution import ExecutionUnavailable

IDLE_SECONDS = 0.25
PAUSE_SECONDS = 2.0
RETRY_SECONDS = 600.0
"""After which what failed is tried again: an index may have been away."""

Tell = Callable[[PackageInstalled | PackageFailed], None]
"""What is done with an answer."""
_Question = tuple[list[PackageRequested], dict[str, str]]
"""What is asked for, and the versions to choose; a build answers it."""

log = structlog.get_logger(__name__)


class Follower:
    """One runner's environments; everything is built in one thread of its own, so that folds go on meanwhile."""

    def __init__(self, event_log: EventLog, tell: Tell, *, shelf: Shelf, catalogue: Catalogue, runner_id: str) -> None:
        self._log = event_log
        self._tell = tell
        self._catalogue = catalogue
        self._runner_id = runner_id
        self._partition = TopicPartition(catalogue.full_name(ENVIRONMENTS), 0)
        self._next = 0
        self._desired = Environments()
        self._builder: Builder | None = None
        self._answered: dict[str, _Question] = {}
        self._retry_at: dict[str, float] = {}
        self._said: dict[tuple[str, str], tuple[type, str | None]] = {}
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._follow, daemon=True, name="environments")
        self.shelf = shelf

    def start(self, builder: Builder) -> None:
        """Read what was asked for until now, then build it and follow; raises DatarunError without the topic."""
        self._builder = builder
        if self._partition not in self._log.end_offsets([self._partition.topic]):
            raise DatarunError(f"there is no topic {self._partition.topic}: make it by `datarun topics create`")
        for batch in self._log.read({self._partition: 0}, until_end=True):
            self._take(batch)
        self.shelf.expect([name for name in self._desired.names() if self._desired.requests(name)])
        self._thread.start()

    def stop(self) -> None:
        """Ask the thread to end; a build under way is left behind, to be swept by the next one."""
        self._stopping.set()

    def _follow(self) -> None:
        while not self._stopping.is_set():
            try:
                self._build_all()
                self._tail()
            except (LogUnavailable, ExecutionUnavailable) as error:
                log.warning("environments.unavailable", error=str(error))
            except Exception:
                log.exception("environments.failed")
            self._stopping.wait(PAUSE_SECONDS)

    def _tail(self) -> None:
        for batch in self._log.read({self._partition: self._next}, idle_seconds=IDLE_SECONDS):
            self._take(batch)
            self._build_all()
            if self._stopping.is_set():
                return

    def _take(self, batch: Iterable[StoredRecord]) -> None:
        for record in batch:
            self._next = record.offset + 1
            try:
                event = envelope.decode(record.value, record.headers)
                envelope.check_route(event, record, catalogue=self._catalogue)
            except Rejected as refusal:
                log.warning("environments.refused", offset=record.offset, reason=refusal.reason, detail=str(refusal))
            else:
                self._desired.take(event)

    def _build_all(self) -> None:
        for name in self._desired.names():
            question = self._desired.requests(name), self._desired.pins(name)
            is_due = time.monotonic() > self._retry_at.get(name, float("inf"))
            if question[0] and (is_due or question != self._answered.get(name)):
                self._build(name, *question)
                self._answered[name] = question

    def _build(self, name: str, requests: list[PackageRequested], pins: dict[str, str]) -> None:
        assert self._builder is not None  # noqa: S101 - start comes first
        begun = time.monotonic()
        outcome = self._builder.build(requests, pins)
        self._retry_at[name] = time.monotonic() + RETRY_SECONDS if outcome.failures else float("inf")
        seconds = time.monotonic() - begun
        lacking = any(self._desired.is_installed(failed, name) for failed in outcome.failures)
        self.shelf.mark(name, lacking=lacking)
        self._put(name, outcome, seconds=seconds)
        crash_point("runner.environment_in_force")
        for request in requests:
            self._say(name, request, outcome, seconds=seconds)

    def _put(self, name: str, outcome: Outcome, *, seconds: float) -> None:
        if self.shelf.has(name) and self.shelf.get(name) == outcome.built:
            return
        self.shelf.put(name, outcome.built)
        key = outcome.built.environment.key if outcome.built else None
        log.info("environment.in_force", environment=name, key=key, failed=len(outcome.failures), seconds=seconds)

    def _say(self, name: str, request: PackageRequested, outcome: Outcome, *, seconds: float) -> None:
        """Append what came of a request, unless this runner has said the same before."""
        reason = outcome.failures.get(request.request_id)
        common: dict[str, Any] = {
            "environment": name,
            "request_id": request.request_id,
            "requirement": request.requirement,
            "runner_id": self._runner_id,
            "seconds": seconds,
            "environment_key": outcome.built.environment.key if outcome.built else None,
        }
        versions = outcome.built.versions if outcome.built else {}
        event: PackageInstalled | PackageFailed
        if reason is None:
            packages = tuple(f"{package}=={version}" for package, version in sorted(versions.items()))
            event = PackageInstalled(**common, packages=packages)
        else:
            event = PackageFailed(**common, reason=reason)
        of, said = (request.request_id, name), (type(event), versions.get(package_of(request)))
        if self._said.get(of) != said:
            if reason is not None:
                log.warning("package.failed", environment=name, requirement=request.requirement, reason=reason)
            self._tell(event)
            self._said[of] = said
