"""A log cut into slices of about the same number of records, each with what happened at about the same time."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass

from datarun.log import EventLog
from datarun.projection.offsets import Offsets

GUESSES = 50
"""More than it takes to halve all milliseconds since 1970 down to one."""
FEWEST, MOST = 0.7, 1.3
"""A slice is as large as was asked for, or a little smaller or larger."""


def slices(event_log: EventLog, start: Offsets, until: Offsets, *, records: int) -> Iterator[tuple[Offsets, Offsets]]:
    """Yield from where to where each slice goes, about so many records; raises LogUnavailable.

    Where times do not part the records, as many are taken of each partition.
    """
    cuts = _Cuts(event_log, until, records, latest=int(time.time() * 1000) + 1)
    while _between(start, until) > MOST * records:
        end = cuts.after(start)
        yield start, end
        start = end
    if start != until:
        yield start, until


@dataclass(slots=True)
class _Cuts:
    log: EventLog
    until: Offsets
    records: int
    latest: int
    moment: int = 0
    """Of the last cut (ms)."""
    step: int = 0
    """Between the last two: the next one is looked for as far away."""

    def after(self, start: Offsets) -> Offsets:
        """Return where the slice ends that begins there."""
        low, high, guess = self.moment, self.latest, self.moment + self.step
        for _ in range(GUESSES):
            if high - low <= 1:
                break
            at = guess if self.step and low < guess < high else (low + high) // 2
            end = self._before(at, start)
            count = _between(start, end)
            if FEWEST * self.records <= count <= MOST * self.records:
                self.step = at - self.moment if self.moment else 0
                self.moment = at
                return end
            guess = self.moment + (at - self.moment) * self.records // max(count, 1)
            low, high = (low, at) if count > self.records else (at, high)
        return {tp: min(offset + self.records, self.until[tp]) for tp, offset in start.items()}

    def _before(self, moment: int, start: Offsets) -> Offsets:
        found = self.log.offsets_at(start, moment)
        return {tp: min(max(found[tp], offset), self.until[tp]) for tp, offset in start.items()}


def _between(start: Offsets, end: Offsets) -> int:
    return sum(end.values()) - sum(start.values())
