"""Asking all runners for a package and hearing what each says; which runners live, their own heartbeats tell."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from datarun import envelope
from datarun.environments import Environments, Result
from datarun.errors import DatarunError, Rejected
from datarun.events import Event, PackageRequested, RunnerHeartbeat
from datarun.log import EventLog, StoredRecord
from datarun.requirements import parse
from datarun.topics import ENVIRONMENTS, RUNNER_STATUS, Catalogue, Topic

LISTEN_SECONDS = 5.0
"""More than two heartbeats: who lives is heard by then."""
SILENT_SECONDS = 10.0


class NoTopic(DatarunError):
    """The topic `environments` is missing: make it by `datarun topics create`."""


@dataclass(slots=True)
class Runners:
    """Who was heard, when by this process's clock; a runner that stops or falls silent is no longer waited for."""

    heard: dict[str, float] = field(default_factory=dict)

    def take(self, event: RunnerHeartbeat, now: float) -> None:
        """Take a heartbeat that came now."""
        if event.stopping:
            self.heard.pop(event.runner_id, None)
        else:
            self.heard[event.runner_id] = now

    def live(self, now: float) -> set[str]:
        """Return who was heard lately."""
        return {runner_id for runner_id, at in self.heard.items() if now - at < SILENT_SECONDS}


@dataclass(frozen=True, slots=True)
class Answers:
    """What became of a request: the result of each runner that answered, and the live ones that did not."""

    results: dict[str, Result]
    silent: set[str]


class Switchboard:
    """Requests for packages and the answers of the runners, over one log."""

    def __init__(
        self, event_log: EventLog, catalogue: Catalogue, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._log = event_log
        self._catalogue = catalogue
        self._clock = clock

    def request(self, requirement: str, environment: str, *, requested_by: str) -> PackageRequested:
        """Append a request; raises RequirementRefused for what no runner would install, LogUnavailable."""
        event = PackageRequested(
            environment=environment,
            request_id=uuid.uuid4().hex,
            requirement=parse(requirement).text,
            requested_by=requested_by,
        )
        context = envelope.Context(source="datarun/cli", time=envelope.now())
        self._log.append(envelope.encode(event, catalogue=self._catalogue, context=context)).result()
        return event

    def await_answers(
        self, request: PackageRequested, *, timeout_seconds: float, tell: Callable[[Result], None]
    ) -> Answers:
        """Wait until every live runner answered, telling each answer as it comes."""
        runners, results = Runners(), {}
        expected = self._seen_last()
        begun = self._clock()
        # From the beginning: an answer may have come before anybody listened.
        for event in self._events(ENVIRONMENTS, RUNNER_STATUS):
            now = self._clock()
            if isinstance(event, RunnerHeartbeat):
                runners.take(event, now)
            elif isinstance(event, Result) and (event.request_id, event.environment) == _of(request):
                if event.runner_id not in results:
                    tell(event)
                results[event.runner_id] = event
            silent = runners.live(now) - results.keys()
            has_listened = now > begun + LISTEN_SECONDS or expected <= runners.heard.keys() | results.keys()
            if now > begun + timeout_seconds or (has_listened and not silent):
                break
        return Answers(results, silent)

    def state(self) -> Environments:
        """Return what was asked for and answered until now."""
        state = Environments()
        for record in self._history(ENVIRONMENTS):
            event = self._decoded(record)
            if event is not None:
                state.take(event)
        return state

    def live(self) -> set[str]:
        """Return the runners that can be heard, after at most a few seconds."""
        runners, expected = Runners(), self._seen_last()
        begun = self._clock()
        for event in self._events(RUNNER_STATUS):
            if isinstance(event, RunnerHeartbeat):
                runners.take(event, self._clock())
            if expected <= runners.heard.keys() or self._clock() > begun + LISTEN_SECONDS:
                break
        return runners.live(self._clock())

    def _seen_last(self) -> set[str]:
        """Return the runners whose last heartbeat is close to the newest of all, by the broker's clock."""
        last = {}
        for record in self._history(RUNNER_STATUS):
            event = self._decoded(record)
            if isinstance(event, RunnerHeartbeat):
                last[event.runner_id] = (record.timestamp_ms, event.stopping)
        newest = max((at for at, _ in last.values()), default=0)
        close = newest - SILENT_SECONDS * 1000
        return {runner_id for runner_id, (at, stopping) in last.items() if at > close and not stopping}

    def _events(self, *topics: Topic) -> Iterator[Event | None]:
        """Yield what is appended to the topics from now on, the history of the environments first; None when idle."""
        names = {self._catalogue.full_name(topic): topic for topic in topics}
        ends = self._log.end_offsets(sorted(names))
        start = {tp: 0 if names[tp.topic] is ENVIRONMENTS else end for tp, end in ends.items()}
        for batch in self._log.read(start, idle_seconds=0.2):
            yield from (self._decoded(record) for record in batch)
            yield None

    def _history(self, topic: Topic) -> Iterator[StoredRecord]:
        ends = self._log.end_offsets([self._catalogue.full_name(topic)])
        if not ends:
            raise NoTopic
        for batch in self._log.read(dict.fromkeys(ends, 0), until_end=True):
            yield from batch

    def _decoded(self, record: StoredRecord) -> Event | None:
        try:
            event = envelope.decode(record.value, record.headers)
            envelope.check_route(event, record, catalogue=self._catalogue)
        except Rejected:
            return None
        return event


def _of(request: PackageRequested) -> tuple[str, str]:
    return request.request_id, request.environment
