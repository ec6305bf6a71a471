"""A stack in a process of its own: for `datarun up --detach` and `down`, for the demo, and for tests."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from datarun.errors import DatarunError
from datarun.stack.connection import Connection
from datarun.stack.folder import STACK_LOG, StackFolder
from datarun.stack.process import Command, is_same_process, open_log, tail
from datarun.stack.state import StackState

POLL_SECONDS = 0.02
STOP_SECONDS = 60.0


class StackFailed(DatarunError):
    """The stack did not become ready."""


class NotStopped(DatarunError):
    """The stack does not stop."""


@dataclass(frozen=True)
class RunningStack:
    """A stack that is ready."""

    folder: StackFolder
    connection: Connection

    def state(self) -> StackState:
        """Return what runs now."""
        return self.folder.state() or StackState()


@contextmanager
def running_stack(folder: Path, *arguments: str, output: Path | None = None) -> Iterator[RunningStack]:
    """Run a stack while the block runs; one that runs already is used, and left running.

    `arguments` are those of `datarun up`; its lines go to `output`, or to standard output. Raises StackFailed.
    """
    stack = StackFolder(folder.absolute())
    if stack.is_held():
        await_ready(stack, lambda: None if stack.is_held() else 0)
        yield _opened(stack)
        return
    command = Command(argv=_up(folder, arguments), death_signal=signal.SIGTERM)
    log = open_log(output) if output is not None else None
    with subprocess.Popen(
        command.argv, stdout=log, stderr=log, stdin=subprocess.DEVNULL, **command.popen_options()
    ) as process:
        if log is not None:
            os.close(log)
        try:
            await_ready(stack, process.poll)
            yield _opened(stack)
        finally:
            process.send_signal(signal.SIGTERM)
            _wait(process)


def start_detached(folder: Path, arguments: Sequence[str], tell: Callable[[str], None]) -> RunningStack:
    """Start a stack that outlives this process; its lines go to logs/stack.log and, until it is ready, to `tell`."""
    stack = StackFolder(folder.absolute())
    stack.refuse_strangers()
    path = stack.log(STACK_LOG)
    log = open_log(path)
    position = os.lseek(log, 0, os.SEEK_END)
    with path.open(encoding="utf-8") as lines:
        lines.seek(position)
        process = subprocess.Popen(
            _up(folder, arguments), stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
        )
        os.close(log)

        def follow() -> int | None:
            code = process.poll()
            for line in lines:
                tell(line.rstrip("\n"))
            return code

        await_ready(stack, follow)
        follow()
    # It is left to run, on purpose: without this Python warns of a child nobody waited for.
    process.returncode = 0
    return _opened(stack)


def await_ready(stack: StackFolder, ended: Callable[[], int | None]) -> None:
    """Wait until the stack is ready; raises StackFailed once `ended` tells an exit code."""
    while not ((state := stack.state()) and state.is_ready and state.is_alive):
        if (code := ended()) is not None:
            raise StackFailed(f"the stack did not start (exit code {code}); its logs are in {stack.path / 'logs'}")
        time.sleep(POLL_SECONDS)


def stop(folder: Path) -> bool:
    """Stop the stack of a folder and wait until nothing of it is left; False when none runs. Raises NotStopped."""
    stack = StackFolder(folder.absolute())
    if not stack.is_held():
        return False
    state = stack.state()
    if state is None or not state.is_alive:
        raise NotStopped(f"{folder} is held by a process that is not known: is it starting? Try again in a moment")
    os.kill(state.pid, signal.SIGTERM)
    deadline = time.monotonic() + STOP_SECONDS
    # The lock goes a moment before the process does.
    while stack.is_held() or is_same_process(state.pid, state.started_at):
        if time.monotonic() > deadline:
            raise NotStopped(f"the stack (process {state.pid}) does not stop:\n{tail(stack.log('stack'))}")
        time.sleep(POLL_SECONDS)
    return True


def _opened(stack: StackFolder) -> RunningStack:
    return RunningStack(stack, Connection.load(stack.path))


def _up(folder: Path, arguments: Sequence[str]) -> list[str]:
    return [sys.executable, "-m", "datarun.cli", "up", "--dir", str(folder), *arguments]


def _wait(process: subprocess.Popen[bytes]) -> None:
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
