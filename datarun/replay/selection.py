"""Which records of the log are meant: a span of offsets, a span of time by the broker's clock, and what they are."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime

from datarun.envelope import decode, header
from datarun.errors import DatarunError, Rejected
from datarun.events import EVENT_TYPES, Event
from datarun.log import EventLog, StoredRecord
from datarun.projection.offsets import Offsets
from datarun.replay.expressions import condition
from datarun.topics import DEAD_LETTERS, FOLD_REQUESTS_HIGH, FOLD_REQUESTS_LOW, TOPICS, Catalogue, Topic


class UnknownName(DatarunError):
    """There is no such topic or event."""


@dataclass(frozen=True, slots=True)
class Selection:
    """What to replay, as it was asked for; what is not given restricts nothing."""

    topics: Sequence[str] = ()
    types: Sequence[str] = ()
    keys: Sequence[str] = ()
    raw_data_id: int | None = None
    submission_id: int | None = None
    where: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    from_offset: int | None = None
    to_offset: int | None = None

    def chosen_topics(self) -> list[Topic]:
        """Return the topics to read; raises UnknownName. Dead letters are `datarun dlq`'s."""
        known = {topic.name: topic for topic in TOPICS if topic is not DEAD_LETTERS}
        for name in self.topics:
            if name not in known:
                raise UnknownName(f"there is no topic {name!r}: {', '.join(known)}")
        return [known[name] for name in dict.fromkeys(self.topics)] or list(known.values())

    def span(self, log: EventLog, *, catalogue: Catalogue) -> tuple[Offsets, Offsets]:
        """Return where to begin and where to end in every partition; raises LogUnavailable."""
        names = [catalogue.full_name(topic) for topic in self.chosen_topics()]
        starts, ends = log.start_offsets(names), log.end_offsets(names)
        if self.to_offset is not None:
            ends = {tp: min(end, self.to_offset) for tp, end in ends.items()}
        starts = {tp: max(start, self.from_offset or 0) for tp, start in starts.items()}
        return starts, {tp: max(end, starts[tp]) for tp, end in ends.items()}


class Filter:
    """Tells records that are meant from others."""

    def __init__(self, selection: Selection, folds: Collection[bytes] = ()) -> None:
        """Keep the keys of the folds of the dataset and submission that are meant: some events name neither.

        Raises UnknownName or BadExpression for what can never be meant.
        """
        names = {kind.__name__ for kind in EVENT_TYPES}
        unknown = [name for name in selection.types if name not in names]
        if unknown:
            raise UnknownName(f"there is no event {unknown[0]!r}: {', '.join(sorted(names))}")
        self.selection = selection
        self._folds = frozenset(folds)
        self._types = frozenset(selection.types)
        self._keys = frozenset(key.encode() for key in selection.keys)
        self._condition = condition(selection.where) if selection.where else None

    def takes(self, record: StoredRecord) -> bool:
        """Tell whether a record is meant; one that is no event only if nothing is asked of events."""
        return self._is_in_time(record) and self._has_place(record) and self._is_meant(record)

    def _is_in_time(self, record: StoredRecord) -> bool:
        since, until, seconds = self.selection.since, self.selection.until, record.timestamp_ms / 1000
        return (since is None or seconds >= since.timestamp()) and (until is None or seconds < until.timestamp())

    def _has_place(self, record: StoredRecord) -> bool:
        if self._keys and record.key not in self._keys:
            return False
        name = (header(record.headers, "ce_type") or "").removeprefix("datarun.").rpartition(".v")[0]
        return not self._types or name in self._types

    def _is_meant(self, record: StoredRecord) -> bool:
        selection = self.selection
        if self._condition is None and selection.raw_data_id is None and selection.submission_id is None:
            return True
        with suppress(Rejected):
            event = decode(record.value, record.headers)
            return self._is_of(event, record) and (self._condition is None or self._condition(event))
        return False

    def _is_of(self, event: Event, record: StoredRecord) -> bool:
        wanted = self.selection
        dataset = getattr(event, "raw_data_id", None) or getattr(getattr(event, "dataset", None), "raw_data_id", None)
        submission = getattr(event, "submission_id", None)
        if hasattr(event, "fold_id") and dataset is None and submission is None:
            return (wanted.raw_data_id is None and wanted.submission_id is None) or record.key in self._folds
        return wanted.raw_data_id in (None, dataset) and wanted.submission_id in (None, submission)


def filter_of(selection: Selection, log: EventLog, *, catalogue: Catalogue) -> Filter:
    """Return a selection's filter, having looked up the folds of its dataset and submission; raises LogUnavailable."""
    named = Filter(selection)
    if selection.raw_data_id is None and selection.submission_id is None:
        return named
    requests = Filter(Selection(raw_data_id=selection.raw_data_id, submission_id=selection.submission_id))
    ends = log.end_offsets([catalogue.full_name(topic) for topic in (FOLD_REQUESTS_HIGH, FOLD_REQUESTS_LOW)])
    records = (one for batch in log.read(dict.fromkeys(ends, 0), until_end=True) for one in batch)
    return Filter(selection, {one.key for one in records if one.key is not None and requests.takes(one)})
