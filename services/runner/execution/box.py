"""The runner's hold on one child: its messages, its log, its clock, its end."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import time
from pathlib import Path

from datarun.events import Runtime, Sandbox
from services.runner.execution.accounts import Accounts, Usage
from services.runner.execution.capture import Capture, drain, log_pipe, read_some
from services.runner.execution.isolated import wire
from services.runner.execution.isolated.wire import Garbled, Message
from services.runner.execution.outcomes import ExecutionUnavailable

REAP_SECONDS = 1.5
START_SECONDS = 30.0


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


class ChannelClosed(Exception):
    """A child closed its channel and lived on."""


class Box:
    """A forked child. Not thread-safe, but for kill()."""

    def __init__(self, zygote: socket.socket, limits: Message, *, log_bytes: int) -> None:
        self.capture = Capture(log_bytes)
        self.job, theirs = wire.pair()
        self._report, report = wire.pair()
        self._log, log = log_pipe()
        try:
            wire.send(zygote, limits, [theirs.fileno(), log, report.fileno()])
        except OSError as error:
            self.job.close()
            self._report.close()
            os.close(self._log)
            raise ExecutionUnavailable("the zygote is gone") from error
        finally:
            theirs.close()
            report.close()
            os.close(log)
        self._poll = select.poll()
        for descriptor in (self.job.fileno(), self._log, self._report.fileno()):
            self._poll.register(descriptor, select.POLLIN)
        self._pidfd = -1
        self.pid = 0
        self.folder = Path()
        self.cancelled = False
        self.sandbox: Sandbox | None = None
        self.runtime: Runtime | None = None
        self.interrupted = False
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
        """Return the child's next message; raises Ended, TimedOut, ChannelClosed or Garbled."""
        deadline = time.monotonic() + seconds
        while True:
            milliseconds = (deadline - time.monotonic()) * 1000
            ready = {descriptor for descriptor, _ in self._poll.poll(milliseconds)} if milliseconds > 0 else set()
            if not ready:
                raise TimedOut
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
            self._ended = Ended(message["status"], Usage(message["cpu_seconds"], message["peak_kib"] / 1024))
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
                return self._accounts.read()
            except (OSError, IndexError):  # it is exiting: the zygote will tell
                self.kill()
        return self.end().usage

    def interrupt(self) -> None:
        """Raise SoftTimeLimitExceeded in the child's Python code; it may catch it and finish."""
        self.interrupted = True
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._pidfd, signal.SIGINT)

    def kill(self) -> None:
        """Kill the child; the zygote kills what it leaves behind."""
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)

    def cancel(self) -> None:
        """Kill the child because nobody wants its result."""
        self.cancelled = True
        self.kill()

    def drain_log(self) -> None:
        """Take in what the child has written until now."""
        drain(self._log, self.capture)

    def close(self) -> None:
        """Let go of the child, which is killed without waiting for its end."""
        if self._pidfd >= 0:
            self.kill()
            os.close(self._pidfd)
            self._pidfd = -1
        if self._accounts is not None:
            self._accounts.close()
        self.job.close()
        self._report.close()
        os.close(self._log)


def _pid_of(pidfd: int) -> int:
    """Return the process id in our own namespace; the zygote may be in another."""
    information = Path(f"/proc/self/fdinfo/{pidfd}").read_text(encoding="ascii")
    return int(information.partition("Pid:")[2].split(maxsplit=1)[0])
