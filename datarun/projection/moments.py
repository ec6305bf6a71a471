"""What the log said at a moment of some folds and datasets, read within bounds and folded in memory.

The queues come first, for they tell which folds are meant; of the other topics only the partitions of their keys are
read, and only their records are decoded. So memory is that of the folds asked for, however long the log is.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from typing import cast

from datarun.envelope import check_route, decode
from datarun.errors import Rejected
from datarun.events import DataSplit, DataUploaded, Event, FoldFailed, FoldRequested, FoldTested, SplitFailed
from datarun.log import EventLog, StoredRecord
from datarun.log.span import Bounds, Span
from datarun.partitioner import partition_of
from datarun.projection.evolve import Projected, Registers, evolve
from datarun.topics import DATA_EVENTS, DATA_REQUESTS, FOLD_EVENTS, FOLD_REQUESTS_HIGH, FOLD_REQUESTS_LOW, Catalogue

IsMeant = Callable[[FoldRequested], bool]


class Lowest:
    """The lowest numbers of those offered, so many at the most; what was let go never comes back."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._heap: list[int] = []
        self._kept: set[int] = set()
        self.is_cut = False
        """Whether there were more."""

    def offer(self, number: int) -> int | None:
        """Take a number if it is low enough, and return one that is let go for it."""
        if number in self._kept:
            return None
        if len(self._heap) < self._most:
            heapq.heappush(self._heap, -number)
            self._kept.add(number)
            return None
        self.is_cut = True
        gone = -heapq.heappushpop(self._heap, -number)
        self._kept.add(number)
        self._kept.remove(gone)
        return gone

    def __contains__(self, number: int) -> bool:
        return number in self._kept

    def __iter__(self) -> Iterator[int]:
        return iter(sorted(self._kept))

    def __len__(self) -> int:
        return len(self._kept)


@dataclass(frozen=True, slots=True)
class Reading:
    """A log, a moment, and how much may be read for it; `since_ms` is where what is asked for began."""

    log: EventLog
    catalogue: Catalogue
    since_ms: int
    until_ms: int
    bounds: Bounds

    def of(self, *topics: str, partitions: Collection[int] | None = None) -> Iterator[StoredRecord]:
        """Yield the records of some topics, named without their prefix; raises TooLong, TooSlow, LogUnavailable."""
        names = [self.catalogue.prefix + topic for topic in topics]
        since, until = self.since_ms, self.until_ms
        span = Span.between(self.log, names, since_ms=since, until_ms=until, partitions=partitions)
        return span.records(self.log, self.bounds)

    def event(self, record: StoredRecord) -> Event | None:
        """Return the event of a record, None of what the projection would set aside."""
        try:
            event = decode(record.value, record.headers)
            check_route(event, record, catalogue=self.catalogue)
        except Rejected:
            return None
        return event


@dataclass(slots=True)
class Folds:
    """Folds as they were, and what was known of their submissions."""

    ids: Lowest
    registers: Registers = field(default_factory=Registers)
    versions: dict[int, int] = field(default_factory=dict)
    """The newest version of each submission."""

    def ask(self, event: FoldRequested, record: StoredRecord, *, is_meant: bool) -> None:
        """Take a request into account."""
        newest = self.versions.get(event.submission_id, 0)
        self.versions[event.submission_id] = max(newest, event.submission_version)
        if not is_meant:
            return
        gone = self.ids.offer(event.fold_id)
        if gone is not None:
            self.registers.requests.pop(gone, None)
        if event.fold_id in self.ids:
            evolve(self.registers, event, _bare(record))


def read_requests(reading: Reading, *, is_meant: IsMeant, most: int, in_full: bool = False) -> Folds:
    """Return the requests of the folds with the lowest numbers of those meant; raises as Reading does.

    Without `in_full` the files of submissions and datasets are left out.
    """
    found = Folds(Lowest(most))
    for record in reading.of(FOLD_REQUESTS_HIGH.name, FOLD_REQUESTS_LOW.name):
        event = reading.event(record)
        if isinstance(event, FoldRequested):
            found.ask(event if in_full else _without_files(event), record, is_meant=is_meant(event))
    return found


def read_runs(reading: Reading, found: Folds, *, in_full: bool = False) -> None:
    """Add what happened to the folds; raises as Reading does. Without `in_full` messages and logs are left out."""
    keys = {b"%d" % number for number in found.ids}
    if not keys:
        return
    partitions = {partition_of(key, FOLD_EVENTS.partitions) for key in keys}
    for record in reading.of(FOLD_EVENTS.name, partitions=partitions):
        event = reading.event(record) if record.key in keys else None
        if event is not None:
            evolve(found.registers, cast("Projected", event if in_full else _without_texts(event)), _bare(record))


def read_datasets(reading: Reading, *, is_meant: Callable[[int], bool], most: int) -> tuple[Registers, Lowest]:
    """Return the datasets with the lowest numbers of those meant, with their splits; raises as Reading does.

    Some may not have been uploaded: a split can be said of what is not there.
    """
    registers, ids = Registers(), Lowest(most)
    for record in reading.of(DATA_EVENTS.name):
        event = reading.event(record)
        if not isinstance(event, DataUploaded | DataSplit | SplitFailed) or not is_meant(event.raw_data_id):
            continue
        _forget(registers, ids.offer(event.raw_data_id))
        if event.raw_data_id in ids:
            evolve(registers, event, _bare(record))
    keys = {b"%d" % number for number in ids}
    for record in reading.of(DATA_REQUESTS.name):
        event = reading.event(record) if record.key in keys else None
        if event is not None:
            evolve(registers, cast("Projected", event), _bare(record))
    return registers, ids


def _forget(registers: Registers, raw_data_id: int | None) -> None:
    if raw_data_id is not None:
        registers.uploads.pop(raw_data_id, None)
        registers.split_results.pop(raw_data_id, None)


def _bare(record: StoredRecord) -> StoredRecord:
    """Return a record without its bytes, which its event says."""
    return record._replace(value=None, headers=())


def _without_files(event: FoldRequested) -> FoldRequested:
    dataset = event.dataset.model_copy(update={"files": (), "split": None, "split_error": None})
    return event.model_copy(update={"files": (), "dataset": dataset})


def _without_texts(event: Event) -> Event:
    match event:
        case FoldTested():
            return event.model_copy(update={"log": ""})
        case FoldFailed():
            return event.model_copy(update={"log": "", "message": ""})
        case _:
            return event
