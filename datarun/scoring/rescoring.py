"""New scores over the whole history: rows in a fixed order, group by group, so that it can be gone on with.

Nothing is asked of a runner and nothing is appended to the log: it is read, and blobs are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from datarun.scoring.folds import Part, Scored, Scorer, Scores, Wanted
from datarun.scoring.history import Attempt, Group, History, Status
from datarun.scoring.metrics import Metric

Told = Callable[[int, int], None]
"""Told how many attempts are scored and how many there are."""


class Row(NamedTuple):
    """One score; of `bagged` the fold is the last one in the bag, and `folds` tells how many are."""

    kind: Literal["fold", "bagged"]
    dataset_id: int
    submission_id: int
    submission_version: int
    fold_id: int
    attempt: int
    status: Status
    part: Part
    metric: str
    value: float | None
    folds: int
    reason: str | None

    def told(self) -> dict[str, Any]:
        """Return it as names and values."""
        return self._asdict()


@dataclass(frozen=True, slots=True)
class Rescoring:
    """What is to be scored, how and what of it."""

    history: History
    scorer: Scorer
    metrics: Sequence[Metric]
    parts: Sequence[Part] = tuple(Part)

    def rows(self, *, done: int = 0, told: Told = lambda _, __: None) -> Iterator[list[Row]]:
        """Yield the rows of each group but for those that are done; raises BlobsUnavailable."""
        scored = 0
        for number, (group, attempts) in enumerate(self.history.groups.items()):
            if number >= done:
                yield list(self._group(group, attempts))
            scored += len(attempts)
            told(scored, self.history.attempts)

    def _group(self, group: Group, attempts: Sequence[Attempt]) -> Iterator[Row]:
        """Yield a group's rows: each fold's, then those of the bags; of a fold's attempts the newest is bagged."""
        newest = [attempt for attempt in attempts if attempt.is_newest]
        bagged = self.scorer.score([attempt.fold for attempt in newest], self.metrics, self.parts)
        own = {id(attempt): scored for attempt, scored in zip(newest, bagged, strict=True)}
        for attempt in attempts:
            scored = own.get(id(attempt)) or self.scorer.score([attempt.fold], self.metrics, self.parts)[0]
            yield from _rows("fold", group, attempt, scored.own)
        for attempt, scored in zip(newest, bagged, strict=True):
            yield from _rows("bagged", group, attempt, scored.bagged, scored)


def _rows(
    kind: Literal["fold", "bagged"], group: Group, attempt: Attempt, scores: Scores, bag: Scored | None = None
) -> Iterator[Row]:
    whose = (group.raw_data_id, group.submission_id, group.version, attempt.fold_id, attempt.attempt)
    which: Wanted
    for which, found in scores.items():
        part, metric = which
        folds = bag.in_bag[part] if bag else 1
        yield Row(kind, *whose, attempt.status, part, metric, found.value, folds, found.reason)
