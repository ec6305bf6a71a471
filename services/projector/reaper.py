"""Takes back what lost runners hold: appends the next delivery of the fold, then FoldLost, or FoldFailed at the last.

What a queue passes over it puts back there, as the same delivery: no runner was lost, so none of the three is spent.

The request comes first: a crash between the two leaves a fold that waits in its queue, never one that nobody will
run. Ids are deterministic, and what runs twice ends once, so doing all of it again is harmless.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import TimeoutError as FutureTimeoutError
from typing import TypeVar

import structlog

from datarun.crashes import crash_point
from datarun.envelope import Context, decode, encode, header, now
from datarun.errors import LogUnavailable
from datarun.events import Cause, Event, Fault, FoldFailed, FoldLost, FoldRequested, SplitRequested, Stage
from datarun.leases import Leases, PendingSplit, Run, SplitPatience
from datarun.lifecycle import losses, next_delivery
from datarun.log import EventLog, Position, StoredRecord
from datarun.log.reading import record_at
from datarun.overtaking import PATIENCE_SECONDS, Overtaking, Waiting
from datarun.projection.offsets import Offsets
from datarun.topics import DATA_REQUESTS, FOLD_EVENTS, FOLD_REQUESTS_HIGH, FOLD_REQUESTS_LOW, RUNNER_STATUS, Catalogue
from services.projector.running import Held, ReadModel

APPEND_SECONDS = 15.0
CATCH_UP_SECONDS = 2.5
"""Two of them are less than the leases' longest look away."""
POLL_SECONDS = 0.02

_WATCHED = (FOLD_EVENTS, RUNNER_STATUS, FOLD_REQUESTS_HIGH, FOLD_REQUESTS_LOW)

log = structlog.get_logger(__name__)
Clock = Callable[[], float]
E = TypeVar("E", bound=Event)


class Reaper:
    """Looks at the read model once a tick; one in an installation at a time."""

    def __init__(
        self,
        event_log: EventLog,
        *,
        catalogue: Catalogue,
        clock: Clock = time.monotonic,
        patience_seconds: float = PATIENCE_SECONDS,
    ) -> None:
        self._log = event_log
        self._catalogue = catalogue
        self._clock = clock
        self._leases = Leases()
        self._splits = SplitPatience()
        self._overtaking = Overtaking(patience_seconds)
        self._reaped: frozenset[Run] = frozenset()

    def restart(self) -> None:
        """Give every runner a full lease: heartbeats may have gone unseen."""
        self._leases.restart()
        self._splits.restart()
        self._overtaking.restart()

    def tick(self, read_model: ReadModel) -> list[Run]:
        """Take back what is lost and return it; decides nothing while the read model lags behind the log."""
        if not read_model.held():
            self._leases.restart()
            return []
        # Every heartbeat from before `as_of` is projected when they are read, and every result from before these is
        # when it is asked who holds what.
        as_of = self._clock()
        if not self._catches_up(read_model, self._ends()):
            return []
        runners, heard_at = read_model.runners(), self._clock()
        if not self._catches_up(read_model, self._ends()):
            return []
        held = read_model.held()
        lost = self._leases.lost(held, runners, now=heard_at, as_of=as_of)
        self._reaped &= held.keys()
        fresh = [run for run in lost if run not in self._reaped]
        for run in fresh:
            self._reap(run, held[run])
            self._reaped |= {run}
        return fresh

    def tick_splits(self, read_model: ReadModel) -> list[PendingSplit]:
        """Ask again for the splits that nobody seems to hold and return them; a lagging read model only costs time."""
        pending = read_model.pending_splits()
        overdue = self._splits.overdue(pending, read_model.splitting() if pending else {}, now=self._clock())
        topic = self._catalogue.full_name(DATA_REQUESTS)
        for split in overdue:
            request = self._read_again(Position(topic, 0, pending[split]), SplitRequested)
            if request is not None:
                self._append(*request)
                log.warning("reaper.split_asked_again", **split._asdict())
        return overdue

    def tick_overtaken(self, read_model: ReadModel) -> list[Waiting]:
        """Append again the requests their queues have passed over for too long and return them."""
        if not read_model.waiting():
            return []
        # In this order: what was begun before the last chance is projected, and waits no more, by now.
        chances = read_model.chances()
        if not self._catches_up(read_model, self._ends()):
            return []
        waiting = read_model.waiting()
        overtaken = self._overtaking.overtaken(waiting, chances)
        for request in overtaken:
            again = self._read_again(waiting[request], FoldRequested)
            if again is not None:
                self._append(*again)
                log.warning("reaper.put_back", **request._asdict())
            self._overtaking.put_back(request)
        return overtaken

    def _ends(self) -> Offsets:
        return self._log.end_offsets([self._catalogue.full_name(topic) for topic in _WATCHED])

    def _catches_up(self, read_model: ReadModel, ends: Offsets) -> bool:
        deadline = self._clock() + CATCH_UP_SECONDS
        while True:
            offsets = read_model.offsets()
            if all(offsets.get(tp, 0) >= end for tp, end in ends.items()):
                return True
            if self._clock() > deadline:
                return False
            time.sleep(POLL_SECONDS)

    def _reap(self, run: Run, held: Held) -> None:
        request = self._read_again(held.request, FoldRequested)
        handed_back = 0 if request is None else request[0].handed_back
        following = next_delivery(run.delivery, handed_back=handed_back)
        if following is None or request is None:
            self._append(_given_up(run, held, losses(run.delivery, handed_back=handed_back)), None)
        else:
            if held.request_delivery <= run.delivery:
                event, record = request
                self._append(event.model_copy(update={"delivery": following}), record)
            crash_point("reaper.after_request")
            self._append(_lost(run, held), request[1])
        crash_point("reaper.after_loss")
        log.warning("reaper.lost", **run._asdict(), next_delivery=following)

    def _read_again(self, position: Position, kind: type[E]) -> tuple[E, StoredRecord] | None:
        """Return a request from where the projection found it, None if the log has it no more."""
        record = record_at(self._log, position)
        event = record and decode(record.value, record.headers)
        return (event, record) if record is not None and isinstance(event, kind) else None

    def _append(self, event: Event, cause: StoredRecord | None) -> None:
        headers = cause.headers if cause else ()
        context = Context(
            source="reaper",
            time=now(),
            correlation_id=header(headers, "ce_correlationid"),
            causation_id=header(headers, "ce_id"),
            traceparent=header(headers, "traceparent"),
        )
        future = self._log.append(encode(event, catalogue=self._catalogue, context=context))
        try:
            future.result(APPEND_SECONDS)
        except FutureTimeoutError as error:
            raise LogUnavailable from error


def _lost(run: Run, held: Held) -> FoldLost:
    return FoldLost(
        fold_id=run.fold_id,
        attempt=run.attempt,
        delivery=run.delivery,
        runner_id=run.runner_id,
        submission_id=held.submission_id,
        raw_data_id=held.raw_data_id,
    )


def _given_up(run: Run, held: Held, count: int) -> FoldFailed:
    times = "once" if count == 1 else f"{count} times"
    return FoldFailed(
        fold_id=run.fold_id,
        attempt=run.attempt,
        delivery=run.delivery,
        runner_id=run.runner_id,
        submission_id=held.submission_id,
        raw_data_id=held.raw_data_id,
        stage=Stage.TRAIN,
        cause=Cause.LOST,
        fault=Fault.PLATFORM,
        message=f"\nThe runner was lost {times} - ERROR(train)\n",
    )
