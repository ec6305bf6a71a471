"""A queue that loses a record, before runners that are busy, and then idle."""

from __future__ import annotations

from dataclasses import dataclass

from datarun.events import FoldRequested
from datarun.log.queue import KafkaWorkQueue
from datarun.topics import QUEUES
from tests.faults.stage import ENDED_SECONDS, Stage
from tests.faults.system import Seen, System, wait_until
from tests.histories import Tables

PATIENCE_SECONDS = 6.0
BUSY_SECONDS = 15
LOST, SHORT, BUSY, WAITING = 1, (2, 3), 4, 5


@dataclass
class PassedOver:
    """What came of a fold whose request the queue had lost, and of one that waited for a slot."""

    system: System
    requests: dict[int, list[Seen]]
    """Every request of a fold in the log."""
    tables: tuple[Tables, Tables]


def a_record_the_queue_has_lost(stage: Stage) -> PassedOver:
    """Accept the first record as no runner would; then one runner starts, is busy for long, and is idle."""
    with stage.system("lost") as system:
        system.projector("--patience", str(PATIENCE_SECONDS)).await_ready()
        system.request([LOST, *SHORT], 0.1)
        _lose_first(system)
        system.request([BUSY], BUSY_SECONDS)
        system.request([WAITING], 0.1)
        system.runner(queues="H")
        folds = [LOST, *SHORT, BUSY, WAITING]
        wait_until(lambda: system.ended(folds), ENDED_SECONDS, "every fold")
        requests = {fold_id: system.seen(FoldRequested, fold_id=fold_id) for fold_id in folds}
        return PassedOver(system, requests, system.tables())


def _lose_first(system: System) -> None:
    installation = system.installation
    catalogue, queues = installation.catalogue, [("H", QUEUES["H"])]
    queue = KafkaWorkQueue(installation.kafka, queues, catalogue=catalogue, event_log=system.log)
    taken = []
    wait_until(lambda: taken or taken.extend(filter(None, [queue.take()])), ENDED_SECONDS, "the first record")
    queue.accept(taken[0])
    queue.close()
