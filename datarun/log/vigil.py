"""A service's look at its topics, in a thread beside its start: it must not work on topics that are not as declared.

A broker that is away now is asked when it is there; nothing waits for the answer.
"""

from __future__ import annotations

import os
import threading
import time

import structlog

from datarun.errors import LogUnavailable, TopicsDiffer
from datarun.log.admin import refuse_differing_topics
from datarun.log.brokers import Brokers

EXIT_DIFFERENT = 78
FIRST_PAUSE_SECONDS = 2.0
LONGEST_PAUSE_SECONDS = 300.0

log = structlog.get_logger(__name__)


def watch_topics(brokers: Brokers, *, prefix: str) -> None:
    """Have the process end with 78, having said why, once a broker shows topics that differ from the catalogue."""
    threading.Thread(target=_look, args=(brokers, prefix), daemon=True, name="topics").start()


def _look(brokers: Brokers, prefix: str) -> None:
    pause = FIRST_PAUSE_SECONDS
    while True:
        try:
            refuse_differing_topics(brokers, prefix=prefix)
        except LogUnavailable as error:
            # Also where this service may not describe topics; who may, finds out.
            log.info("topics.not_compared", error=str(error))
            time.sleep(pause)
            pause = min(pause * 2, LONGEST_PAUSE_SECONDS)
        except TopicsDiffer as error:
            log.critical("topics.differ", differences=str(error).splitlines())
            os._exit(EXIT_DIFFERENT)
        else:
            return
