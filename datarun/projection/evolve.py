"""Which event each part of a row is made from: registers in memory, pure.

A register keeps the greatest event by a total order, so any interleaving, duplication and batching ends the same.
The order of a fold's run is `datarun.lifecycle.order`; `statements` says the same orders in SQL.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, NamedTuple, TypeVar

from datarun.events import (
    DataSplit,
    DataUploaded,
    Event,
    FoldCancelled,
    FoldFailed,
    FoldHandedBack,
    FoldLost,
    FoldReproduced,
    FoldRequested,
    FoldStarted,
    FoldTested,
    FoldTrained,
    PredictionsFetched,
    RunnerHeartbeat,
    SplitFailed,
    SplitRequested,
)
from datarun.lifecycle import RANK_OF, Rank, order
from datarun.log import StoredRecord
from datarun.projection.forms import FORMS
from datarun.projection.text import storable

RunOfDelivery = FoldStarted | FoldTrained | FoldTested | FoldFailed | FoldLost | FoldHandedBack
RunOfFold = RunOfDelivery | FoldCancelled
"""What fills a fold's run register."""
Projected = (
    RunOfFold
    | FoldRequested
    | FoldReproduced
    | PredictionsFetched
    | RunnerHeartbeat
    | DataUploaded
    | SplitRequested
    | DataSplit
    | SplitFailed
)
"""Every event the projection meets."""

NO_DELIVERY = 0
"""Who cancels a fold knows nothing of deliveries; among terminal events they count for nothing."""
E = TypeVar("E")


class Kept(NamedTuple, Generic[E]):
    """The event a register holds, where it stands in the register's order, and the record it came in, without bytes."""

    order: tuple[Any, ...]
    event: E
    record: StoredRecord


@dataclass(slots=True)
class Registers:
    """What some stretch of the log says: at most one event a register, whatever its length."""

    requests: dict[int, Kept[FoldRequested]] = field(default_factory=dict)
    runs: dict[int, Kept[RunOfFold]] = field(default_factory=dict)
    fetches: dict[int, Kept[PredictionsFetched]] = field(default_factory=dict)
    submissions: dict[int, Kept[FoldRequested]] = field(default_factory=dict)
    uploads: dict[int, Kept[DataUploaded]] = field(default_factory=dict)
    split_requests: dict[int, Kept[SplitRequested]] = field(default_factory=dict)
    split_results: dict[int, Kept[DataSplit | SplitFailed]] = field(default_factory=dict)
    heartbeats: dict[str, Kept[RunnerHeartbeat]] = field(default_factory=dict)


def evolve(into: Registers, event: Projected, record: StoredRecord) -> None:
    """Take an event into the registers it may fill."""
    # Not `match`: its isinstance asks pydantic's metaclass for every case, half of the time a replay takes.
    _TAKERS[type(event)](into, event, record)


def _run(into: Registers, event: RunOfDelivery, record: StoredRecord) -> None:
    run = (event.attempt, event.delivery, RANKS[type(event)])
    _keep(into.runs, event.fold_id, order(run), event, record)


def _cancel(into: Registers, event: FoldCancelled, record: StoredRecord) -> None:
    run = (event.attempt, NO_DELIVERY, RANK_OF[FoldCancelled])
    _keep(into.runs, event.fold_id, order(run), event, record)


def _request(into: Registers, event: FoldRequested, record: StoredRecord) -> None:
    # The same request may be in its queue twice: the last is where the fold waits, and since when.
    order = (event.attempt, event.delivery, record.position)
    _keep(into.requests, event.fold_id, order, event, record)
    version = (event.submission_version, event.dataset.raw_data_id)
    _keep(into.submissions, event.submission_id, version, event, record)


def _fetch(into: Registers, event: PredictionsFetched, record: StoredRecord) -> None:
    _keep(into.fetches, event.fold_id, (event.attempt,), event, record)


def _pass(_into: Registers, _event: FoldReproduced, _record: StoredRecord) -> None:
    """Leave the rows as they are: a second run of a fold says nothing about the fold's state."""


def _heartbeat(into: Registers, event: RunnerHeartbeat, record: StoredRecord) -> None:
    _keep(into.heartbeats, storable(event.runner_id), (event.sequence,), event, record)


def _upload(into: Registers, event: DataUploaded, record: StoredRecord) -> None:
    _keep(into.uploads, event.raw_data_id, (), event, record)


def _split_request(into: Registers, event: SplitRequested, record: StoredRecord) -> None:
    _keep(into.split_requests, event.raw_data_id, (event.attempt,), event, record)


def _split_result(into: Registers, event: DataSplit | SplitFailed, record: StoredRecord) -> None:
    _keep(into.split_results, event.raw_data_id, (event.attempt,), event, record)


TAKERS: Mapping[type[Event], Callable[[Registers, Any, StoredRecord], None]] = {
    FoldStarted: _run,
    FoldTrained: _run,
    FoldTested: _run,
    FoldFailed: _run,
    FoldLost: _run,
    FoldHandedBack: _run,
    FoldCancelled: _cancel,
    FoldRequested: _request,
    FoldReproduced: _pass,
    PredictionsFetched: _fetch,
    RunnerHeartbeat: _heartbeat,
    DataUploaded: _upload,
    SplitRequested: _split_request,
    DataSplit: _split_result,
    SplitFailed: _split_result,
}
"""Who takes which event; a test holds it to all that the projected topics carry."""

RANKS: dict[type, Rank] = {kind: rank for event, rank in RANK_OF.items() for kind in (event, FORMS[event])}
"""How far a fold has come with an event, or with its form."""
_TAKERS: dict[type, Callable[[Registers, Any, StoredRecord], None]] = {
    kind: taker for event, taker in TAKERS.items() for kind in (event, FORMS.get(event, event))
}

K = TypeVar("K", bound=Hashable)


def _keep(register: dict[K, Kept[E]], key: K, order: tuple[Any, ...], event: E, record: StoredRecord) -> None:
    kept = register.get(key)
    # Of equals the first stays: all that is equal lies in one partition, where `first` is a fact.
    if kept is None or order > kept[0]:
        # A rebuild keeps many, and what is kept needs but its place and its time.
        bare = _new(StoredRecord, (*record[:3], None, None, (), record[6]))
        register[key] = _new(Kept, (order, event, bare))


_new = tuple.__new__
"""Not by the classes' own, which are written in Python: a rebuild does this a million times over."""
