"""When a projector ends itself: behind, and not moving, for half a minute."""

from __future__ import annotations

from services.projector.stall import Stall


def test_no_progress_while_behind_is_a_stall() -> None:
    """The supervisor starts it anew, which is always safe."""
    stall = Stall(30)
    assert [stall.look(behind=5, progress=7, now=now) for now in (0, 29, 30)] == [False, False, True]


def test_any_progress_is_enough() -> None:
    """A long backlog is no stall."""
    stall = Stall(30)
    assert not any(stall.look(behind=1000, progress=now, now=now) for now in range(0, 200, 20))


def test_having_nothing_to_do_is_no_stall() -> None:
    """A quiet installation is left alone, and the first event after a quiet night is given its time."""
    stall = Stall(30)
    assert not any(stall.look(behind=0, progress=7, now=now) for now in range(0, 200, 20))
    assert not stall.look(behind=1, progress=7, now=200)


def test_a_restart_forgives() -> None:
    """While the broker or the database is away nobody can make progress."""
    stall = Stall(30)
    stall.look(behind=5, progress=7, now=0)
    stall.restart()
    assert not stall.look(behind=5, progress=7, now=60)
