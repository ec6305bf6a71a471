"""Runners that fall silent: three killed, and one stopped, to go on after its fold has ended elsewhere."""

from __future__ import annotations

import contextlib
import signal
import time
from dataclasses import dataclass
from typing import Any

from datarun.db import connect
from datarun.events import FoldTested, Priority
from datarun.readmodel.queries import KnownFold, new_folds
from tests.faults.stage import ENDED_SECONDS, Stage
from tests.faults.system import System, wait_until
from tests.histories import Tables

KILLED, STOPPED, LONG, AFTERWARDS = (1, 2, 3), 4, 5, 6
KILLED_SECONDS = 100
"""Long enough for every process to start meanwhile; nobody waits for their end."""
STOPPED_SECONDS = 3
LONG_SECONDS = 25
"""Longer than a record's lock, a share group's session and every other timeout of the local broker."""

ACCEPTED_SECONDS = 0.5
"""After its start a fold is accepted; a runner stopped before would only have its queue hand the fold out again."""


@dataclass
class Silence:
    """What came of runners that said no more."""

    system: System
    killed_at: dict[int, float]
    """When the runner of a fold was killed."""
    before: tuple[Any, list[KnownFold]]
    """The stopped runner's fold and what clients are told is new, before its runner went on."""
    after: tuple[Any, list[KnownFold]]
    """The same when the late result was projected."""
    tables: tuple[Tables, Tables]


def runners_that_fall_silent(stage: Stage) -> Silence:
    """Kill three of four runners two seconds apart and stop the fourth; a fifth takes over."""
    with stage.system("silence") as system:
        services = [system.projector(), system.runner(queues="L"), *(system.runner(queues="H") for _ in range(4))]
        for service in services:
            service.await_ready()
        doomed = services[2:]
        system.request([LONG], LONG_SECONDS, Priority.LOW)
        system.request([STOPPED], STOPPED_SECONDS)
        wait_until(lambda: any(system.started_by(runner) for runner in doomed), ENDED_SECONDS, "the first start")
        zombie = next(runner for runner in doomed if system.started_by(runner))
        time.sleep(ACCEPTED_SECONDS)
        zombie.send(signal.SIGSTOP)
        doomed.remove(zombie)
        system.request(KILLED, KILLED_SECONDS)
        wait_until(lambda: all(system.started_by(runner) for runner in doomed), ENDED_SECONDS, "a fold each")
        survivor = system.runner(slots=5).await_ready()
        killed_at = {}
        for runner in doomed:
            (fold_id,) = system.started_by(runner)
            killed_at[fold_id] = runner.send(signal.SIGKILL)
            time.sleep(2)
        wait_until(lambda: system.ended([STOPPED, LONG]), ENDED_SECONDS, "the end of both")
        wait_until(lambda: all(system.deliveries(fold_id) == 2 for fold_id in KILLED), ENDED_SECONDS, "three losses")
        system.tables()
        before = _shown(system)
        zombie.send(signal.SIGCONT)
        wait_until(lambda: system.seen(FoldTested, fold_id=STOPPED, pid=zombie.pid), ENDED_SECONDS, "the late result")
        tables = system.tables()
        after = _shown(system)
        survivor.end()
        system.request([AFTERWARDS], 0)
        wait_until(lambda: system.ended([AFTERWARDS]), ENDED_SECONDS, "a fold of the runner that was stopped")
        return Silence(system, killed_at, before, after, tables)


def _shown(system: System) -> tuple[Any, list[KnownFold]]:
    with contextlib.closing(connect(system.postgres_url)) as connection, connection.cursor() as cursor:
        cursor.execute("select * from rm.fold where fold_id = %s", (STOPPED,))
        return cursor.fetchone(), new_folds(cursor, raw_data_id=None, limit=100)
