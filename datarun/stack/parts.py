"""The stack's five processes: how each is started, known to be ready, and stopped."""

from __future__ import annotations

import signal
import sys
from collections.abc import Mapping
from pathlib import Path

from datarun.stack.kafka import Kafka
from datarun.stack.postgres import Postgres
from datarun.stack.process import Command
from datarun.stack.supervisor import Part

SERVICES = {"gateway": "services.ingest", "projector": "services.projector", "runner": "services.runner"}


def kafka_part(kafka: Kafka, template: Path) -> Part:
    """Return the local broker."""
    return Part(
        name="kafka",
        url=kafka.bootstrap,
        prepare=lambda: kafka.prepare(template),
        command=kafka.command,
        is_ready=kafka.is_ready,
    )


def postgres_part(server: Postgres) -> Part:
    """Return the local database."""
    return Part(
        name="postgres",
        url=server.url,
        prepare=server.prepare,
        command=server.command,
        is_ready=server.is_ready,
        stop_signal=signal.SIGINT,
    )


def service_part(name: str, folder: Path, *arguments: str, environment: Mapping[str, str]) -> Part:
    """Return one of our services, which finds everything else in the folder's connection.json."""
    argv: list[str | Path] = [sys.executable, "-m", SERVICES[name], "--dir", folder, *arguments]
    return Part(name=name, command=lambda: Command(argv=argv, environment=environment))
