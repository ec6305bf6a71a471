"""The child's whole life: wait for a job, do it, say how it ended, vanish without interpreter teardown."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

from . import imports, organiser, probe, splitting, submission
from .process import flush_output, settle
from .report import describe
from .wire import Message, receive, send

Job = Callable[[socket.socket, Path, Message, Sequence[int]], None]
JOBS: dict[str, Job] = {
    "fold": submission.run,
    "slice": organiser.slice_fold,
    "prepare": organiser.prepare,
    "split": splitting.split,
    "import": imports.run,
    "probe": probe.run,
}
NO_ANSWER = 70
"""Exit code when the answer itself could not be sent; the runner sees an exit without a result."""


def live(sock: socket.socket, box: Path, packages: str | None) -> NoReturn:
    """Do the one job that comes through the socket and exit; packages are found beside the interpreter's own."""
    code = 0
    try:
        settle(box, packages)
        send(sock, {"event": "ready"})
        received = receive(sock)
        if received is not None:
            _work(sock, box, *received)
            receive(sock)  # the runner reads the accounts of the living process, then kills it
    except BaseException:  # noqa: BLE001 - the runner is gone, or the submission broke its own channel
        code = NO_ANSWER
    finally:
        os._exit(code)


def _work(sock: socket.socket, box: Path, job: Message, descriptors: Sequence[int]) -> None:
    try:
        JOBS[job["job"]](sock, box, job, descriptors)
    except BaseException as error:  # noqa: BLE001 - SystemExit and KeyboardInterrupt in a submission are its errors
        answer = describe(error, box)
        flush_output()
        send(sock, answer)
