"""Which waiting requests were overtaken: four misses, each later than a lock lasts, and none while all are busy."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise

from datarun.overtaking import PATIENCE_SECONDS, Chance, Overtaking, Waiting

SECOND = 1000
REQUEST = Waiting(7, 1, 1, "L", 5, 0)


def _free(second: float, queue: str = "L") -> Chance:
    return Chance(queue, None, int(second * SECOND))


def _watch(overtaking: Overtaking, chances: Iterable[Chance], request: Waiting = REQUEST) -> list[float]:
    """Look once for each chance; return the broker's seconds at which the request was called overtaken."""
    return [chance.at_ms / SECOND for chance in chances if overtaking.overtaken([request], [chance])]


def test_a_request_that_idle_runners_never_begin_is_overtaken_after_a_minute() -> None:
    """Nothing was requested after it: its record is gone all the same."""
    assert _watch(Overtaking(), map(_free, range(2, 120, 2)))[0] == 2 + PATIENCE_SECONDS + 6


def test_later_requests_that_start_overtake_an_earlier_one() -> None:
    """A busy queue is never seen idle; what it hands out says as much."""
    starts = [Chance("L", 6 + second, second * SECOND) for second in range(1, 100)]
    assert _watch(Overtaking(), starts)[0] >= PATIENCE_SECONDS


def test_earlier_requests_that_start_do_not() -> None:
    """They come first, and so does what was put back before it."""
    assert _watch(Overtaking(), [Chance("L", 4, second * SECOND) for second in range(300)]) == []


def test_a_request_waits_for_busy_runners_as_long_as_it_takes() -> None:
    """One later request began while a lock was on this one; the runners have been busy with such ever since."""
    start = Chance("L", 6, 1 * SECOND)
    assert _watch(Overtaking(), [start] * 10_000) == []


def test_one_lock_is_one_miss() -> None:
    """All that happens while a killed runner's lock lasts counts once."""
    assert _watch(Overtaking(), map(_free, range(1, 16))) == []
    assert _watch(Overtaking(), [_free(second) for second in (1, 2, 15, 16, 30, 31)]) == []


def test_another_queues_chances_say_nothing() -> None:
    """Low folds wait while high ones start, and a runner may ask for high ones alone."""
    assert _watch(Overtaking(), [_free(second, "H") for second in range(300)]) == []


def test_what_happened_before_it_waited_says_nothing() -> None:
    """The newest heartbeat of a runner that is gone stays in the read model for ever."""
    late = REQUEST._replace(since_ms=100 * SECOND)
    assert _watch(Overtaking(), map(_free, range(0, 100, 5)), late) == []


def test_a_request_that_began_is_forgotten() -> None:
    """Its fold may wait again, as another delivery, with all the patience."""
    overtaking = Overtaking()
    _watch(overtaking, map(_free, range(0, 60, 2)))
    overtaking.overtaken([], [])
    assert _watch(overtaking, [_free(80)]) == []


def test_a_restart_forgets_the_misses() -> None:
    """Starts may have gone unseen while the projection lagged."""
    overtaking = Overtaking()
    _watch(overtaking, map(_free, range(0, 60, 2)))
    overtaking.restart()
    assert _watch(overtaking, [_free(80)]) == []


def test_a_request_put_back_is_put_back_again_half_as_often() -> None:
    """A fold that no runner can read must not fill the log."""
    overtaking, put_back, request = Overtaking(), [], REQUEST
    for second in range(0, 100_000, 7):
        if overtaking.overtaken([request], [_free(second)]):
            overtaking.put_back(request)
            request = request._replace(offset=request.offset + 1, since_ms=second * SECOND)
            put_back.append(second)
    pauses = [later - earlier for earlier, later in pairwise(put_back)]
    assert all(later >= 1.9 * earlier for earlier, later in pairwise(pauses[:6]))
    assert max(pauses) <= 4600
    assert len(put_back) < 40


def test_a_shorter_patience_is_shorter() -> None:
    """Tests and small installations need not wait for a minute."""
    assert _watch(Overtaking(6.0), map(_free, range(1, 60)))[0] == 10
