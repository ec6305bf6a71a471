"""The whole stack of one folder: Kafka and Postgres side by side, then the gateway, the projector and a runner."""

from __future__ import annotations

import asyncio
import signal
import time
from typing import Any
from urllib.parse import urlsplit

from datarun.errors import DatabaseUnavailable, DatarunError, LogUnavailable
from datarun.stack.connection import Connection
from datarun.stack.folder import StackFolder
from datarun.stack.kafka import local_kafka
from datarun.stack.options import StackOptions, decide_connection
from datarun.stack.parts import kafka_part, postgres_part, service_part
from datarun.stack.ports import free_ports
from datarun.stack.postgres import local_postgres
from datarun.stack.prepare import ensure_kafka
from datarun.stack.report import Report
from datarun.stack.supervisor import Part, Supervisor, in_thread

GIVEN_KAFKA_SECONDS = 5.0
INTERRUPTED = 130
RUNNER = "local-runner"
LOOPBACK_NETWORKS = "127.0.0.0/8,::1/128"
"""Where webhooks may go beside public addresses: the local gateway itself is for this machine alone."""
LAPTOP_SANDBOX = "2"
"""The least isolation of the local runner: user namespaces are closed on many a laptop. The runner then says so."""


def run_stack(options: StackOptions, report: Report) -> int:
    """Run the stack until SIGINT, SIGTERM or SIGHUP and return the exit code.

    Raises AlreadyRunning, NotOurs, and whatever a part failed with, when everything is stopped again.
    """
    folder = StackFolder(options.folder.absolute())
    with folder.claim(fresh=options.fresh):
        return asyncio.run(_run(folder, options, report))


async def _run(folder: StackFolder, options: StackOptions, report: Report) -> int:
    begun = time.monotonic()
    interrupted = _interruption()
    supervisor = Supervisor(folder, report)
    starting = asyncio.create_task(_start(options, supervisor, report))
    waiting = asyncio.create_task(interrupted.wait())
    try:
        await asyncio.wait({starting, waiting}, return_when=asyncio.FIRST_COMPLETED)
        if not starting.done():
            await _cancelled(starting)
            return INTERRUPTED
        connection = starting.result()
        seconds = time.monotonic() - begun
        report.note(f"ready after {seconds:.1f} s at {connection.gateway_url}; everything is in {folder.path}")
        supervisor.mark_ready()
        await waiting
        return 0
    finally:
        await supervisor.stop(("runner",), ("gateway", "projector"))
        report.note("stopped")


async def _start(options: StackOptions, supervisor: Supervisor, report: Report) -> Connection:
    connection = decide_connection(options)
    folder, port = options.folder.absolute(), urlsplit(connection.gateway_url).port
    connection.save(folder)
    sandbox_min = options.environment.get("DATARUN_SANDBOX_MIN", LAPTOP_SANDBOX)
    gateway_environment = {"DATARUN_WEBHOOK_NETWORKS": LOOPBACK_NETWORKS, **options.environment}
    parts = {
        "gateway": service_part("gateway", folder, "--port", str(port), environment=gateway_environment),
        "projector": service_part("projector", folder, *_session(options), environment=options.environment),
        "runner": service_part("runner", folder, "--sandbox-min", sandbox_min, environment=options.environment),
    }
    try:
        async with asyncio.TaskGroup() as group:
            log = group.create_task(_start_log(options, connection, supervisor, report))
            database = group.create_task(_start_database(options, connection, supervisor))
            group.create_task(_start_after((log,), supervisor, parts["runner"]))
            group.create_task(_start_after((log, database), supervisor, parts["gateway"]))
            group.create_task(_start_after((log, database), supervisor, parts["projector"]))
    except ExceptionGroup as failures:
        # Whatever else failed did so because the first one did.
        raise failures.exceptions[0] from None
    return connection


async def _start_after(needed: tuple[asyncio.Task[None], ...], supervisor: Supervisor, part: Part) -> None:
    await asyncio.gather(*needed)
    await supervisor.start(part)


def _session(options: StackOptions) -> tuple[str, ...]:
    # The local broker may let go of a killed projector sooner than Kafka elsewhere, whose least is six seconds.
    return ("--session-timeout", "3") if options.kafka is None else ()


async def _start_log(options: StackOptions, connection: Connection, supervisor: Supervisor, report: Report) -> None:
    # librdkafka loads while the broker starts.
    from datarun.log.admin import create_topics, probe
    from datarun.log.brokers import Brokers
    from datarun.settings import kafka_security
    from datarun.topics import DEFAULT_PREFIX

    brokers = Brokers(connection.kafka) if options.kafka is None else Brokers(connection.kafka, kafka_security())
    if options.kafka is None:
        await _start_kafka(options, connection, supervisor, report)
    elif not await in_thread(lambda: probe(brokers, GIVEN_KAFKA_SECONDS)):
        raise LogUnavailable(f"no Kafka answers at {connection.kafka}: check --kafka HOST:PORT")
    await in_thread(lambda: create_topics(brokers, prefix=options.topic_prefix or DEFAULT_PREFIX))


async def _start_kafka(options: StackOptions, connection: Connection, supervisor: Supervisor, report: Report) -> None:
    program, template = await in_thread(
        lambda: ensure_kafka(options.cache, java=options.java, java_home=options.java_home, tell=report)
    )
    port, [controller_port] = int(connection.kafka.rpartition(":")[2]), free_ports(1)
    kafka = local_kafka(program, options.folder / "kafka", ports=(port, controller_port))
    await supervisor.start(kafka_part(kafka, template))


async def _start_database(options: StackOptions, connection: Connection, supervisor: Supervisor) -> None:
    if options.postgres is None:
        server = local_postgres(options.folder / "postgres", cache=options.cache)
        await supervisor.start(postgres_part(server))
    await in_thread(lambda: _set_up_database(connection))


def _set_up_database(connection: Connection) -> None:
    import psycopg2
    from sqlalchemy.exc import ArgumentError

    from datarun import accounts, db, tokens

    try:
        db.upgrade(connection.postgres_url)
        tokens.add(connection.postgres_url, connection.runner_token, RUNNER, role="runner")
        accounts.add(connection.postgres_url, connection.user, connection.password)
    except psycopg2.OperationalError as error:
        raise DatabaseUnavailable(f"no Postgres answers: {error}") from error
    except ArgumentError as error:
        raise DatarunError(f"--postgres is not the URL of a database: {error}") from error
    except accounts.InvalidAccount:
        # An earlier start made it; its password is the one in connection.json.
        return


async def _cancelled(task: asyncio.Task[Any]) -> None:
    task.cancel()
    await asyncio.wait({task})


def _interruption() -> asyncio.Event:
    event, loop = asyncio.Event(), asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, event.set)
    return event
