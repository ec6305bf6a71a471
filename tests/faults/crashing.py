"""Kills at every seam: of runners under load, of the projector with its reaper, and of whoever runs one fold."""

from __future__ import annotations

import signal
import time
from dataclasses import dataclass

from datarun.events import DataSplit, FoldStarted, Priority
from tests.faults import submissions
from tests.faults.stage import ENDED_SECONDS, Stage
from tests.faults.system import Supervised, System, wait_until
from tests.histories import Tables

RUN_SECONDS = 0.3
RUNNER_POINTS = (
    "runner.after_take",
    "runner.after_started",
    "runner.after_accept",
    "runner.after_blob",
    "runner.after_blob:2",
    "runner.before_result",
    "runner.after_result",
)
SPLIT_POINTS = ("runner.before_split_result", "runner.after_split_result")
COMMIT_POINTS = ("projector.before_commit:3", "projector.after_commit:3")
REAPER_POINTS = ("reaper.after_request", "reaper.after_loss")
POISON = 13


@dataclass
class Crashed:
    """A system in which all folds have ended, whatever died meanwhile."""

    system: System
    supervised: dict[str, Supervised]
    fold_ids: list[int]
    tables: tuple[Tables, Tables]
    """The read model, and what the log says it should be."""

    @property
    def whole_at(self) -> float:
        """When the last of those that died was ready again."""
        return max(one.restarted_at for one in self.supervised.values())

    def unharmed_since(self, fold_id: int) -> float:
        """When the last of the dead that may have held a fold was ready again; one died before it said which."""
        return max(
            one.restarted_at
            for point, one in self.supervised.items()
            if point == RUNNER_POINTS[0]
            or any(self.system.seen(FoldStarted, fold_id=fold_id, pid=pid) for _, pid in one.dead)
        )


def runners_killed_at_every_seam(stage: Stage) -> Crashed:
    """Have a runner die at each point while folds and splits keep coming, and be started again."""
    with stage.system("seams") as system:
        system.projector().await_ready()
        runners = {point: system.supervise(system.runner, point, queues="H,L") for point in RUNNER_POINTS}
        runners |= {point: system.supervise(system.runner, point, queues="data") for point in SPLIT_POINTS}
        for number in range(len(SPLIT_POINTS)):
            system.append(submissions.split(system.dataset, number + 2))
        fold_ids: list[int] = []
        wait_until(lambda: _feed(system, runners, fold_ids), ENDED_SECONDS, "a death at every point")
        wait_until(lambda: all(runner.is_whole for runner in runners.values()), ENDED_SECONDS, "every restart")
        wait_until(lambda: system.ended(fold_ids), ENDED_SECONDS, "every fold")
        wait_until(lambda: len({one.event_id for one in system.seen(DataSplit)}) == 2, ENDED_SECONDS, "every split")
        return Crashed(system, runners, fold_ids, system.tables())


def _feed(system: System, runners: dict[str, Supervised], fold_ids: list[int]) -> bool:
    """Keep some folds waiting while a runner is to die yet; tell whether none is."""
    if all(runner.dead for runner in runners.values()):
        return True
    if system.ended(fold_ids[:-8]):
        new = [len(fold_ids) + number for number in range(1, 5)]
        fold_ids += new
        system.request(new[:2], RUN_SECONDS, Priority.HIGH)
        system.request(new[2:], RUN_SECONDS, Priority.LOW)
    return False


def projector_killed_at_its_commits(stage: Stage) -> Crashed:
    """Have the projector die before and after a commit while the folds of a runner that is gone are taken back."""
    return _projector_killed(stage, "commits", COMMIT_POINTS)


def reaper_killed_at_every_seam(stage: Stage) -> Crashed:
    """Have the projector die while it takes back the folds of a runner that is gone."""
    return _projector_killed(stage, "reaper", REAPER_POINTS)


def _projector_killed(stage: Stage, name: str, points: tuple[str, ...]) -> Crashed:
    with stage.system(name) as system:
        runner = system.runner(slots=2).await_ready()
        system.request([1, 2], 3)
        wait_until(lambda: len(system.started_by(runner)) == 2, ENDED_SECONDS, "two starts")
        projector = system.supervise(system.projector, *points)
        runner.send(signal.SIGKILL)
        system.runner(slots=2)
        wait_until(lambda: projector.is_whole and system.ended([1, 2]), ENDED_SECONDS, "the end of both")
        return Crashed(system, {"projector": projector}, [1, 2], system.tables())


def a_fold_that_kills_its_runner(stage: Stage) -> Crashed:
    """Run thirty folds beside one whose runner dies each time, on two runners that are started again."""
    with stage.system("poison") as system:
        system.projector().await_ready()
        point = f"runner.fold.{POISON}"
        runners = {name: system.supervise(system.runner, point, every=True) for name in ("one", "other")}
        for runner in runners.values():
            runner.service.await_ready()
        fold_ids = list(range(1, 32))
        system.request(fold_ids, RUN_SECONDS)
        wait_until(lambda: system.ended(fold_ids), ENDED_SECONDS, "every fold")
        time.sleep(2 * RUN_SECONDS)
        assert len(system.seen(FoldStarted, fold_id=POISON)) <= 3
        return Crashed(system, runners, fold_ids, system.tables())
