"""The zygote: a warm process without data or secrets that forks one child for each job and sees to its end.

Whatever a child leaves behind becomes the zygote's own child and is killed before the child's end is reported.
"""

from __future__ import annotations

import os
import select
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from .boxes import Boxes, first_free
from .child import live
from .confine import Filters, address_space_bytes, confine
from .trees import children, kill_trees
from .wire import Message, close, receive, send

SWEEP_MILLISECONDS = 1000
REFUSED = 78
"""Exit code of a process that could not be confined."""
_LOG, _JOB = 1, 3


@dataclass(frozen=True, slots=True)
class Child:
    """A living child: the number of its box, and where its end is to be reported."""

    pid: int
    box: int
    report: socket.socket


@dataclass(frozen=True, slots=True)
class _Given:
    """The descriptors a child gets: its channel, its log, and the entrances of its control groups."""

    job: int
    log: int
    entrances: Sequence[int]


class Zygote:
    """Forks on request, reaps, sweeps; one thread, one poll loop."""

    def __init__(self, runner: socket.socket, boxes: Boxes, filters: Filters | None) -> None:
        self._runner = runner
        self._boxes = boxes
        self._filters = filters
        self._children: dict[int, Child] = {}
        self._address_space_bytes = address_space_bytes()
        self._poll = select.poll()
        self._poll.register(runner, select.POLLIN)

    def serve(self) -> None:
        """Work until the runner is gone."""
        while True:
            ready = self._poll.poll(SWEEP_MILLISECONDS if self._children else None)
            for descriptor, _ in ready:
                if descriptor in self._children:
                    self._reap(descriptor)
                elif not self._obey():
                    self._children.clear()
                    self._sweep()
                    return
            if not ready:
                self._sweep()

    def _obey(self) -> bool:
        received = receive(self._runner)
        if received is None:
            return False
        limits, (job, log, descriptor, *entrances) = received
        report = socket.socket(fileno=descriptor)
        try:
            self._fork(limits, _Given(job, log, entrances), report)
        except OSError as error:
            _tell(report, {"refused": str(error)})
            report.close()
        close([job, log, *entrances])
        return True

    def _fork(self, limits: Message, given: _Given, report: socket.socket) -> None:
        number = first_free({child.box for child in self._children.values()})
        folder = self._boxes.open(number, disk_mib=limits["disk_mib"])
        pid = os.fork()
        if pid == 0:
            limits["address_space_bytes"] = self._address_space_bytes
            _take_descriptors(given)
            self._become_child(limits, box=folder, uid=self._boxes.uid_of(number))
        pidfd = os.pidfd_open(pid)
        self._children[pidfd] = Child(pid, number, report)
        self._poll.register(pidfd, select.POLLIN)
        _tell(report, {"folder": str(folder)}, pidfd)

    def _become_child(self, limits: Message, *, box: Path, uid: int | None) -> None:
        try:
            confine(limits, uid=uid, box=box, filters=self._filters)
            live(socket.socket(fileno=_JOB), box, limits["packages"])
        except BaseException as error:  # noqa: BLE001 - nothing may run here unconfined; the runner reads why
            os.write(_LOG, repr(error).encode())
        finally:
            os._exit(REFUSED)

    def _reap(self, pidfd: int) -> None:
        child = self._children.pop(pidfd)
        self._poll.unregister(pidfd)
        os.close(pidfd)
        _, status, usage = os.wait4(child.pid, 0)
        self._sweep()
        self._boxes.close(child.box)
        _tell(
            child.report,
            {"status": status, "cpu_seconds": usage.ru_utime + usage.ru_stime, "peak_kib": usage.ru_maxrss},
        )
        child.report.close()

    def _sweep(self) -> None:
        """Kill and reap every child that is not one of ours, again and again, until there is none."""
        known = {child.pid for child in self._children.values()}
        while strangers := [pid for pid in children() if pid not in known]:
            kill_trees(strangers)
            for pid in strangers:
                os.waitpid(pid, 0)


def _tell(report: socket.socket, message: Message, *descriptors: int) -> None:
    try:
        send(report, message, descriptors)
    except OSError:  # the runner has its result and did not wait for the end
        return


def _take_descriptors(given: _Given) -> None:
    """Enter the groups; keep the channel and the log, as the numbers a child expects, and close everything else."""
    try:
        for entrance in given.entrances:
            os.write(entrance, b"0")
        kept = os.dup(given.job), os.dup(given.log)
        os.dup2(kept[1], _LOG)
        os.dup2(kept[1], _LOG + 1)
        os.dup2(kept[0], _JOB)
        os.closerange(_JOB + 1, os.sysconf("SC_OPEN_MAX"))
    except OSError as error:
        os.write(given.log, repr(error).encode())
        os._exit(REFUSED)
