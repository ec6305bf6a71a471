"""Which runs are lost: pure rules over what heartbeats say, on the caller's own monotonic clock.

A run is lost when its runner has been silent for a lease, or has spoken twice since without naming it. No clock of
another machine decides anything: silence is a sequence that does not change while the caller watches.

A split has no started event, so nobody knows whether it still waits in its queue. It is asked for again when it has
had no result for a while and no runner that speaks names it; run twice, the first result wins.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

LEASE_SECONDS = 10.0
"""How long a runner may be silent; it speaks every two seconds."""
HEARTBEATS_WITHOUT = 2
"""So many heartbeats younger than a run must not name it before it counts as dropped; one may have been under way."""
LONGEST_LOOK_AWAY_SECONDS = 7.0
"""Who has not looked for longer may have been cut off from the log just as well as the runners; with the two seconds
between heartbeats it is less than a lease."""


PATIENCE_SECONDS = 60.0
"""How long a split may go unnamed before it is asked for again; doubled each time, up to an hour."""
LONGEST_PATIENCE_SECONDS = 3600.0


class Run(NamedTuple):
    """One delivery of an attempt that a runner has started."""

    fold_id: int
    attempt: int
    delivery: int
    runner_id: str


@dataclass(frozen=True, slots=True)
class Runner:
    """What a runner's newest heartbeat says."""

    sequence: int
    running: frozenset[tuple[int, int, int]]
    """(fold_id, attempt, delivery) of everything it holds."""


class Leases:
    """Watches runners; `restart` it whenever heartbeats could have gone unseen."""

    def __init__(self, lease_seconds: float = LEASE_SECONDS) -> None:
        self._lease_seconds = lease_seconds
        self._heard: dict[str, tuple[int, float]] = {}
        self._seen_at: dict[Run, int] = {}
        self._looked_at = -math.inf

    def restart(self) -> None:
        """Give every runner a full lease and every run two heartbeats."""
        self._heard.clear()
        self._seen_at.clear()

    def lost(
        self, runs: Iterable[Run], runners: Mapping[str, Runner], *, now: float, as_of: float | None = None
    ) -> list[Run]:
        """Return the runs that are lost, given every runner's newest heartbeat as it was read at `now`.

        Heartbeats that were sent after `as_of` may be missing: silence lasts until then. Both are monotonic seconds.
        """
        if now - self._looked_at > LONGEST_LOOK_AWAY_SECONDS:
            self.restart()
        self._looked_at = now
        until = now if as_of is None else as_of
        present = frozenset(runs)
        self._listen({run.runner_id for run in present}, runners, now)
        self._seen_at = {run: self._seen_at.get(run, _sequence(runners.get(run.runner_id))) for run in present}
        return sorted(run for run in present if self._silent(run, until) or self._dropped(run, runners))

    def _listen(self, runner_ids: Iterable[str], runners: Mapping[str, Runner], now: float) -> None:
        heard: dict[str, tuple[int, float]] = {}
        for runner_id in runner_ids:
            sequence = _sequence(runners.get(runner_id))
            before = self._heard.get(runner_id)
            heard[runner_id] = before if before is not None and before[0] == sequence else (sequence, now)
        self._heard = heard

    def _silent(self, run: Run, until: float) -> bool:
        _, since = self._heard[run.runner_id]
        return until - since >= self._lease_seconds

    def _dropped(self, run: Run, runners: Mapping[str, Runner]) -> bool:
        runner = runners.get(run.runner_id)
        if runner is None or runner.sequence < self._seen_at[run] + HEARTBEATS_WITHOUT:
            return False
        return (run.fold_id, run.attempt, run.delivery) not in runner.running


def _sequence(runner: Runner | None) -> int:
    return -1 if runner is None else runner.sequence


class PendingSplit(NamedTuple):
    """A split that was asked for and has no result."""

    raw_data_id: int
    attempt: int


class SplitPatience:
    """Watches pending splits; `restart` it whenever heartbeats could have gone unseen."""

    def __init__(self, patience_seconds: float = PATIENCE_SECONDS) -> None:
        self._patience_seconds = patience_seconds
        self._heard: dict[str, int] = {}
        self._waits: dict[PendingSplit, tuple[float, float]] = {}

    def restart(self) -> None:
        """Give every split its patience anew."""
        self._waits.clear()

    def overdue(
        self, pending: Iterable[PendingSplit], named: Mapping[str, tuple[int, frozenset[int]]], *, now: float
    ) -> list[PendingSplit]:
        """Return the splits to ask for again at `now`, given each runner's sequence and the datasets it splits."""
        held = self._newly_named(named)
        waits: dict[PendingSplit, tuple[float, float]] = {}
        overdue = []
        for split in sorted(set(pending)):
            patience, since = self._waits.get(split, (self._patience_seconds, now))
            if split.raw_data_id in held:
                since = now
            elif now - since >= patience:
                overdue.append(split)
                patience, since = min(patience * 2, LONGEST_PATIENCE_SECONDS), now
            waits[split] = (patience, since)
        self._waits = waits
        return overdue

    def _newly_named(self, named: Mapping[str, tuple[int, frozenset[int]]]) -> frozenset[int]:
        """Return what runners name in heartbeats not heard before; a silent runner's last one counts once."""
        fresh = [ids for runner_id, (sequence, ids) in named.items() if self._heard.get(runner_id) != sequence]
        self._heard = {runner_id: sequence for runner_id, (sequence, _) in named.items()}
        return frozenset().union(*fresh)
