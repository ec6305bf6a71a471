"""How a runner's process ends: at the first SIGTERM or SIGINT in order and within a bound, at the second at once."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from types import FrameType

import structlog

SIGNALS = (signal.SIGTERM, signal.SIGINT)

log = structlog.get_logger(__name__)


def on_signal(stop: Callable[[], None], *, seconds: float) -> None:
    """Have the first signal call `stop` and give it so many seconds; what is undone then, leases settle elsewhere."""

    def first(number: int, _: FrameType | None) -> None:
        for each in SIGNALS:
            signal.signal(each, signal.SIG_DFL)
        log.info("runner.stopping", signal=signal.Signals(number).name)
        bound = threading.Timer(seconds, _end)
        bound.daemon = True
        bound.start()
        stop()

    for each in SIGNALS:
        signal.signal(each, first)


def _end() -> None:
    log.warning("runner.stopped_late")
    os._exit(0)
