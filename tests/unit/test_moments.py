"""What folds and datasets were at a moment, read from a log within bounds: as a projection of all before has them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datarun.log.memory import MemoryLog
from datarun.log.span import Bounds, Span, TooLong, TooSlow
from datarun.projection.batch import fold
from datarun.projection.moments import Lowest, Reading, read_datasets, read_requests, read_runs
from datarun.projection.rows import dataset_of, fold_of
from services.ingest.refusals import Refusal
from services.ingest.v1.as_of import Turns
from tests.histories import CATALOGUE, START_MS, Log, logs, tables

FOLD_EVENTS = "test.fold-events"


def _memory(log: Log) -> MemoryLog:
    memory = MemoryLog(CATALOGUE)
    memory._partitions = dict(log.records)
    return memory


def _reading(log: Log, until_ms: int, *, since_ms: int = 0) -> Reading:
    return Reading(_memory(log), CATALOGUE, since_ms, until_ms, Bounds(10_000, time.monotonic() + 60))


@given(logs(), st.integers(-1, 60))
def test_folds_are_what_a_projection_of_all_before_the_moment_makes_of_them(log: Log, passed: int) -> None:
    """Whatever is in the log, and wherever it is cut."""
    until = START_MS + passed
    found = read_requests(_reading(log, until), is_meant=lambda _: True, most=100)
    read_runs(_reading(log, until), found, in_full=True)
    expected = tables(fold([one for one in log if one.timestamp_ms <= until], catalogue=CATALOGUE))
    asked = {number: row for number, row in expected["fold"].items() if row["request_attempt"]}
    assert list(found.ids) == sorted(asked)
    for number, row in asked.items():
        newest = found.versions[row["submission_id"]]
        assert newest == expected["submission"][row["submission_id"]]["version"]
        listed = fold_of(found.registers, number, newest_version=newest, owner=None)
        assert listed is not None
        told = asdict(listed)
        assert {name: told[name] for name in row if name in told} == {name: row[name] for name in row if name in told}
        assert (listed.attempt, listed.delivery) == (row["request_attempt"], row["request_delivery"])
        assert listed.fetched == (row["fetched_attempt"] >= row["request_attempt"])


@given(logs(), st.integers(-1, 60))
def test_datasets_are_what_a_projection_of_all_before_the_moment_makes_of_them(log: Log, passed: int) -> None:
    """With their splits; without those that were only split and never uploaded."""
    until = START_MS + passed
    registers, ids = read_datasets(_reading(log, until), is_meant=lambda _: True, most=100)
    expected = tables(fold([one for one in log if one.timestamp_ms <= until], catalogue=CATALOGUE))["dataset"]
    uploaded = {number for number, row in expected.items() if row["uploaded_at"]}
    assert uploaded <= set(ids)
    assert {number for number in ids if dataset_of(registers, number)} == uploaded
    for number in uploaded:
        told = asdict(_there(dataset_of(registers, number)))
        assert told == told | {name: value for name, value in expected[number].items() if name in told}


def _there(found: Any) -> Any:
    assert found is not None
    return found


@given(st.lists(st.integers(0, 30)), st.integers(1, 5))
def test_the_lowest_of_all_offered_are_kept(offered: list[int], most: int) -> None:
    """Each once, and what is let go is told."""
    lowest, gone = Lowest(most), list[int | None]()
    for number in offered:
        gone.append(lowest.offer(number))
    assert list(lowest) == sorted(set(offered))[:most]
    assert lowest.is_cut == (len(set(offered)) > most)
    assert {one for one in gone if one is not None} == set(offered) - set(lowest)


def _stories(count: int) -> Log:
    from tests.histories import story

    log = Log()
    for number in range(1, count + 1):
        for event in story(number):
            log.append(event)
    return log


def _read(records: Iterable[Any]) -> int:
    return sum(1 for _ in records)


def test_too_much_is_refused_before_it_is_read() -> None:
    """By the offsets alone; what fits is read, from the moment of its beginning on."""
    log = _stories(20)
    span = Span.between(_memory(log), [FOLD_EVENTS], since_ms=START_MS, until_ms=START_MS + 10_000)
    assert len(span) == sum(len(records) for tp, records in log.records.items() if tp.topic == FOLD_EVENTS)
    with pytest.raises(TooLong) as refused:
        _read(span.records(_memory(log), Bounds(len(span) - 1, time.monotonic() + 60)))
    assert refused.value.records == len(span)
    assert _read(span.records(_memory(log), Bounds(len(span), time.monotonic() + 60))) == len(span)
    later = Span.between(_memory(log), [FOLD_EVENTS], since_ms=START_MS + 30, until_ms=START_MS + 40)
    found = list(later.records(_memory(log), Bounds(1000, time.monotonic() + 60)))
    assert found
    assert all(START_MS + 30 <= one.timestamp_ms <= START_MS + 40 for one in found)


def test_a_read_ends_at_its_deadline() -> None:
    """A part of the log is never told as all of it."""
    log = _stories(3)
    span = Span.between(_memory(log), [FOLD_EVENTS], since_ms=0, until_ms=START_MS + 5)
    with pytest.raises(TooSlow):
        # The last partition is asked for more than it has, as if the broker were silent.
        _read(
            Span(span.start, {tp: end + 1 for tp, end in span.end.items()})._read(
                _memory(log), list(span.start), Bounds(99, 0)
            )
        )


def test_a_few_read_at_once_a_few_wait_and_the_others_are_sent_away() -> None:
    """With the time to come again."""

    async def crowd() -> tuple[int, int, list[str]]:
        turns, inside, most, away = Turns(2, 1), 0, 0, list[str]()
        done, all_came = asyncio.Event(), asyncio.Event()

        async def come() -> None:
            nonlocal inside, most
            try:
                async with turns.take():
                    inside += 1
                    most = max(most, inside)
                    await done.wait()
                    inside -= 1
            except Refusal as refusal:
                away.append(refusal.headers["Retry-After"])
                if len(away) == 2:
                    all_came.set()

        crowd = [asyncio.ensure_future(come()) for _ in range(5)]
        await asyncio.wait_for(all_came.wait(), 30)
        done.set()
        await asyncio.gather(*crowd)
        async with turns.take():
            return most, inside, away

    assert asyncio.run(crowd()) == (2, 0, ["5", "5"])
