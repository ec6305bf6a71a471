"""The next piece of a body comes while one is worked on, and never more than that."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing

import pytest

from services.ingest.uploads import ahead


class Source:
    """Pieces that note how far they were asked for, and whether they were let go of."""

    def __init__(self, count: int, *, fails_at: int | None = None) -> None:
        self.asked = 0
        self.is_closed = False
        self._count, self._fails_at = count, fails_at

    async def pieces(self) -> AsyncGenerator[bytes, None]:
        """Yield them."""
        try:
            for number in range(self._count):
                self.asked += 1
                await asyncio.sleep(0)
                if number == self._fails_at:
                    raise ConnectionError("cut")
                yield b"%d" % number
        finally:
            self.is_closed = True


async def _read(source: Source, *, stop_at: bytes | None = None) -> list[tuple[bytes, int]]:
    read = []
    async with aclosing(ahead(source.pieces())) as pieces:
        async for piece in pieces:
            await asyncio.sleep(0.001)
            read.append((piece, source.asked))
            if piece == stop_at:
                raise ValueError("refused")
    return read


def test_one_piece_is_fetched_while_another_is_worked_on() -> None:
    """All come in order; while one is worked on, the next was asked for and not the one after it."""
    source = Source(4)
    assert asyncio.run(_read(source)) == [(b"0", 2), (b"1", 3), (b"2", 4), (b"3", 4)]
    assert source.is_closed


def test_what_ends_the_source_comes_after_the_pieces_before_it() -> None:
    """A cut is raised in its turn."""
    source = Source(4, fails_at=1)
    with pytest.raises(ConnectionError, match="cut"):
        asyncio.run(_read(source))
    assert (source.asked, source.is_closed) == (2, True)


def test_whoever_stops_early_leaves_nothing_open() -> None:
    """A refusal in the middle closes the source, whatever it waits for."""
    source = Source(4)
    with pytest.raises(ValueError, match="refused"):
        asyncio.run(_read(source, stop_at=b"1"))
    assert (source.asked, source.is_closed) == (3, True)
