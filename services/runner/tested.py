"""Finding the folds that were tested in the log, in two passes that keep a few numbers a fold, no event.

What counts of an attempt is its first terminal event; of a fold, its newest attempt that ended.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from datarun import envelope
from datarun.errors import Rejected
from datarun.events import Event, FoldFailed, FoldRequested, FoldTested
from datarun.log import EventLog, Position, StoredRecord
from datarun.topics import FOLD_EVENTS, FOLD_REQUESTS_HIGH, FOLD_REQUESTS_LOW, Catalogue, Topic

Progress = Callable[[int, int], None]
"""Told how many records were read and how many there are to read."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which tested folds: those named, or those of a dataset and a submission, or all; as many of them at the most."""

    fold_ids: Sequence[int] = ()
    raw_data_id: int | None = None
    submission_id: int | None = None
    sample: int | None = None

    def includes(self, event: FoldTested | FoldFailed) -> bool:
        """Tell whether a result is of a wanted dataset and submission."""
        return self.raw_data_id in (None, event.raw_data_id) and self.submission_id in (None, event.submission_id)


@dataclass(frozen=True, slots=True)
class TestedFold:
    """Where the log has the request and the result of one tested fold."""

    fold_id: int
    request: Position
    result: Position


@dataclass(slots=True)
class Found:
    """The folds that can be run again, and why others cannot, by their id."""

    folds: list[TestedFold] = field(default_factory=list)
    problems: dict[int, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Ending:
    attempt: int
    delivery: int
    tested: bool
    position: Position


def find(log: EventLog, wanted: Wanted, *, catalogue: Catalogue, progress: Progress) -> Found:
    """Return the tested folds that are wanted, by their ids; raises LogUnavailable."""
    keys = {str(fold_id).encode() for fold_id in wanted.fold_ids} or None
    records = _Records(log, catalogue, progress)
    endings = _endings(records.of([FOLD_EVENTS], FoldTested, FoldFailed, keys=keys), wanted)
    chosen = _chosen(endings, wanted)
    keys = {str(fold_id).encode() for fold_id in (*chosen, *wanted.fold_ids)}
    requests = _requests(records.of([FOLD_REQUESTS_HIGH, FOLD_REQUESTS_LOW], FoldRequested, keys=keys), endings)
    found = Found()
    for fold_id in sorted({*chosen, *wanted.fold_ids}):
        ending, request = endings.get(fold_id), requests.get(fold_id)
        if ending is not None and ending.tested and request is not None:
            found.folds.append(TestedFold(fold_id, request, ending.position))
        else:
            found.problems[fold_id] = _problem(ending, requested=fold_id in requests)
    return found


class _Records:
    """Reads topics from their beginning to their present end."""

    def __init__(self, log: EventLog, catalogue: Catalogue, progress: Progress) -> None:
        self._log = log
        self._catalogue = catalogue
        self._progress = progress

    def of(
        self, topics: Sequence[Topic], *kinds: type[Event], keys: set[bytes] | None
    ) -> Iterator[tuple[Event, StoredRecord]]:
        """Yield the events of some kinds, of all folds or of those with one of the keys; what is no event is passed."""
        ends = self._log.end_offsets([self._catalogue.full_name(topic) for topic in topics])
        wire_types = {kind.type_name() for kind in kinds}
        seen, total = 0, sum(ends.values())
        for batch in self._log.read(dict.fromkeys(ends, 0), until_end=True):
            for record in batch:
                # Most are passed by their key or their header; decoding is what takes time.
                if (keys is None or record.key in keys) and envelope.header(record.headers, "ce_type") in wire_types:
                    with suppress(Rejected):
                        yield self._decoded(record), record
            seen += len(batch)
            self._progress(seen, total)

    def _decoded(self, record: StoredRecord) -> Event:
        event = envelope.decode(record.value, record.headers)
        envelope.check_route(event, record, catalogue=self._catalogue)
        return event


def _endings(results: Iterator[tuple[Event, StoredRecord]], wanted: Wanted) -> dict[int, _Ending]:
    endings: dict[int, _Ending] = {}
    for event, record in results:
        if not isinstance(event, FoldTested | FoldFailed) or not wanted.includes(event):
            continue
        kept = endings.get(event.fold_id)
        if kept is None or event.attempt > kept.attempt:
            tested = isinstance(event, FoldTested)
            endings[event.fold_id] = _Ending(event.attempt, event.delivery, tested, record.position)
    return endings


def _chosen(endings: dict[int, _Ending], wanted: Wanted) -> list[int]:
    """Return the folds to run again, a sample of them if that is wanted."""
    tested = [fold_id for fold_id, ending in endings.items() if ending.tested]
    if wanted.sample is None or wanted.sample >= len(tested):
        return tested
    return secrets.SystemRandom().sample(tested, wanted.sample)


def _requests(
    requests: Iterator[tuple[Event, StoredRecord]], endings: dict[int, _Ending]
) -> dict[int, Position | None]:
    """Return where the request of each ended delivery is, None for a fold of which only other requests are there."""
    found: dict[int, Position | None] = {}
    for event, record in requests:
        assert isinstance(event, FoldRequested)  # noqa: S101 - no other kind was asked for
        ending = endings.get(event.fold_id)
        is_it = ending is not None and (event.attempt, event.delivery) == (ending.attempt, ending.delivery)
        if found.get(event.fold_id) is None:
            found[event.fold_id] = record.position if is_it else None
    return found


def _problem(ending: _Ending | None, *, requested: bool) -> str:
    if ending is None:
        return "has no result yet" if requested else "is not in the log"
    if not ending.tested:
        return "failed: there are no test predictions to reproduce"
    return "was tested, but its request is not in the log"
