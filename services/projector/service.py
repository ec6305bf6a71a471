"""The projector's life: start, ready, stop on SIGTERM, end on anything unexpected."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import shutil
import signal
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import structlog
from faust import App

from datarun import notify
from datarun.log import EventLog
from datarun.settings import Settings
from services.projector.app import Group, Shell, make_app
from services.projector.watch import EXIT_UNEXPECTED, Watch
from services.projector.writer import Writer

STOP_SECONDS = 8.0
COLLECT_SELDOM = (100_000, 50, 100)

log = structlog.get_logger(__name__)


def run(settings: Settings, url: str, *, session_seconds: float, patience_seconds: float) -> int:
    """Project until SIGTERM or SIGINT; return the exit code."""
    for name in ("faust", "mode", "aiokafka", "services.projector.fetches"):
        logging.getLogger(name).setLevel(logging.WARNING)
    writer = Writer(url, catalogue=settings.catalogue, open_log=lambda: _open_log(settings))
    writer.prepare()
    watch = Watch(settings, url, patience_seconds=patience_seconds)
    datadir = Path(tempfile.mkdtemp(prefix="datarun-projector-"))

    def on_ready(behind: int) -> None:
        # Faust insists on a folder when it starts; without tables it puts nothing there.
        shutil.rmtree(datadir, ignore_errors=True)
        # Records and events form no cycles, and looking for some takes a third of the time; Faust's own are few.
        gc.freeze()
        gc.set_threshold(*COLLECT_SELDOM)
        watch.start()
        log.info("projector.ready", behind=behind)
        notify.ready(f"caught up, {behind} events behind")

    executor = ThreadPoolExecutor(1, thread_name_prefix="projector-writer")
    group = Group(f"{settings.topic_prefix}projector.v1", session_seconds)
    app = make_app(settings, group, Shell(writer, executor, datadir, on_ready))
    try:
        return asyncio.run(_live(app))
    finally:
        shutil.rmtree(datadir, ignore_errors=True)


def _open_log(settings: Settings) -> EventLog:
    from datarun.log.kafka import KafkaLog  # noqa: PLC0415 - hardly ever needed

    return KafkaLog(settings.brokers)


async def _live(app: App) -> int:
    loop = asyncio.get_running_loop()
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    starting = loop.create_task(_started(app))
    told = loop.create_task(stopping.wait())
    await asyncio.wait([starting, told], return_when=asyncio.FIRST_COMPLETED)
    crashed = not stopping.is_set()
    if crashed:
        log.critical("projector.crashed", error=repr(app.crash_reason))
    code = EXIT_UNEXPECTED if crashed else 0
    _end_within(STOP_SECONDS, code)
    await app.stop()
    return code


async def _started(app: App) -> None:
    await app.start()
    await app.wait_until_stopped()


def _end_within(seconds: float, code: int) -> None:
    # Threads of a consumer whose broker is away may never end; everything that counts is committed.
    timer = threading.Timer(seconds, os._exit, args=(code,))
    timer.daemon = True
    timer.start()
