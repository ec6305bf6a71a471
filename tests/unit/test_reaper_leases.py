"""Which runs are lost: silence and dropped folds, and when nobody may be declared dead."""

from __future__ import annotations

from collections.abc import Iterable

from datarun.leases import LEASE_SECONDS, Leases, Run, Runner

RUN = Run(7, 1, 1, "runner-1")
OTHER = Run(8, 1, 1, "runner-2")


def _says(sequence: int, *running: Run) -> Runner:
    return Runner(sequence, frozenset((run.fold_id, run.attempt, run.delivery) for run in running))


def _watch(leases: Leases, seconds: Iterable[int], *, runner: Runner | None) -> list[Run]:
    """Look once a second at one run whose runner keeps saying the same; return what is lost at last."""
    lost: list[Run] = []
    for now in seconds:
        lost = leases.lost([RUN], {} if runner is None else {"runner-1": runner}, now=float(now))
    return lost


def test_a_silent_runner_loses_its_run_after_a_lease() -> None:
    """Not a second earlier."""
    leases = Leases()
    assert _watch(leases, range(int(LEASE_SECONDS)), runner=_says(3, RUN)) == []
    assert _watch(leases, [int(LEASE_SECONDS)], runner=_says(3, RUN)) == [RUN]


def test_a_runner_that_never_spoke_loses_its_run_after_a_lease() -> None:
    """It died between its first FoldStarted and its first heartbeat."""
    assert _watch(Leases(), range(int(LEASE_SECONDS) + 1), runner=None) == [RUN]


def test_a_speaking_runner_keeps_its_run_for_ever() -> None:
    """A fold may train for hours."""
    leases = Leases()
    for now in range(100):
        assert leases.lost([RUN], {"runner-1": _says(now // 2, RUN)}, now=float(now)) == []


def test_only_the_silent_runners_runs_are_lost() -> None:
    """Runners are judged one by one."""
    leases, lost = Leases(), []
    for now in range(int(LEASE_SECONDS) + 1):
        runners = {"runner-1": _says(1, RUN), "runner-2": _says(now, OTHER)}
        lost = leases.lost([RUN, OTHER], runners, now=float(now))
    assert lost == [RUN]


def test_a_run_that_two_younger_heartbeats_do_not_name_is_lost() -> None:
    """The runner gave it up; the first such heartbeat may have been under way when the run began."""
    leases = Leases()
    assert leases.lost([RUN], {"runner-1": _says(4)}, now=0.0) == []
    assert leases.lost([RUN], {"runner-1": _says(5)}, now=1.0) == []
    assert leases.lost([RUN], {"runner-1": _says(6)}, now=2.0) == [RUN]


def test_another_delivery_of_the_fold_does_not_stand_for_this_one() -> None:
    """A runner may hold the next delivery of what it lost."""
    leases, next_one = Leases(), RUN._replace(delivery=2)
    for now in range(3):
        lost = leases.lost([RUN], {"runner-1": _says(now, next_one)}, now=float(now))
    assert lost == [RUN]


def test_a_restart_gives_every_runner_a_full_lease() -> None:
    """Heartbeats may have gone unseen while the broker or the projection was away."""
    leases = Leases()
    _watch(leases, range(9), runner=_says(3, RUN))
    leases.restart()
    assert _watch(leases, range(9, 19), runner=_says(3, RUN)) == []
    assert _watch(leases, [19], runner=_says(3, RUN)) == [RUN]


def test_looking_away_for_long_is_a_restart() -> None:
    """Who was stopped himself, or waited for a stuck broker, cannot tell silence from his own absence."""
    leases = Leases()
    _watch(leases, range(9), runner=_says(3, RUN))
    assert _watch(leases, [60], runner=_says(3, RUN)) == []
    assert _watch(leases, range(61, 71), runner=_says(3, RUN)) == [RUN]


def test_silence_lasts_until_what_is_surely_known() -> None:
    """Heartbeats sent after that may be under way: a projection that lags by six seconds takes six seconds longer."""
    leases, lost = Leases(), {}
    for now in range(20):
        lost[now] = leases.lost([RUN], {"runner-1": _says(3, RUN)}, now=float(now), as_of=now - 6.0)
    assert [now for now, runs in lost.items() if runs] == [16, 17, 18, 19]
