"""Processes that are stopped for a while and then go on as if nothing had been: zygote, projector, reaper."""

from __future__ import annotations

import signal
import time
from dataclasses import dataclass

import psutil

from tests.faults.stage import ENDED_SECONDS, Stage
from tests.faults.system import Service, System, wait_until
from tests.histories import Tables

FOLDS = range(1, 7)
FROZEN_SECONDS = 14
"""Longer than a lease and the projector's session, shorter than what a child is given to be ready."""


@dataclass
class Frozen:
    """What came of a system whose parts stood still."""

    system: System
    tables: tuple[Tables, Tables]


def zygote_and_projector_stand_still(stage: Stage) -> Frozen:
    """Stop both in the middle of six folds, past every lease."""
    with stage.system("frozen") as system:
        projector, runner = system.projector().await_ready(), system.runner(slots=2).await_ready()
        system.request(FOLDS, 1)
        wait_until(lambda: system.started_by(runner), ENDED_SECONDS, "a start")
        projector.send(signal.SIGSTOP)
        zygotes = _zygotes(runner)
        assert "datarun-zygote" in [zygote.name() for zygote in zygotes]
        for zygote in zygotes:
            zygote.suspend()
        time.sleep(FROZEN_SECONDS)
        for zygote in zygotes:
            zygote.resume()
        projector.send(signal.SIGCONT)
        wait_until(lambda: system.ended(FOLDS), ENDED_SECONDS, "every fold")
        return Frozen(system, system.tables())


def a_stopped_reaper_is_replaced(stage: Stage) -> Frozen:
    """Stop the projector whose reaper has the lock, for good, while a runner's fold is to be taken back."""
    with stage.system("replaced") as system:
        stopped = system.projector().await_ready()
        time.sleep(2)
        system.projector()
        runner = system.runner().await_ready()
        system.request([1], 30)
        wait_until(lambda: system.started_by(runner), ENDED_SECONDS, "a start")
        stopped.send(signal.SIGSTOP)
        runner.send(signal.SIGKILL)
        wait_until(lambda: system.deliveries(1) == 2, ENDED_SECONDS, "the second delivery")
        stopped.send(signal.SIGCONT)
        return Frozen(system, system.tables())


def _zygotes(runner: Service) -> list[psutil.Process]:
    """Return the zygote with its launcher, without the children that it has made."""
    isolated = [
        child
        for child in psutil.Process(runner.pid).children(recursive=True)
        if "isolated.entry import" in " ".join(child.cmdline())
    ]
    first = min(isolated, key=lambda process: process.create_time())
    return [
        first,
        *(process for process in isolated if process.ppid() == first.pid and process.name() == "datarun-zygote"),
    ]
