"""How a runner's process ends: at the first SIGTERM or SIGINT in order and within a bound, at the second at once."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from types import FrameType

import structlog

SIGNALS = (signal.SIGTERM, signal.SIGINT)

log = structlog.get_logger(__name__)


def on_signal(stop: Callable[[], None], *, seconds: float) -> None:
    """Have the first signal call `stop` and give it so many seconds; what is undone then, leases settle elsewhere."""

    def end(number: int) -> None:
        log.info("runner.stopping", signal=signal.Signals(number).name)
        stop()
        time.sleep(seconds)
        log.warning("runner.stopped_late")
        os._exit(0)

    def first(number: int, _: FrameType | None) -> None:
        for each in SIGNALS:
            signal.signal(each, signal.SIG_DFL)
        # In a thread, for the main one may hold just now any lock that stopping needs.
        threading.Thread(target=end, args=(number,), daemon=True, name="stopping").start()

    for each in SIGNALS:
        signal.signal(each, first)
