"""Which records are meant, beyond what `datarun events` asks: a condition, and a submission's fetches and fences."""

from __future__ import annotations

from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass, replace

from datarun.envelope import decode
from datarun.errors import DatarunError, Rejected
from datarun.events import EVENT_TYPES, Event
from datarun.log import EventLog, StoredRecord
from datarun.log.selection import Selection, dataset_of
from datarun.projection.offsets import Offsets
from datarun.replay.expressions import condition
from datarun.topics import FOLD_REQUESTS_HIGH, FOLD_REQUESTS_LOW, Catalogue


class UnknownType(DatarunError):
    """There is no such event."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """A selection and a condition on the fields of its events."""

    selection: Selection
    where: str | None = None

    def span(self, log: EventLog, *, catalogue: Catalogue) -> tuple[Offsets, Offsets]:
        """Return where to begin and where to end in every partition; raises LogUnavailable."""
        selection = self.selection
        starts = selection.start(log, catalogue)
        ends = log.end_offsets(sorted({tp.topic for tp in starts}))
        stop = selection.stop_offset
        ends = {tp: end if stop is None else min(end, stop) for tp, end in ends.items() if tp in starts}
        if selection.since_ms is not None:
            since = log.offsets_at(starts, selection.since_ms)
            starts = {tp: max(start, since[tp]) for tp, start in starts.items()}
        return starts, {tp: max(end, starts[tp]) for tp, end in ends.items()}


class Filter:
    """Tells records that are meant from others."""

    def __init__(self, wanted: Wanted, folds: Collection[bytes] = ()) -> None:
        """Keep the keys of the folds of the datasets and submissions that are meant: some events name neither.

        Raises UnknownType or BadExpression for what can never be meant.
        """
        names = {kind.__name__ for kind in EVENT_TYPES}
        unknown = sorted(wanted.selection.types - names)
        if unknown:
            raise UnknownType(f"there is no event {unknown[0]!r}: {', '.join(sorted(names))}")
        self._selection = wanted.selection
        self._folds = frozenset(folds)
        self._condition = condition(wanted.where) if wanted.where else None

    def takes(self, record: StoredRecord) -> bool:
        """Tell whether a record is meant; one that is no event only if nothing is asked of events."""
        if not self._selection.takes_record(record):
            return False
        if self._condition is None and not self._selection.datasets and not self._selection.submissions:
            return True
        with suppress(Rejected):
            event = decode(record.value, record.headers)
            return self._is_of(event, record) and (self._condition is None or self._condition(event))
        return False

    def _is_of(self, event: Event, record: StoredRecord) -> bool:
        if hasattr(event, "fold_id") and dataset_of(event) is None and not hasattr(event, "submission_id"):
            return record.key in self._folds or not (self._selection.datasets or self._selection.submissions)
        return self._selection.takes_event(event)


def filter_of(wanted: Wanted, log: EventLog, *, catalogue: Catalogue) -> Filter:
    """Return what is wanted as a filter, having looked up the folds that are meant; raises LogUnavailable."""
    named, selection = Filter(wanted), wanted.selection
    if not selection.datasets and not selection.submissions:
        return named
    whose = Selection(datasets=selection.datasets, submissions=selection.submissions)
    requests = Filter(Wanted(replace(whose, topics=(FOLD_REQUESTS_HIGH, FOLD_REQUESTS_LOW))))
    ends = log.end_offsets([catalogue.full_name(topic) for topic in (FOLD_REQUESTS_HIGH, FOLD_REQUESTS_LOW)])
    records = (one for batch in log.read(dict.fromkeys(ends, 0), until_end=True) for one in batch)
    return Filter(wanted, {one.key for one in records if one.key is not None and requests.takes(one)})
