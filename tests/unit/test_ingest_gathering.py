"""Gathering: who comes alone, who comes while others are under way, and what goes wrong."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from services.ingest.gathering import TOGETHER, Gathering


class Worker:
    """Work that remembers its groups and ends when the test says so."""

    def __init__(self) -> None:
        self.groups: list[list[int]] = []
        self.seconds: list[float] = []
        self.may_end = asyncio.Event()

    async def work(self, items: Sequence[int], seconds: float) -> list[int | Exception]:
        """Double what is not negative."""
        self.groups.append(list(items))
        self.seconds.append(seconds)
        await self.may_end.wait()
        return [item * 2 if item >= 0 else ValueError(str(item)) for item in items]


def test_what_comes_while_a_group_is_under_way_is_the_next_group() -> None:
    """The first waits for nobody; the others share one group in their order, and each has its own result."""

    async def scenario() -> None:
        worker, gathering = Worker(), Gathering(seconds=4)
        first = asyncio.create_task(gathering.join(1, worker.work))
        await asyncio.sleep(0.01)
        others = [asyncio.create_task(gathering.join(number, worker.work)) for number in (2, -3, 4)]
        await asyncio.sleep(0.01)
        assert worker.groups == [[1]]
        worker.may_end.set()
        assert await first == 2
        results = await asyncio.gather(*others, return_exceptions=True)
        assert (results[0], str(results[1]), results[2]) == (4, "-3", 8)
        assert worker.groups == [[1], [2, -3, 4]]
        assert 0 < worker.seconds[1] < worker.seconds[0] <= 4

    asyncio.run(scenario())


def test_a_group_is_bounded_and_none_is_forgotten() -> None:
    """More than fit into a group are several, one after the other; who gave up in between is no obstacle."""

    async def scenario() -> None:
        worker, gathering = Worker(), Gathering(seconds=4)
        asked = [asyncio.create_task(gathering.join(number, worker.work)) for number in range(TOGETHER + 5)]
        await asyncio.sleep(0.01)
        asked[0].cancel()
        worker.may_end.set()
        assert await asyncio.gather(*asked[1:]) == [number * 2 for number in range(1, TOGETHER + 5)]
        assert [len(group) for group in worker.groups] == [TOGETHER, 5]

    asyncio.run(scenario())


def test_a_group_that_fails_fails_for_all_of_it_and_the_next_one_works() -> None:
    """Each of the group gets the error; what comes later is tried."""

    async def fail(_items: Sequence[int], _seconds: float) -> list[int]:
        raise OSError("the disk")

    async def scenario() -> None:
        worker, gathering = Worker(), Gathering(seconds=4)
        results = await asyncio.gather(*(gathering.join(n, fail) for n in range(3)), return_exceptions=True)
        assert [str(result) for result in results] == ["the disk"] * 3
        worker.may_end.set()
        assert await gathering.join(1, worker.work) == 2
        with pytest.raises(ValueError, match="-1"):
            await gathering.join(-1, worker.work)

    asyncio.run(scenario())
