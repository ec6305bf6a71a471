"""The pieces of a body as they come in."""

import asyncio

import pytest

from services.ingest import blobs
from services.ingest.refusals import Refusal


class Body:
    """A request whose body comes in these pieces; None never comes, an exception ends it."""

    def __init__(self, *pieces):
        self.content = self
        self.pieces = list(pieces)

    async def readany(self):
        piece = self.pieces.pop(0) if self.pieces else b""
        if piece is None:
            await asyncio.Event().wait()
        if isinstance(piece, Exception):
            raise piece
        return piece


def chunks(body):
    """Return all chunks of a body."""

    async def gathered():
        return [chunk async for chunk in blobs._chunks(body)]

    return asyncio.run(gathered())


def test_small_pieces_are_gathered():
    """A thread is asked once a mebibyte, not once a packet; no byte is lost or repeated."""
    pieces = [bytes([number % 256]) * 70_000 for number in range(40)]
    found = chunks(Body(*pieces))
    assert b"".join(found) == b"".join(pieces)
    assert [len(chunk) >= blobs.CHUNK_BYTES for chunk in found] == [True, True, False]


@pytest.mark.parametrize(("last", "status"), [(None, 408), (ConnectionResetError(), 400)])
def test_a_body_that_stops_or_breaks_is_refused(monkeypatch, last, status):
    """A client that sends nothing for long is told so, one that is gone is not waited for."""
    monkeypatch.setattr(blobs, "IDLE_SECONDS", 0.05)
    with pytest.raises(Refusal) as refusal:
        chunks(Body(b"some", last))
    assert (refusal.value.status, refusal.value.close) == (status, True)
