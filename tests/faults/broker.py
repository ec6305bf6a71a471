"""A broker of an episode's own, killed under load and started again."""

from __future__ import annotations

from dataclasses import dataclass

from tests.brokers import running_broker
from tests.faults.stage import ENDED_SECONDS, Stage
from tests.faults.system import System, wait_until
from tests.histories import Tables

FOLDS = range(1, 61)
RUN_SECONDS = 0.2


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
