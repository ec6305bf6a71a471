"""A broker of an episode's own, killed under load and started again."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from datarun.stack.kafka import Kafka, local_kafka
from datarun.stack.prepare import ensure_kafka
from datarun.stack.process import open_log
from tests.faults.stage import ENDED_SECONDS, Stage
from tests.faults.system import READY_SECONDS, System, wait_until
from tests.histories import Tables

FOLDS = range(1, 61)
RUN_SECONDS = 0.2


@dataclass
class Broker:
    """A broker that keeps its data and its ports."""

    kafka: Kafka
    _process: subprocess.Popen[bytes] | None = field(default=None, init=False)

    def start(self) -> None:
        """Start it and wait until it answers."""
        log = open_log(self.kafka.folder / "kafka.log")
        command = self.kafka.command()
        # Another death signal than the stack's: the thread that plays an episode ends before the process does.
        self._process = subprocess.Popen(command.argv, stdout=log, stderr=log, cwd=command.cwd, start_new_session=True)
        os.close(log)
        wait_until(self.kafka.is_ready, READY_SECONDS, "the broker")

    def kill(self) -> None:
        """Kill -9 it."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(10)


@contextmanager
def running_broker(cache: Path, folder: Path) -> Iterator[Broker]:
    """Start a broker in a new folder."""
    program, template = ensure_kafka(cache)
    kafka = local_kafka(program, folder)
    kafka.prepare(template)
    broker = Broker(kafka)
    try:
        broker.start()
        yield broker
    finally:
        broker.kill()


@dataclass
class BrokerKilled:
    """A system whose broker was killed while folds ran."""

    system: System
    tables: tuple[Tables, Tables]


def the_broker_is_killed_under_load(stage: Stage) -> BrokerKilled:
    """Kill the broker when a third of sixty folds has ended, and again when two thirds have."""
    with (
        running_broker(stage.cache, stage.folder / "kafka-killed") as broker,
        stage.system("broker", kafka=broker.kafka.bootstrap) as system,
    ):
        services = [system.projector(), system.runner(slots=2), system.runner(slots=2)]
        for service in services:
            service.await_ready()
        system.request(FOLDS, RUN_SECONDS)
        for third in (FOLDS[:20], FOLDS[:40]):
            wait_until(lambda third=third: system.ended(third), ENDED_SECONDS, "some of the folds")  # type: ignore[misc]
            broker.kill()
            broker.start()
        wait_until(lambda: system.ended(FOLDS), ENDED_SECONDS, "every fold")
        assert [service.process.poll() for service in services] == [None, None, None]
        return BrokerKilled(system, system.tables())
