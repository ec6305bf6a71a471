"""Brokers of a test's own, to be killed and stopped, and settings for those of a session."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from datarun.stack.kafka import Kafka, local_kafka
from datarun.stack.prepare import ensure_kafka
from datarun.stack.process import open_log

READY_SECONDS = 60


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
        deadline = time.monotonic() + READY_SECONDS
        while not self.kafka.is_ready():
            assert time.monotonic() < deadline, "the broker does not answer"
            time.sleep(0.05)

    def send(self, number: signal.Signals) -> None:
        """Send it a signal."""
        assert self._process is not None
        self._process.send_signal(number)

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


def add_settings(broker: Kafka, settings: Mapping[str, str]) -> None:
    """Let a broker that was prepared and is not started have other settings; of those there twice the last counts."""
    with (broker.folder / "kafka.properties").open("a", encoding="utf-8") as file:
        file.writelines(f"{name}={value}\n" for name, value in settings.items())
