"""Which requests may start: none that is fenced, and of those to be doubted only what the gateway says is open."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import structlog

from datarun import envelope
from datarun.events import FoldRequested
from datarun.log import REQUEUED, Work
from services.runner.confirmation import HOLD_SECONDS, Answer, Doubt, Handed, Verdict, doubt, verdict
from services.runner.control import Control
from services.runner.fences import Fences
from services.runner.openings import Openings

SAID_EVERY = 1000

log = structlog.get_logger(__name__)


class Admission(Protocol):
    """Judges requests as they are handed out, and again while they wait."""

    @property
    def skipped(self) -> int:
        """How many were not started."""
        ...

    def judge(self, work: Work, request: FoldRequested) -> Verdict:
        """Return what becomes of a request."""
        ...


class Unconditional:
    """Lets everything start."""

    skipped = 0

    def judge(self, _work: Work, _request: FoldRequested) -> Verdict:
        """Return START."""
        return Verdict.START


@dataclass(slots=True)
class _Case:
    """The request of a queue that was handed out last."""

    handed: Handed
    at: float
    doubt: Doubt | None = None


class Gate:
    """One runner's admission; used by the loop's thread alone."""

    def __init__(
        self, fences: Fences, control: Control, openings: Openings, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.skipped = 0
        self._fences = fences
        self._control = control
        self._openings = openings
        self._clock = clock
        self._cases: dict[str, _Case] = {}
        self._highest: dict[str, int] = {}
        self._earlier_than: dict[str, int] = {}

    def judge(self, work: Work, request: FoldRequested) -> Verdict:
        """Return what becomes of a request: it may be asked again until that is not WAIT."""
        judged, why = self._judge(work, request)
        if judged in (Verdict.SKIP, Verdict.LEAVE):
            self.skipped += 1
            self._say(work, request, why)
        elif judged is Verdict.RELEASE:
            log.warning("request.not_confirmed", queue=work.queue, offset=work.record.offset, fold_id=request.fold_id)
        return judged

    def _judge(self, work: Work, request: FoldRequested) -> tuple[Verdict, str]:
        case = self._case(work)
        held_seconds = self._clock() - case.at
        if not self._control.is_current:
            return (Verdict.WAIT if held_seconds < HOLD_SECONDS else Verdict.RELEASE), "unknown"
        if self._fences.cover(request.fold_id, request.attempt):
            return Verdict.SKIP, "fenced"
        if case.doubt is None:
            case.doubt = self._doubt(work.queue, case.handed)
        if case.doubt is Doubt.NONE:
            return Verdict.START, ""
        since = case.at if case.handed.is_again or case.doubt is Doubt.FORGOTTEN else None
        answer = self._openings.look(work.queue, case.handed.offset, since=since)
        self._learn_of_reset(work.queue, case, answer)
        return verdict(case.doubt, answer, held_seconds=held_seconds), answer.value

    def _case(self, work: Work) -> _Case:
        record = work.record
        is_copy = envelope.header(record.headers, REQUEUED) is not None
        handed = Handed(record.offset, record.timestamp_ms, work.delivery_count, is_copy)
        case = self._cases.get(work.queue)
        if case is None or case.handed != handed:
            case = self._cases[work.queue] = _Case(handed, self._clock())
        return case

    def _doubt(self, queue: str, handed: Handed) -> Doubt:
        highest = self._highest.get(queue, 0)
        if handed.delivery_count == 1:
            self._highest[queue] = max(highest, handed.offset)
        earlier_than = max(self._earlier_than.get(queue, 0), self._control.queue_ends.get(queue, 0))
        return doubt(handed, now_ms=self._control.now_ms, highest=highest, earlier_than=earlier_than)

    def _learn_of_reset(self, queue: str, case: _Case, answer: Answer) -> None:
        # All that is in the queue may come again.
        if case.doubt is Doubt.FORGOTTEN and answer in (Answer.OPEN, Answer.CLOSED):
            self._earlier_than[queue] = max(self._earlier_than.get(queue, 0), self._openings.end(queue))

    def _say(self, work: Work, request: FoldRequested, why: str) -> None:
        """Say it of the first ones, and then now and then: a whole history may come again."""
        if self.skipped & (self.skipped - 1) and self.skipped % SAID_EVERY and why != "fenced":
            return
        named = {"fold_id": request.fold_id, "attempt": request.attempt, "delivery": request.delivery}
        log.warning("request.skipped", why=why, queue=work.queue, offset=work.record.offset, **named, all=self.skipped)
