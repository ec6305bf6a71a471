"""What runs in a slot, and the claim on its end: its result, or whoever takes the run away, tells it; the first one."""

from __future__ import annotations

import threading
from concurrent.futures import Future
from dataclasses import dataclass, field

from datarun.events import FoldRequested, RunningFold, SplitRequested
from datarun.log import StoredRecord, Work


@dataclass(eq=False, slots=True)
class Run:
    """Something that runs; its end is told by one thread alone."""

    _end: threading.Lock = field(default_factory=threading.Lock, init=False, repr=False)

    def claim(self) -> bool:
        """Become the one who says how this run ended; False if somebody else is."""
        return self._end.acquire(blocking=False)


@dataclass(eq=False, slots=True)
class FoldRun(Run):
    """One delivery of a fold."""

    request: FoldRequested
    record: StoredRecord

    @property
    def named(self) -> RunningFold:
        """Return it as heartbeats name it."""
        request = self.request
        return RunningFold(fold_id=request.fold_id, attempt=request.attempt, delivery=request.delivery)


@dataclass(eq=False, slots=True)
class SplitRun(Run):
    """One split; `done` ends with it, `accepted` says that its record is this runner's no more."""

    request: SplitRequested
    work: Work
    taken_at: float
    accepted: bool = False
    done: Future[None] = field(default_factory=Future)
