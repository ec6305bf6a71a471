"""How much of all bodies together is held in memory."""

from __future__ import annotations

import pytest

from services.ingest.bodies import Buffered
from services.ingest.refusals import Refusal


def test_bodies_share_a_bounded_memory_and_give_it_back() -> None:
    """Who comes when it is taken is told to come again; whoever goes, however it ends, leaves room."""
    buffered = Buffered(100)
    with buffered.share() as first:
        first.add(60)
        with buffered.share() as second:
            second.add(30)
            with pytest.raises(Refusal) as refused:
                second.add(11)
        assert (refused.value.status, refused.value.headers["Retry-After"]) == (503, "5")
        with buffered.share() as third:
            third.add(40)
    with buffered.share() as fourth:
        fourth.add(100)
