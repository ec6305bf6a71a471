"""Scores for clients that wait: not for ever, not twice for the same, and not behind somebody's leaderboard."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterator, Sequence
from pathlib import Path

import pytest

from datarun.blobs import LocalBlobs
from datarun.errors import BlobsUnavailable
from datarun.events import Blob
from datarun.scoring.folds import Part, Scored, TestedFold
from datarun.scoring.metrics import METRICS
from services.ingest.refusals import Refusal
from services.ingest.scoring import MOST_WAITING, Scoring
from tests.unit.test_scoring import Bench, distributions

ACCURACY = [METRICS["accuracy"]]
Ask = Callable[..., Awaitable[list[list[Scored]]]]


class Held(LocalBlobs):
    """A store that answers when it is let, and counts how often it is asked for bytes."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.open = threading.Event()
        self.is_away = False
        self.gets = 0

    def get(self, blob: Blob) -> bytes:
        """Wait until it may answer."""
        self.gets += 1
        assert self.open.wait(30)
        if self.is_away:
            raise BlobsUnavailable
        return super().get(blob)


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    """Return a dataset to make folds on."""
    return Bench(tmp_path)


@pytest.fixture
def held(tmp_path: Path) -> Iterator[Held]:
    """Return the same store, held."""
    store = Held(tmp_path)
    yield store
    store.open.set()


def folds(bench: Bench, *numbers: int) -> list[TestedFold]:
    """Return folds of one submission."""
    return [bench.fold(number, distributions(30, 3), distributions(10, 3)) for number in numbers]


def answers(scoring: Scoring, work: Callable[[Ask], Awaitable[None]]) -> None:
    """Run some questions."""

    async def ask(*submissions: Sequence[TestedFold]) -> list[list[Scored]]:
        return await scoring.of(submissions, ACCURACY, [Part.TEST])

    async def run() -> None:
        await work(ask)

    try:
        asyncio.run(run())
    finally:
        scoring.close()


def test_who_has_waited_long_enough_asks_again_and_goes_on(bench: Bench, held: Held) -> None:
    """The first answer is 503 with a time to wait; what was under way is there at the next."""
    submission = folds(bench, 1, 2)

    async def work(ask: Ask) -> None:
        with pytest.raises(Refusal) as refused:
            await ask(submission)
        assert (refused.value.status, refused.value.headers["Retry-After"]) == (503, "5")
        held.open.set()
        [[first, _]] = await ask(submission)
        assert first.own[Part.TEST, "accuracy"].value is not None
        asked = held.gets
        assert await ask(submission)
        assert held.gets == asked

    answers(Scoring(held, answer_seconds=0.5), work)


def test_equal_questions_at_once_are_one(bench: Bench, held: Held) -> None:
    """Both have the answer, and the store was asked once for each blob."""
    submission = folds(bench, 1)

    async def work(ask: Ask) -> None:
        both = asyncio.gather(ask(submission), ask(submission))
        await asyncio.sleep(0)
        held.open.set()
        first, second = await both
        assert first == second
        assert held.gets == 2

    answers(Scoring(held), work)


def test_others_have_their_turn_between_two_submissions(bench: Bench, held: Held) -> None:
    """A leaderboard is several questions, and who comes later does not wait for all of them."""
    board = [folds(bench, number) for number in range(1, 6)]
    order: list[str] = []

    async def work(ask: Ask) -> None:
        async def note(name: str, *submissions: Sequence[TestedFold]) -> None:
            await ask(*submissions)
            order.append(name)

        long = asyncio.create_task(note("board", *board))
        await asyncio.sleep(0)
        short = asyncio.create_task(note("one", folds(bench, 9)))
        await asyncio.sleep(0)
        held.open.set()
        await asyncio.gather(long, short)
        assert order == ["one", "board"]

    answers(Scoring(held), work)


def test_a_store_that_is_away_and_too_many_questions_are_refused(bench: Bench, held: Held) -> None:
    """With 503, and the thread goes on with the next."""

    async def work(ask: Ask) -> None:
        waiting = [asyncio.create_task(ask(folds(bench, number))) for number in range(1, MOST_WAITING + 1)]
        await asyncio.sleep(0)
        with pytest.raises(Refusal, match="Too many"):
            await ask(folds(bench, 99))
        held.is_away = True
        held.open.set()
        refused = await asyncio.gather(*waiting, return_exceptions=True)
        assert {str(one) for one in refused} == {"503 {'detail': 'The predictions cannot be read now.'}"}
        held.is_away = False
        assert await ask(folds(bench, 1))

    answers(Scoring(held), work)
