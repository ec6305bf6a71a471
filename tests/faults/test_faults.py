"""What must still be true when processes are killed and stopped at the worst moments, seen on real systems."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
import structlog

from datarun.events import DataSplit, FoldFailed, FoldLost, FoldRequested, FoldStarted, FoldTested
from datarun.lifecycle import FIRST_TERMINAL, MAX_DELIVERIES, Rank
from tests.faults.broker import FOLDS as BROKER_FOLDS
from tests.faults.broker import the_broker_is_killed_under_load
from tests.faults.crashing import (
    COMMIT_POINTS,
    POISON,
    REAPER_POINTS,
    RUN_SECONDS,
    RUNNER_POINTS,
    SPLIT_POINTS,
    Crashed,
    a_fold_that_kills_its_runner,
    projector_killed_at_its_commits,
    reaper_killed_at_every_seam,
    runners_killed_at_every_seam,
)
from tests.faults.freezing import FOLDS as FROZEN_FOLDS
from tests.faults.freezing import a_stopped_reaper_is_replaced, zygote_and_projector_stand_still
from tests.faults.passing_over import BUSY, LOST, SHORT, WAITING, a_record_the_queue_has_lost
from tests.faults.silence import AFTERWARDS, LONG, STOPPED, runners_that_fall_silent
from tests.faults.stage import Episode, R, Stage, looks_at
from tests.faults.system import System
from tests.histories import Tables

AT_ONCE = 5
NOTICED_SECONDS = 15
ELSEWHERE_SECONDS = 20

log = structlog.get_logger(__name__)
Played = Callable[[Episode[R]], R]


@pytest.fixture(scope="module")
def played(
    request: pytest.FixtureRequest,
    kafka: str,
    cache: Path,
    fresh_database: Callable[[], AbstractContextManager[str]],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Played[Any]]:
    """Play every episode that a test of this session looks at, and return how to wait for one."""
    stage = Stage(kafka, cache, fresh_database, tmp_path_factory.mktemp("faults"))
    found = (getattr(getattr(item, "function", None), "episode", None) for item in request.session.items)
    episodes = list(dict.fromkeys(filter(None, found)))
    with ThreadPoolExecutor(AT_ONCE) as pool:
        futures = {episode: pool.submit(episode, stage) for episode in episodes}
        yield lambda episode: futures[episode].result()


def assert_ended_once(system: System, tables: tuple[Tables, Tables], fold_ids: list[int]) -> None:
    """Every fold has one terminal row, that of its first terminal event, and the tables are those of the log."""
    actual, expected = tables
    assert actual == expected
    assert sorted(actual["fold"]) == sorted(fold_ids)
    for fold_id, row in actual["fold"].items():
        first = min(system.seen(FoldTested, FoldFailed, fold_id=fold_id), key=lambda seen: seen.at)
        assert row["run_rank"] >= FIRST_TERMINAL
        assert (row["run_delivery"], row["runner_id"]) == (first.event.delivery, first.event.runner_id)
        assert system.deliveries(fold_id) <= MAX_DELIVERIES


@looks_at(runners_killed_at_every_seam)
def test_every_fold_ends_once_whatever_seam_its_runner_died_at(played: Played[Any]) -> None:
    """Within twenty seconds and its own time after the last of the dead is back."""
    crashed = played(runners_killed_at_every_seam)
    assert_ended_once(crashed.system, crashed.tables, crashed.fold_ids)
    ranks = {row["run_rank"] for row in crashed.tables[0]["fold"].values()}
    assert ranks == {Rank.TESTED}
    last = max(crashed.system.ended_at(fold_id) for fold_id in crashed.fold_ids)
    assert last - crashed.whole_at <= ELSEWHERE_SECONDS + RUN_SECONDS


@pytest.mark.parametrize("point", [*RUNNER_POINTS, *SPLIT_POINTS])
@looks_at(runners_killed_at_every_seam)
def test_a_runner_dies_at_this_seam_and_what_it_held_ends_elsewhere(played: Played[Any], point: str) -> None:
    """The point was reached, by a kill -9; no fold of the dead one ends later than twenty seconds after the restart."""
    crashed = played(runners_killed_at_every_seam)
    ((died_at, pid), *more) = crashed.supervised[point].dead
    assert (died_at, more) == (point, [])
    for fold_id in (seen.event.fold_id for seen in crashed.system.seen(FoldStarted, pid=pid)):
        waited = crashed.system.ended_at(fold_id) - crashed.unharmed_since(fold_id)
        assert waited <= ELSEWHERE_SECONDS + RUN_SECONDS


@looks_at(runners_killed_at_every_seam)
def test_every_split_ends_once_whatever_seam_its_runner_died_at(played: Played[Any]) -> None:
    """One result in the read model; a repeated one is the same event."""
    crashed = played(runners_killed_at_every_seam)
    splits = crashed.tables[0]["dataset"]
    assert {raw_data_id: row["result_attempt"] for raw_data_id, row in splits.items()} == {2: 1, 3: 1}
    assert len({seen.event_id for seen in crashed.system.seen(DataSplit)}) == len(SPLIT_POINTS)


@looks_at(projector_killed_at_its_commits)
def test_a_projector_killed_on_both_sides_of_a_commit_changes_nothing(played: Played[Any]) -> None:
    """The folds of a dead runner are taken back once: two deliveries, one end."""
    assert_taken_back_once(played(projector_killed_at_its_commits), COMMIT_POINTS)


@looks_at(reaper_killed_at_every_seam)
def test_a_reaper_killed_at_every_seam_takes_back_each_fold_once(played: Played[Any]) -> None:
    """Between request and loss, and after the loss: two deliveries, one end."""
    assert_taken_back_once(played(reaper_killed_at_every_seam), REAPER_POINTS)


def assert_taken_back_once(crashed: Crashed, points: tuple[str, ...]) -> None:
    """The projector died at every point; each fold was requested twice and ended once."""
    assert [point for point, _ in crashed.supervised["projector"].dead] == list(points)
    assert_ended_once(crashed.system, crashed.tables, crashed.fold_ids)
    for fold_id in crashed.fold_ids:
        assert len({seen.event_id for seen in crashed.system.seen(FoldRequested, fold_id=fold_id)}) == 2
        # None, where the next delivery began before its reaper was back to tell of the loss.
        assert len({seen.event_id for seen in crashed.system.seen(FoldLost, fold_id=fold_id)}) <= 1


@looks_at(a_fold_that_kills_its_runner)
def test_a_fold_that_kills_its_runner_fails_after_three_deliveries(played: Played[Any]) -> None:
    """It is called lost, by the platform's fault, and thirty others end as if it were not there."""
    crashed = played(a_fold_that_kills_its_runner)
    assert_ended_once(crashed.system, crashed.tables, crashed.fold_ids)
    folds = crashed.tables[0]["fold"]
    poison = folds.pop(POISON)
    assert (poison["cause"], poison["fault"], poison["run_delivery"]) == ("lost", "platform", MAX_DELIVERIES)
    assert {row["run_rank"] for row in folds.values()} == {Rank.TESTED}
    assert sum(len(runner.dead) for runner in crashed.supervised.values()) == MAX_DELIVERIES


@looks_at(runners_that_fall_silent)
def test_a_dead_runner_is_noticed_and_its_fold_runs_elsewhere(played: Played[Any]) -> None:
    """Noticed within fifteen seconds, elsewhere within twenty, by the broker's clock; three kills."""
    silence = played(runners_that_fall_silent)
    assert len(silence.killed_at) == 3
    for fold_id, at in silence.killed_at.items():
        (lost,) = silence.system.seen(FoldLost, fold_id=fold_id)
        again = [seen for seen in silence.system.seen(FoldStarted, fold_id=fold_id) if seen.event.delivery == 2]
        assert len(again) == 1
        noticed, elsewhere = lost.at - at, again[0].at - at
        log.info("dead runner", fold_id=fold_id, noticed_seconds=noticed, elsewhere_seconds=elsewhere)
        assert noticed <= NOTICED_SECONDS
        assert elsewhere <= ELSEWHERE_SECONDS


@looks_at(runners_that_fall_silent)
def test_a_stopped_runner_that_goes_on_changes_nothing(played: Played[Any]) -> None:
    """Its fold has ended elsewhere: the late result is in the log, and in no row and no list."""
    silence = played(runners_that_fall_silent)
    first, late = sorted(silence.system.seen(FoldTested, fold_id=STOPPED), key=lambda seen: seen.at)
    assert (first.event.delivery, late.event.delivery) == (2, 1)
    assert late.event.test_predictions != first.event.test_predictions
    assert silence.after == silence.before
    assert STOPPED in [fold.fold_id for fold in silence.after[1]]
    actual, expected = silence.tables
    assert actual == expected
    assert actual["fold"][STOPPED]["test_predictions"].startswith(first.event.test_predictions.sha256)


@looks_at(runners_that_fall_silent)
def test_a_stopped_runner_that_goes_on_works_again(played: Played[Any]) -> None:
    """Its share session has lapsed meanwhile; it takes the next fold as if it were new."""
    silence = played(runners_that_fall_silent)
    stopped = silence.system.seen(FoldStarted, fold_id=STOPPED)[0].event.runner_id
    assert [seen.event.runner_id for seen in silence.system.seen(FoldTested, fold_id=AFTERWARDS)] == [stopped]


@looks_at(runners_that_fall_silent)
def test_a_fold_longer_than_every_timeout_starts_once(played: Played[Any]) -> None:
    """Twenty-five seconds, with an idle runner beside it, while others die."""
    silence = played(runners_that_fall_silent)
    assert len(silence.system.seen(FoldStarted, fold_id=LONG)) == 1
    assert silence.system.deliveries(LONG) == 1
    assert silence.tables[0]["fold"][LONG]["train_time"] >= 25


@looks_at(zygote_and_projector_stand_still)
def test_a_zygote_and_a_projector_that_stand_still_cost_only_time(played: Played[Any]) -> None:
    """The runner lives, so none of its folds is lost, however long nobody projected its heartbeats."""
    frozen = played(zygote_and_projector_stand_still)
    assert_ended_once(frozen.system, frozen.tables, list(FROZEN_FOLDS))
    assert frozen.system.seen(FoldLost) == []
    assert len(frozen.system.seen(FoldStarted)) == len(FROZEN_FOLDS)


@looks_at(a_stopped_reaper_is_replaced)
def test_a_stopped_reaper_is_replaced_and_changes_nothing_when_it_goes_on(played: Played[Any]) -> None:
    """It loses its lock to another projector's, so that a dead runner's fold is taken back all the same."""
    frozen = played(a_stopped_reaper_is_replaced)
    assert len({seen.event_id for seen in frozen.system.seen(FoldLost)}) == 1
    actual, expected = frozen.tables
    assert actual == expected


@looks_at(a_record_the_queue_has_lost)
def test_a_fold_its_queue_has_lost_is_put_back_and_runs(played: Played[Any]) -> None:
    """As the same delivery, since nobody ran it; it is tested like the others."""
    passed = played(a_record_the_queue_has_lost)
    assert_ended_once(passed.system, passed.tables, [LOST, *SHORT, BUSY, WAITING])
    assert len(passed.requests[LOST]) == 2
    assert len({seen.event_id for seen in passed.requests[LOST]}) == 1
    assert len(passed.system.seen(FoldStarted, fold_id=LOST)) == 1
    assert {row["run_rank"] for row in passed.tables[0]["fold"].values()} == {Rank.TESTED}


@looks_at(a_record_the_queue_has_lost)
def test_a_fold_that_waits_for_a_slot_is_not_put_back(played: Played[Any]) -> None:
    """Twice the patience and more behind a long fold: its runner was busy, and took it when it was free."""
    passed = played(a_record_the_queue_has_lost)
    assert [len(passed.requests[fold_id]) for fold_id in (*SHORT, BUSY, WAITING)] == [1, 1, 1, 1]


@looks_at(the_broker_is_killed_under_load)
def test_a_broker_killed_under_load_loses_and_doubles_nothing(played: Played[Any]) -> None:
    """Twice by kill -9: each fold ends, in one row, and what is in the log twice is the same event."""
    killed = played(the_broker_is_killed_under_load)
    assert_ended_once(killed.system, killed.tables, list(BROKER_FOLDS))
    assert {row["run_rank"] for row in killed.tables[0]["fold"].values()} == {Rank.TESTED}


def test_a_killed_process_is_told_from_one_that_ended(tmp_path: Path) -> None:
    """A crash point kills as kill -9 does, at the passing that is named."""
    import subprocess
    import sys

    code = "from datarun.crashes import crash_point\nfor _ in range(3): crash_point('here'); print('on', flush=True)"
    ran = subprocess.run(
        [sys.executable, "-c", code],
        env={"DATARUN_CRASH_AT": "here:2", "PYTHONPATH": ":".join(sys.path)},
        capture_output=True,
        check=False,
        cwd=tmp_path,
    )
    assert (ran.returncode, ran.stdout) == (-signal.SIGKILL, b"on\n")
