"""The stack's folder: ours by a marker, one supervisor at a time by a lock that dies with it."""

from __future__ import annotations

import fcntl
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from datarun.errors import DatarunError
from datarun.stack.process import end_processes
from datarun.stack.state import StackState, load_state

MARKER = ".datarun-folder"
RUN = "run"
LOCK = "lock"
LOGS = "logs"
STACK_LOG = "stack"
CLAIM_SECONDS = 0.3
POLL_SECONDS = 0.01


class NotOurs(DatarunError):
    """The folder was not made by datarun."""


class AlreadyRunning(DatarunError):
    """A stack already runs in this folder."""


@dataclass(frozen=True)
class StackFolder:
    """One folder with everything of one stack in it."""

    path: Path

    @property
    def run(self) -> Path:
        """Where lock and state live: what is worth nothing after a stop."""
        return self.path / RUN

    def log(self, name: str) -> Path:
        """Return the log file of a part."""
        return self.path / LOGS / f"{name}.log"

    def state(self) -> StackState | None:
        """Return what the last supervisor wrote."""
        return load_state(self.run)

    @contextmanager
    def claim(self, *, fresh: bool = False) -> Iterator[None]:
        """Hold the folder, made where missing, cleared of an earlier crash's processes, emptied when `fresh`.

        Raises AlreadyRunning, and NotOurs for a folder with anything else in it.
        """
        self.refuse_strangers()
        self.run.mkdir(parents=True, exist_ok=True)
        with _exclusive(self.run / LOCK):
            self._end_leftovers()
            if fresh:
                self._empty()
            (self.path / MARKER).touch()
            yield

    def is_held(self) -> bool:
        """Tell whether a supervisor holds the folder now."""
        try:
            descriptor = os.open(self.run / LOCK, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        try:
            # Shared: two who ask do not take each other for the supervisor.
            return not _taken(descriptor, fcntl.LOCK_SH)
        finally:
            os.close(descriptor)

    def refuse_strangers(self) -> None:
        """Raise NotOurs if there is anything here that a stack did not make."""
        if self.path.exists() and not self.path.is_dir():
            raise NotOurs(f"{self.path} is not a folder; name another --dir")
        # A crash before the marker was written leaves nothing but these.
        others = {entry.name for entry in self.path.iterdir()} - {RUN, LOGS} if self.path.exists() else set()
        if others and MARKER not in others:
            raise NotOurs(f"{self.path} has files that are not datarun's; name a new folder with --dir")

    def _end_leftovers(self) -> None:
        state = self.state()
        leftovers = [part.pid for part in state.processes.values() if part.pid and part.is_alive] if state else []
        end_processes(leftovers)

    def _empty(self) -> None:
        # Lock and state stay, and the log this start may be writing to.
        kept = {self.run, self.path / LOGS, self.log(STACK_LOG)}
        for entry in (*self.path.iterdir(), *(self.path / LOGS).glob("*")):
            if entry in kept:
                continue
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry)
            else:
                entry.unlink()


@contextmanager
def _exclusive(lock: Path) -> Iterator[None]:
    descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        # Someone who only asks whether it is held holds it for a moment.
        deadline = time.monotonic() + CLAIM_SECONDS
        while not _taken(descriptor, fcntl.LOCK_EX):
            if time.monotonic() > deadline:
                raise AlreadyRunning
            time.sleep(POLL_SECONDS)
        yield
    finally:
        os.close(descriptor)


def _taken(descriptor: int, kind: int) -> bool:
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
