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
from tests.faults.system import Service, System, wait_until
from tests.histories import Tables

FOLDS = (1, 2, 3, 4)
LONG = 5
LONG_SECONDS = 25
"""Longer than a record's lock, a share group's session and every other timeout of the local broker."""


@dataclass
class Silence:
    """What came of runners that said no more."""

    system: System
    killed_at: dict[int, float]
    """When the runner of a fold was killed."""
    stopped: int
    """The fold of the runner that was stopped."""
    zombie: Service
    before: tuple[Any, list[KnownFold]]
    """The stopped one's row and what clients are told is new, before its runner went on."""
    after: tuple[Any, list[KnownFold]]
    """The same when the late result was projected."""
    tables: tuple[Tables, Tables]


def runners_that_fall_silent(stage: Stage) -> Silence:
    """Kill three of four runners two seconds apart and stop the fourth; a fifth takes over."""
    with stage.system("silence") as system:
        services = [system.projector(), system.runner(queues="L"), *(system.runner(queues="H") for _ in FOLDS)]
        for service in services:
            service.await_ready()
        system.request([LONG], LONG_SECONDS, Priority.LOW)
        system.request(FOLDS, LONG_SECONDS)
        doomed = services[2:]
        wait_until(lambda: all(system.started_by(runner) for runner in doomed), ENDED_SECONDS, "a fold each")
        held = {system.started_by(runner)[0]: runner for runner in doomed}
        system.runner(slots=5).await_ready()
        (stopped, zombie), *killed = held.items()
        zombie.send(signal.SIGSTOP)
        killed_at = {}
        for fold_id, runner in killed:
            killed_at[fold_id] = runner.send(signal.SIGKILL)
            time.sleep(2)
        wait_until(lambda: system.ended([*FOLDS, LONG]), ENDED_SECONDS, "every fold elsewhere")
        system.tables()
        before = _shown(system, stopped)
        zombie.send(signal.SIGCONT)
        wait_until(lambda: system.seen(FoldTested, fold_id=stopped, pid=zombie.pid), ENDED_SECONDS, "the late result")
        tables = system.tables()
        return Silence(system, killed_at, stopped, zombie, before, _shown(system, stopped), tables)


def _shown(system: System, fold_id: int) -> tuple[Any, list[KnownFold]]:
    with contextlib.closing(connect(system.postgres_url)) as connection, connection.cursor() as cursor:
        cursor.execute("select * from rm.fold where fold_id = %s", (fold_id,))
        return cursor.fetchone(), new_folds(cursor, raw_data_id=None, limit=100)
