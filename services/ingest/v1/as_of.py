"""What the log said at a moment, for `?as_of=`: bounded reads in threads, a few at a time.

Whose work may be seen is decided by the present; what is told is the moment's. What was accepted and had not reached
the log by then is not there.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Collection, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

from datarun.envelope import now
from datarun.errors import LogUnavailable
from datarun.events import FoldRequested
from datarun.log import Position
from datarun.log.reading import record_at
from datarun.log.span import Bounds, TooLong, TooSlow
from datarun.projection.moments import Folds, Lowest, Reading, read_datasets, read_requests, read_runs
from datarun.projection.rows import dataset_of, fold_of, submission_of
from datarun.readmodel import catalogue, waits
from datarun.readmodel.catalogue import ListedDataset, ListedSubmission
from datarun.readmodel.listing import Listed, ListedFold, Wanted
from datarun.topics import QUEUES
from services.ingest.gateway import Gateway
from services.ingest.refusals import Refusal, detail, not_found
from services.ingest.v1.operation import Call
from services.ingest.v1.values import Asked, AsOf

READ_SECONDS = 6.0
MOST_RECORDS = 200_000
"""Of the requests, and of the partitions of the folds asked for, each."""
MOST_FOLDS = 1000
"""So many are held in memory for one answer."""
AT_ONCE = 2
MOST_WAITING = 6
SKEW_MS = 300_000
"""So much earlier than a dataset was accepted, by the database's clock, the log is read from, by the broker's."""

T = TypeVar("T")


class AsOfQuery(Asked):
    """When to look at."""

    as_of: AsOf | None = None


class Turns:
    """Lets a few read at once, a few more wait, and sends the others away."""

    def __init__(self, at_once: int, most_waiting: int) -> None:
        self._free = asyncio.Semaphore(at_once)
        self._most = at_once + most_waiting
        self._there = 0

    @asynccontextmanager
    async def take(self) -> AsyncIterator[None]:
        """Wait for a turn; raises Refusal when too many wait."""
        if self._there >= self._most:
            raise detail(503, "Too many look into the past at once.", Retry_After="5")
        self._there += 1
        try:
            async with self._free:
                yield
        finally:
            self._there -= 1


_TURNS = Turns(AT_ONCE, MOST_WAITING)


@dataclass(frozen=True, slots=True)
class Then:
    """A moment of the past, at a gateway."""

    gateway: Gateway
    moment: datetime

    @classmethod
    def of(cls, call: Call[Any, Any]) -> Then:
        """Return the moment that a request asks for; raises Refusal for one that has not come."""
        moment: datetime = call.query.as_of
        if moment > now():
            wrong = {"pointer": "?/as_of", "code": "future", "detail": "This moment has not come yet."}
            raise Refusal(400, {"detail": "The past alone can be looked at.", "errors": [wrong]})
        return cls(call.gateway, moment)

    async def read(self, work: Callable[[Reading], T], *, since: datetime | None) -> T:
        """Run what reads the log in a thread; raises Refusal when that is too much, too slow or nobody answers."""
        since_ms = _milliseconds(since) - SKEW_MS if since else 0
        try:
            async with _TURNS.take():
                bounds = Bounds(MOST_RECORDS, time.monotonic() + READ_SECONDS)
                gateway, until_ms = self.gateway, max(0, _milliseconds(self.moment))
                reading = Reading(gateway.event_log, gateway.catalogue, max(0, since_ms), until_ms, bounds)
                return await asyncio.to_thread(work, reading)
        except TooLong as error:
            text = (
                f"Up to then the log has {error.records:,} records that this may need, and {MOST_RECORDS:,} are read "
                "for an answer: ask for a dataset, a submission or a fold, or use `datarun as-of`."
            )
            raise detail(400, text) from error
        except TooSlow as error:
            raise detail(503, "The log could not be read in time.", Retry_After="10") from error
        except LogUnavailable as error:
            raise detail(503, "The log does not answer.", Retry_After="5") from error

    async def began(self, raw_data_id: int) -> datetime | None:
        """Return when a dataset was accepted: nothing about it is older."""
        return await self.gateway.database.run(lambda cursor: waits.accepted_at(cursor, raw_data_id))

    async def owners(self, submissions: Collection[int]) -> Mapping[int, str]:
        """Return who sent each of some submissions first."""
        return await self.gateway.database.run(lambda cursor: catalogue.owners(cursor, submissions))


async def fold_then(call: Call[Any, Any], known: ListedFold) -> ListedFold:
    """Return what a fold was, of which is known what it is; raises Refusal, also where it was not there."""
    then = Then.of(call)
    is_newest = known.is_projected and known.requested_at <= then.moment
    # A number that was free again may have been a fold of another dataset before.
    since = await then.began(known.raw_data_id) if is_newest or known.attempt == 1 else None
    found = await then.read(lambda reading: _read_fold(reading, known, is_newest=is_newest), since=since)
    kept = found.registers.requests.get(known.fold_id)
    if kept is None:
        raise not_found()
    owners = await then.owners([kept.event.submission_id])
    fold = _fold(found, known.fold_id, owners)
    if fold is None or call.only_of not in (None, fold.owner):
        raise not_found()
    return fold


def _read_fold(reading: Reading, known: ListedFold, *, is_newest: bool) -> Folds:
    number = known.fold_id
    if is_newest and not known.replaced and known.request_offset is not None:
        # Its newest request was there and its submission has had no other version: the queues need not be read.
        place = Position(reading.catalogue.full_name(QUEUES[known.priority]), 0, known.request_offset)
        found = Folds(Lowest(1))
        record = record_at(reading.log, place, seconds=READ_SECONDS)
        event = None if record is None else reading.event(record)
        if record is not None and isinstance(event, FoldRequested):
            found.ask(event, record, is_meant=event.fold_id == number)
    else:
        found = read_requests(reading, is_meant=lambda event: event.fold_id == number, most=1)
    read_runs(reading, found, in_full=True)
    return found


async def folds_then(call: Call[Any, Any], wanted: Wanted, *, after: int, limit: int) -> Listed:
    """Return the wanted folds that follow a number as they were; raises Refusal."""
    then, datasets = Then.of(call), wanted.raw_data_id
    database = then.gateway.database
    if wanted.submission_id is not None:
        datasets = await database.run(lambda cursor: catalogue.dataset_of(cursor, wanted.submission_id or 0))
    owned: Collection[int] | None = None
    if wanted.owner is not None:
        owned = await database.run(lambda cursor: catalogue.submissions_of(cursor, wanted.owner or ""))

    def is_meant(event: FoldRequested) -> bool:
        return (
            event.fold_id > after
            and wanted.raw_data_id in (None, event.dataset.raw_data_id)
            and wanted.submission_id in (None, event.submission_id)
            and (owned is None or event.submission_id in owned)
        )

    since = None if datasets is None else await then.began(datasets)
    found = await then.read(lambda reading: _read_folds(reading, is_meant), since=since)
    owners = await then.owners({kept.event.submission_id for kept in found.registers.requests.values()})
    folds = [fold for fold in (_fold(found, number, owners) for number in found.ids) if fold and fold.fits(wanted)]
    if len(folds) > limit:
        return Listed(folds[:limit], folds[limit - 1].fold_id)
    return Listed(folds, max(found.ids, default=None) if found.ids.is_cut else None)


def _read_folds(reading: Reading, is_meant: Callable[[FoldRequested], bool]) -> Folds:
    found = read_requests(reading, is_meant=is_meant, most=MOST_FOLDS)
    read_runs(reading, found)
    return found


async def submission_then(call: Call[Any, Any], known: ListedSubmission) -> ListedSubmission:
    """Return what a submission was, of which is known what it is; raises Refusal, also where it was not there."""
    then, number = Then.of(call), known.submission_id

    def read(reading: Reading) -> Folds:
        found = read_requests(
            reading, is_meant=lambda event: event.submission_id == number, most=MOST_FOLDS, in_full=True
        )
        read_runs(reading, found)
        return found

    found = await then.read(read, since=await then.began(known.raw_data_id))
    newest = found.registers.submissions.get(number)
    if newest is None:
        raise not_found()
    if found.ids.is_cut:
        raise detail(400, f"It had more than {MOST_FOLDS:,} folds: list those, or use `datarun as-of`.")
    folds = [fold for fold in (_fold(found, one, {}) for one in found.ids) if fold is not None]
    is_still = newest.event.submission_version == known.version
    return submission_of(newest, folds, accepted_at=known.accepted_at if is_still else None)


async def datasets_then(call: Call[Any, Any], *, after: int, limit: int) -> tuple[list[ListedDataset], int | None]:
    """Return the datasets that follow a number as they were, and the number to go on after; raises Refusal."""
    then = Then.of(call)
    registers, ids = await then.read(
        lambda reading: read_datasets(reading, is_meant=lambda number: number > after, most=limit), since=None
    )
    found = [one for one in (dataset_of(registers, number) for number in ids) if one is not None]
    return found, max(ids, default=None) if ids.is_cut else None


async def dataset_then(call: Call[Any, Any], raw_data_id: int) -> ListedDataset:
    """Return what a dataset was; raises Refusal, also where it was not there."""
    then = Then.of(call)
    registers, _ = await then.read(
        lambda reading: read_datasets(reading, is_meant=lambda number: number == raw_data_id, most=1),
        since=await then.began(raw_data_id),
    )
    found = dataset_of(registers, raw_data_id)
    if found is None:
        raise not_found()
    return found


def _fold(found: Folds, number: int, owners: Mapping[int, str]) -> ListedFold | None:
    kept = found.registers.requests.get(number)
    if kept is None:
        return None
    submission = kept.event.submission_id
    newest, owner = found.versions.get(submission, 0), owners.get(submission)
    return fold_of(found.registers, number, newest_version=newest, owner=owner)


def _milliseconds(moment: datetime) -> int:
    return (moment - _EPOCH) // timedelta(milliseconds=1)


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
