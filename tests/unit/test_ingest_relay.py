"""The relay over a log whose acknowledgements the test holds: order of a key, repetition, room."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import Future
from typing import Any

import pytest

from datarun.errors import LogUnavailable
from datarun.intake.outbox import Queued
from datarun.log import Position, Record
from datarun.topics import Catalogue
from services.ingest import relay as relay_module
from services.ingest.relay import Relay


class HeldLog:
    """An EventLog that answers when the test says so."""

    def __init__(self) -> None:
        self.appended: list[tuple[bytes, Future[Position]]] = []

    def append(self, record: Record) -> Future[Position]:
        """Remember the record."""
        future: Future[Position] = Future()
        self.appended.append((record.value, future))
        return future

    @property
    def values(self) -> list[bytes]:
        """What was appended so far."""
        return [value for value, _ in self.appended]

    async def answer(self, number: int, outcome: int | Exception) -> None:
        """Acknowledge an append at an offset, or refuse it."""
        future = self.appended[number][1]
        if isinstance(outcome, Exception):
            future.set_exception(outcome)
        else:
            future.set_result(Position("t", 0, outcome))
        await asyncio.sleep(0.01)


class NoDatabase:
    """A database nobody asks: acknowledgements stay in memory."""

    async def run(self, work: Callable[[Any], Any]) -> Any:
        """Refuse."""
        raise AssertionError(work)


def row(number: int, key: bytes, *, after: int | None = None) -> Queued:
    """Return a row of the outbox whose value is its number."""
    return Queued(number, Record("t", key, str(number).encode()), after)


def run(scenario: Callable[[Relay, HeldLog], Awaitable[None]]) -> None:
    """Run a scenario with a fresh relay."""

    async def started() -> None:
        log = HeldLog()
        relay: Any = Relay(log, NoDatabase(), catalogue=Catalogue(), owner=1)  # type: ignore[arg-type]
        await scenario(relay, log)

    work: Coroutine[Any, Any, None] = started()
    asyncio.run(work)


def test_a_key_has_one_record_under_way() -> None:
    """The second record of a key goes when the first has arrived, another key's at once."""

    async def scenario(relay: Relay, log: HeldLog) -> None:
        relay.send(row(1, b"a"))
        relay.send(row(2, b"a", after=1))
        relay.send(row(3, b"b"))
        assert log.values == [b"1", b"3"]
        await log.answer(0, 7)
        assert log.values == [b"1", b"3", b"2"]

    run(scenario)


def test_a_refused_record_goes_again_before_its_followers(monkeypatch: pytest.MonkeyPatch) -> None:
    """A failure keeps its key's place, so that the order in the log is that of the outbox."""
    monkeypatch.setattr(relay_module, "RETRY_SECONDS", 0.01)

    async def scenario(relay: Relay, log: HeldLog) -> None:
        first = relay.send(row(1, b"a"))
        relay.send(row(2, b"a", after=1))
        await log.answer(0, LogUnavailable())
        await asyncio.sleep(0.05)
        assert log.values == [b"1", b"1"]
        await log.answer(1, 3)
        assert first is not None
        assert first.result() == Position("t", 0, 3)
        assert log.values == [b"1", b"1", b"2"]

    run(scenario)


def test_a_row_is_sent_once_however_often_it_is_found() -> None:
    """The request and a scan may both find a row; it is appended once and both see its position."""

    async def scenario(relay: Relay, log: HeldLog) -> None:
        assert relay.send(row(1, b"a")) is relay.send(row(1, b"a"))
        assert log.values == [b"1"]

    run(scenario)


def test_a_row_never_overtakes_one_that_is_elsewhere() -> None:
    """A row whose elder is not in this memory is left to the scan, which looks for both."""

    async def scenario(relay: Relay, log: HeldLog) -> None:
        assert relay.send(row(5, b"a", after=4)) is None
        assert log.values == []

    run(scenario)


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows beyond the bound stay in the outbox."""
    monkeypatch.setattr(relay_module, "MOST_IN_MEMORY", 3)

    async def scenario(relay: Relay, log: HeldLog) -> None:
        sent = [relay.send(row(number, str(number).encode())) for number in range(5)]
        assert [future is None for future in sent] == [False, False, False, True, True]
        assert len(log.values) == 3

    run(scenario)


def test_a_silent_log_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """After a while without any acknowledgement nobody waits for one, until one comes."""
    monkeypatch.setattr(relay_module, "STALLED_SECONDS", 0.05)

    async def scenario(relay: Relay, log: HeldLog) -> None:
        relay.send(row(1, b"a"))
        assert not relay.is_stalled
        await asyncio.sleep(0.1)
        assert relay.is_stalled
        await log.answer(0, 1)
        assert not relay.is_stalled

    run(scenario)
