"""The stretch of the log that webhooks share: whoever reads how slowly, each gets every notice once, in order."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping, Sequence
from contextlib import suppress

import pytest

from datarun.envelope import encode
from datarun.errors import DatabaseUnavailable
from datarun.events import FoldStarted, FoldTested, PredictionsFetched
from datarun.log import Position
from datarun.log.memory import MemoryLog
from datarun.partitioner import partition_of
from datarun.topics import FOLD_EVENTS
from services.ingest.v1.places import Place
from services.ingest.v1.tail import Tail
from services.ingest.v1.webhooks.notices import Notice
from services.ingest.v1.webhooks.recent import Reading, Recent
from tests.histories import CATALOGUE, CONTEXT, run_event

FOLDS = range(1, 40)


async def nobodys(_: Sequence[int]) -> Mapping[int, str]:
    """Know no owner."""
    return {}


async def read_all(recent: Recent, reading: Reading, count: int, *, chance: random.Random) -> list[Notice]:
    """Read until there were so many notices, now at once, now after others."""
    found = list[Notice]()
    while len(found) < count:
        found += await recent.read(reading)
        for _ in range(chance.randrange(6)):
            await asyncio.sleep(0)
    return found


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("most", [3, 40, 10_000])
def test_every_reader_gets_every_notice_once(seed: int, most: int) -> None:
    """From wherever it begins, however much of the stretch is forgotten meanwhile."""
    chance = random.Random(seed)
    log = MemoryLog(CATALOGUE)
    told = [run_event(kind, fold) for fold in FOLDS for kind in (FoldStarted, FoldTested)]
    told += [PredictionsFetched(fold_id=fold, attempt=1, fetch_id="x", fetched_by="y") for fold in FOLDS]
    chance.shuffle(told)
    before, after = told[:30], told[30:]

    def append(events: Sequence[object]) -> int:
        for event in events:
            log.append(encode(event, catalogue=CATALOGUE, context=CONTEXT)).result(1)
        return sum(not isinstance(event, PredictionsFetched) for event in events)

    async def run() -> None:
        earlier = append(before)
        name = f"{CATALOGUE.prefix}fold-events"
        behind = Place.behind(log.end_offsets([name]))
        tail = Tail(log, CATALOGUE)
        recent = Recent(tail, nobodys, behind, most=most, at_once=2 + seed)
        following = asyncio.create_task(recent.follow())
        readers = [
            asyncio.create_task(read_all(recent, Reading(place), count, chance=chance))
            for place, count in (
                (Place.beginning(), earlier + len(after) - _fetched(after)),
                (Place(list(behind.offsets)), len(after) - _fetched(after)),
            )
        ]
        for start in range(0, len(after), 7):
            append(after[start : start + 7])
            await asyncio.sleep(0.001 * chance.randrange(4))
        async with asyncio.timeout(20):
            for reader in readers:
                _check(await reader)
        following.cancel()
        with suppress(asyncio.CancelledError):
            await following
        tail.close()

    asyncio.run(run())


def _fetched(events: Sequence[object]) -> int:
    return sum(isinstance(event, PredictionsFetched) for event in events)


def _check(found: Sequence[Notice]) -> None:
    """Each partition's in order, none twice; their number says that none is missing."""
    seen: dict[int, int] = {}
    for one in found:
        assert one.offset > seen.get(one.partition, -1)
        seen[one.partition] = one.offset


def test_what_could_not_be_looked_up_is_read_again() -> None:
    """A database that is away for a moment loses nothing, in the stretch and in what is read back."""
    log = MemoryLog(CATALOGUE)
    failures = iter([True, True, False, True])

    async def away_at_first(ids: Sequence[int]) -> Mapping[int, str]:
        if next(failures, False):
            raise DatabaseUnavailable
        return dict.fromkeys(ids, "ada")

    async def run() -> None:
        for fold in FOLDS:
            log.append(encode(run_event(FoldTested, fold), catalogue=CATALOGUE, context=CONTEXT)).result(1)
        tail = Tail(log, CATALOGUE)
        recent = Recent(tail, away_at_first, Place.beginning())
        following = asyncio.create_task(recent.follow())
        async with asyncio.timeout(20):
            found = await read_all(recent, Reading(Place.beginning()), len(FOLDS), chance=random.Random(1))
        assert sorted(one.fold_id for one in found) == list(FOLDS)
        assert {one.owner for one in found} == {"ada"}
        following.cancel()
        tail.close()

    asyncio.run(run())


def test_who_reads_back_gets_past_a_hole() -> None:
    """Offsets before the stretch's beginning that no record will ever have hold up nobody."""
    log = MemoryLog(CATALOGUE)

    def append(fold: int) -> Position:
        return log.append(encode(run_event(FoldTested, fold), catalogue=CATALOGUE, context=CONTEXT)).result(1)

    async def run() -> None:
        hole = append(1).partition
        later = next(fold for fold in range(2, 100) if _partition(fold) != hole)
        start = Place.behind(log.end_offsets([f"{CATALOGUE.prefix}fold-events"]))
        start.offsets[hole] += 1
        tail = Tail(log, CATALOGUE)
        recent = Recent(tail, nobodys, start)
        following = asyncio.create_task(recent.follow())
        reading = Reading(Place.beginning())
        async with asyncio.timeout(20):
            found = await read_all(recent, reading, 1, chance=random.Random(1))
            append(later)
            while not (more := await recent.read(reading)):
                pass
        assert [one.fold_id for one in (*found, *more)] == [1, later]
        assert reading.place.offsets[hole] == start.offsets[hole]
        following.cancel()
        tail.close()

    asyncio.run(run())


def _partition(fold: int) -> int:
    return partition_of(str(fold).encode(), FOLD_EVENTS.partitions)
