"""The runner's hold on one child: its messages, its log, its clock, its end."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path

from datarun.events import Runtime, Sandbox
from services.runner.execution.accounts import Accounts, Usage
from services.runner.execution.capture import Capture, drain, log_pipe, read_some
from services.runner.execution.cgroups import Group, Groups
from services.runner.execution.isolated import wire
from services.runner.execution.isolated.wire import Garbled, Message
from services.runner.execution.outcomes import ExecutionUnavailable

REAP_SECONDS = 1.5
START_SECONDS = 30.0
LOOK_SECONDS = 1.0
"""How often a silent child is looked at: one that waits for a process that was killed would wait for ever."""
CLOSING_MILLISECONDS = 250


class Ended(Exception):
    """A child is gone, with all it started."""

    def __init__(self, status: int, usage: Usage) -> None:
        super().__init__(status)
        self.status = status
        self.usage = usage


class ZygoteSilent(ExecutionUnavailable):
    """The zygote lives and does not answer."""


class TimedOut(Exception):
    """A child did not answer before its deadline."""


class OutOfMemory(Exception):
    """The kernel ended one of a child's processes because all together wanted too much memory."""


class ChannelClosed(Exception):
    """A child closed its channel and lived on."""


class Box:
    """A forked child. Not thread-safe, but for kill()."""

    def __init__(self, zygote: socket.socket, limits: Message, *, log_bytes: int, groups: Groups | None = None) -> None:
        self._groups = groups
        self.group: Group | None = None
        entrances = self._open_group()
        self.capture = Capture(log_bytes)
        self.job, theirs = wire.pair()
        self._report, report = wire.pair()
        self._log, log = log_pipe()
        try:
            wire.send(zygote, limits, [theirs.fileno(), log, report.fileno(), *entrances])
        except OSError as error:
            self._leave_group()
            self.job.close()
            self._report.close()
            os.close(self._log)
            raise ExecutionUnavailable("the zygote is gone") from error
        finally:
            theirs.close()
            report.close()
            wire.close([log, *entrances])
        self._poll = select.poll()
        for descriptor in (self.job.fileno(), self._log, self._report.fileno()):
            self._poll.register(descriptor, select.POLLIN)
        self._pidfd = -1
        self.pid = 0
        self.folder = Path()
        self.cancelled = self.interrupted = False
        self.sandbox: Sandbox | None = None
        self.runtime: Runtime | None = None
        self._accounts: Accounts | None = None
        self._ended: Ended | None = None

    def wait_ready(self) -> None:
        """Wait until the child is confined and expects its job; raises ExecutionUnavailable when it never will be."""
        try:
            forked, descriptors = self._next_report()
            if not descriptors:
                raise ExecutionUnavailable(f"the zygote cannot fork: {forked['refused']}")
            (self._pidfd,) = descriptors
            self.folder = Path(forked["folder"])
            self.pid = _pid_of(self._pidfd)
            self._accounts = Accounts(self.pid)
            self.receive(START_SECONDS)
        except (Ended, TimedOut, ChannelClosed, Garbled) as error:
            message = f"a child could not be confined: {self.capture.text()!r}"
            raise ExecutionUnavailable(message) from error

    def receive(self, seconds: float) -> tuple[Message, list[int]]:
        """Return the child's next message; raises Ended, TimedOut, OutOfMemory, ChannelClosed or Garbled."""
        deadline = time.monotonic() + seconds
        while True:
            left = deadline - time.monotonic()
            if left <= 0:
                raise TimedOut
            ready = {descriptor for descriptor, _ in self._poll.poll(min(left, LOOK_SECONDS) * 1000)}
            if not ready and self.is_out_of_memory():
                raise OutOfMemory
            if self._log in ready and not read_some(self._log, self.capture):
                self._poll.unregister(self._log)
            if self.job.fileno() in ready:
                return self._next_message()
            if self._report.fileno() in ready:
                raise self.end()

    def _next_message(self) -> tuple[Message, list[int]]:
        with contextlib.suppress(ConnectionResetError):  # it closed its end with our last message unread
            received = wire.receive(self.job)
            if received is not None:
                return received
        exiting = select.poll()
        exiting.register(self._pidfd, select.POLLIN)
        if exiting.poll(CLOSING_MILLISECONDS):
            raise self.end()
        self.kill()
        self.end()
        raise ChannelClosed

    def end(self) -> Ended:
        """Return how a child that exited or was killed ended, once all it started is gone too."""
        if self._ended is None:
            message, _ = self._next_report()
            drain(self._log, self.capture)
            usage = Usage(message["cpu_seconds"], message["peak_kib"] / 1024)
            self._ended = Ended(message["status"], self._counted(usage))
        return self._ended

    def _next_report(self) -> tuple[Message, list[int]]:
        self._report.settimeout(START_SECONDS if self._pidfd < 0 else REAP_SECONDS)
        try:
            received = wire.receive(self._report)
        except TimeoutError as error:
            raise ZygoteSilent from error
        if received is None:
            raise ExecutionUnavailable("the zygote died")
        return received

    def usage(self) -> Usage:
        """Return what the child has used so far, or until its end."""
        if self._ended is None and self._accounts is not None:
            try:
                if self.group is None:
                    return self._accounts.read_with_descendants()
                return self._counted(self._accounts.read())
            except (OSError, IndexError):  # it is exiting: the zygote will tell
                self.kill()
        return self.end().usage

    def _counted(self, usage: Usage) -> Usage:
        """Return what all its processes used where they have a group, else what those that are known used."""
        if self.group is None:
            return usage
        with _asking_its_group():
            counted = self.group.usage()
        return Usage(counted.cpu_seconds, max(counted.peak_mib, usage.peak_mib))

    def is_out_of_memory(self) -> bool:
        """Tell whether a process of its group was ended for want of memory."""
        with _asking_its_group():
            return self.group is not None and self.group.is_out_of_memory()

    def interrupt(self) -> None:
        """Raise SoftTimeLimitExceeded in the child's Python code; it may catch it and finish."""
        self.interrupted = True
        self._signal(signal.SIGINT)

    def kill(self) -> None:
        """Kill the child, and its group if it has one; the zygote kills what it leaves behind."""
        self._signal(signal.SIGKILL)
        if self.group is not None:
            self.group.kill()

    def cancel(self) -> None:
        """Kill the child because nobody wants its result."""
        self.cancelled = True
        self.kill()

    def _signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._pidfd, number)

    def drain_log(self) -> None:
        """Take in what the child has written until now."""
        drain(self._log, self.capture)

    def close(self) -> None:
        """Let go of the child, which is killed with its group without waiting for its end."""
        if self._pidfd >= 0:
            self._signal(signal.SIGKILL)
            os.close(self._pidfd)
            self._pidfd = -1
        self._leave_group()
        if self._accounts is not None:
            self._accounts.close()
        self.job.close()
        self._report.close()
        os.close(self._log)

    def _open_group(self) -> list[int]:
        """Make the group that the child is to enter, and return its entrances."""
        if self._groups is None:
            return []
        try:
            self.group = self._groups.open()
            return self.group.entrances()
        except OSError as error:
            self._leave_group()
            raise ExecutionUnavailable(f"a child has no control group: {error}") from error

    def _leave_group(self) -> None:
        if self._groups is not None and self.group is not None:
            self._groups.retire(self.group)
            self._groups = None


@contextlib.contextmanager
def _asking_its_group() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ExecutionUnavailable("the control group of a child is gone") from error


def _pid_of(pidfd: int) -> int:
    """Return the process id in our own namespace; the zygote may be in another."""
    information = Path(f"/proc/self/fdinfo/{pidfd}").read_text(encoding="ascii")
    return int(information.partition("Pid:")[2].split(maxsplit=1)[0])
