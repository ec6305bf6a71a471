"""Which records of the log are meant: by topic, offset and time, by type and key, by dataset and submission."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from datarun.envelope import check_route, decode, header
from datarun.errors import Rejected
from datarun.events import Dataset, Event
from datarun.log import EventLog, StoredRecord, TopicPartition
from datarun.topics import TOPICS, Catalogue, Topic

Progress = Callable[[int, int], None]
"""Told how many offsets were passed and how many there are to pass."""


class Entry(NamedTuple):
    """A record and what it says, or why it says nothing."""

    record: StoredRecord
    event: Event | None
    refusal: Rejected | None


@dataclass(frozen=True, slots=True)
class Selection:
    """What is wanted; an empty set, or None, means that it does not matter. Times are the broker's, in ms."""

    topics: tuple[Topic, ...] = TOPICS
    partition: int | None = None
    first_offset: int = 0
    stop_offset: int | None = None
    since_ms: int | None = None
    until_ms: int | None = None
    types: frozenset[str] = frozenset()
    keys: frozenset[bytes] = frozenset()
    datasets: frozenset[int] = frozenset()
    submissions: frozenset[int] = frozenset()

    def takes_record(self, record: StoredRecord) -> bool:
        """Tell whether a record is meant, as far as that shows without decoding it."""
        return (
            (self.stop_offset is None or record.offset < self.stop_offset)
            and (self.since_ms is None or record.timestamp_ms >= self.since_ms)
            and (self.until_ms is None or record.timestamp_ms < self.until_ms)
            and (not self.keys or record.key in self.keys)
            and (not self.types or type_named(record) in self.types)
        )

    def takes_event(self, event: Event | None) -> bool:
        """Tell whether an event is meant; what cannot be decoded is about nothing."""
        return (not self.datasets or dataset_of(event) in self.datasets) and (
            not self.submissions or getattr(event, "submission_id", None) in self.submissions
        )

    def start(self, event_log: EventLog, catalogue: Catalogue) -> dict[TopicPartition, int]:
        """Return from where each partition is to be read."""
        kept = event_log.start_offsets([catalogue.full_name(topic) for topic in self.topics])
        wanted = {tp: first for tp, first in kept.items() if self.partition in (None, tp.partition)}
        return {tp: max(first, self.first_offset) for tp, first in wanted.items()}


def select(
    event_log: EventLog, selection: Selection, *, catalogue: Catalogue, progress: Progress = lambda _done, _all: None
) -> Iterator[Entry]:
    """Yield what the log has of a selection at this moment, each partition in order."""
    start = selection.start(event_log, catalogue)
    ends = event_log.end_offsets(sorted({tp.topic for tp in start}))
    left = {tp: first for tp, first in start.items() if first < ends[tp]}
    total, passed = sum(ends[tp] - first for tp, first in left.items()), 0
    for batch in event_log.read(left, until_end=True) if left else ():
        yield from _taken(batch, selection, catalogue)
        passed += len(batch)
        progress(passed, total)


def follow(event_log: EventLog, selection: Selection, *, catalogue: Catalogue) -> Iterator[list[Entry]]:
    """Yield what is appended to the log from now on, for ever; nothing, now and then, while nothing comes."""
    start = selection.start(event_log, catalogue)
    ends = event_log.end_offsets(sorted({tp.topic for tp in start}))
    for batch in event_log.read({tp: ends[tp] for tp in start}):
        yield list(_taken(batch, selection, catalogue))


def entry(record: StoredRecord, *, catalogue: Catalogue) -> Entry:
    """Return a record with its event, or with the reason it would be a dead letter for."""
    try:
        event = decode(record.value, record.headers)
        check_route(event, record, catalogue=catalogue)
    except Rejected as refusal:
        return Entry(record, None, refusal)
    return Entry(record, event, None)


def type_named(record: StoredRecord) -> str:
    """Return the type that a record's header names, without its version."""
    return (header(record.headers, "ce_type") or "").removeprefix("datarun.").partition(".")[0]


def dataset_of(event: Event | None) -> int | None:
    """Return the dataset that an event names, directly or in its manifest."""
    dataset = getattr(event, "dataset", None)
    if isinstance(dataset, Dataset):
        return dataset.raw_data_id
    number: int | None = getattr(event, "raw_data_id", None)
    return number


def _taken(batch: list[StoredRecord], selection: Selection, catalogue: Catalogue) -> Iterator[Entry]:
    for record in filter(selection.takes_record, batch):
        found = entry(record, catalogue=catalogue)
        if selection.takes_event(found.event):
            yield found
