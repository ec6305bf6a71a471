"""Starts a gateway: `python -m services.ingest --dir .datarun --port 8000`."""

from __future__ import annotations

import asyncio
import gc
import os
import resource
import signal
import sys
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated, cast

import structlog
import typer
import uvloop
from aiohttp import web

from datarun import notify
from datarun.db import connect
from datarun.errors import DatarunError
from datarun.log.admin import probe
from datarun.log.kafka import KafkaLog
from datarun.log.vigil import watch_topics
from datarun.projection.share import Ground
from datarun.settings import DEFAULT_DIR, Settings, load_settings
from datarun.telemetry import configure_logging
from services.ingest.app import make_app
from services.ingest.catching_up import CatchUp
from services.ingest.guard import GUARD, Guard
from services.ingest.health import PROBE_SECONDS

LOG_CLOSE_SECONDS = 3.0
REQUESTS_END_SECONDS = 3.0
BACKLOG = 1024
SEND_SECONDS = 300.0
"""How long librdkafka tries one record by itself; it does so without doubling it."""

log = structlog.get_logger(__name__)


async def serve(settings: Settings, event_log: KafkaLog, *, host: str, port: int) -> None:
    """Serve until SIGTERM or SIGINT."""
    stop = asyncio.Event()
    answers = partial(probe, settings.brokers, PROBE_SECONDS)
    catching_up = CatchUp(_ground(settings), settings.postgres, answers=answers)

    def end() -> None:
        stop.set()
        catching_up.stop()

    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, end)
    catching_up.start()
    await asyncio.to_thread(catching_up.look)
    app = make_app(settings, event_log, may_claim=lambda: catching_up.is_done)
    # Content encodings are undone where their size is watched.
    runner = web.AppRunner(
        app,
        access_log=None,
        auto_decompress=False,
        shutdown_timeout=REQUESTS_END_SECONDS,
    )
    await runner.setup()
    server = await _listen(runner, app[GUARD], host=host, port=port)
    url = f"http://{host}:{server.sockets[0].getsockname()[1]}"
    # What is loaded by now stays; looking through all of it for cycles keeps every client waiting.
    gc.collect()
    gc.freeze()
    log.info("gateway.ready", url=url)
    notify.ready(url)
    await stop.wait()
    log.info("gateway.stopping")
    server.close()
    await runner.cleanup()


def _ground(settings: Settings) -> Ground:
    return Ground(
        partial(KafkaLog, settings.brokers),
        partial(connect, settings.postgres, application="datarun-gateway-claims"),
        settings.catalogue,
        schema="intake",
    )


async def _listen(runner: web.AppRunner, guard: Guard, *, host: str, port: int) -> asyncio.Server:
    _, most_files = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most_files, most_files))
    protocol = guard.guarded(cast(Callable[[], asyncio.Protocol], runner.server))
    return await asyncio.get_running_loop().create_server(protocol, host, port, backlog=BACKLOG, reuse_address=True)


def main(  # noqa: PLR0913 - a command's options are its arguments
    *,
    directory: Annotated[Path, typer.Option("--dir", help="Folder of a running `datarun up`.")] = DEFAULT_DIR,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0 takes a free one.")] = 8000,
    kafka: Annotated[str | None, typer.Option(help="Kafka's host:port.")] = None,
    postgres: Annotated[str | None, typer.Option(help="URL of the database.")] = None,
    blobs: Annotated[str | None, typer.Option(help="URL of the blob store.")] = None,
    topic_prefix: Annotated[str | None, typer.Option(help="Prefix of the topics' names.")] = None,
    max_blob_mib: Annotated[int | None, typer.Option(min=1, help="MiB a runner may send as one blob.")] = None,
) -> None:
    """Run a gateway in the foreground."""
    configure_logging("gateway")
    try:
        settings = load_settings(
            directory,
            kafka=kafka,
            postgres_url=postgres,
            blobs=blobs,
            topic_prefix=topic_prefix,
            max_blob_mib=max_blob_mib,
        )
        _ = settings.postgres, settings.blobs
        event_log = KafkaLog(settings.brokers, delivery_timeout_seconds=SEND_SECONDS)
        watch_topics(settings.brokers, prefix=settings.topic_prefix)
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(serve(settings, event_log, host=host, port=port))
            _close(event_log)
    except (DatarunError, OSError) as error:
        typer.echo(f"datarun gateway: {error}", err=True)
        sys.exit(1)


def _close(event_log: KafkaLog) -> None:
    # What the log does not take now is in the outbox; neither a broker nor a database that is away keeps the process.
    closing = threading.Thread(target=event_log.close, daemon=True)
    closing.start()
    closing.join(LOG_CLOSE_SECONDS)
    log.info("gateway.stopped")
    sys.stderr.flush()
    os._exit(0)


if __name__ == "__main__":
    typer.run(main)
