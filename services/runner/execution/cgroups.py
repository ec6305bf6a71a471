"""A control group for each fold: what all its processes and files use together is limited, counted and ended."""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import os
import secrets
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from services.runner.execution import hierarchies
from services.runner.execution.accounts import Usage
from services.runner.execution.hierarchies import INTERFACES, MIB, PREFIX, V2, Gauge, Interface, write

_BYTES = 4096
_PASSES = 3
_LOST_RACE = (BlockingIOError, FileNotFoundError)
"""Another runner swept between the making and the locking of a folder."""
REMOVE_SECONDS = 2.0
_WAIT_SECONDS = 0.01


class Group:
    """One fold's group; whoever writes 0 to its entrances is in it for good, with all it starts."""

    def __init__(self, interface: Interface, folders: dict[str, Path], *, memory_mib: float, processes: int) -> None:
        self._interface = interface
        self._folders = folders
        self._open: dict[Gauge, int] = {}
        try:
            for folder in self._each():
                folder.mkdir()
            self.limit(memory_mib=memory_mib, processes=processes)
            for controller, file, text in interface.optional:
                with contextlib.suppress(FileNotFoundError):
                    write(folders[controller] / file, text)
            for gauge in (interface.peak_mib, interface.cpu_seconds, interface.oom_kills):
                self._open[gauge] = os.open(folders[gauge.controller] / gauge.file, os.O_RDONLY | os.O_CLOEXEC)
            self._read(interface.oom_kills)
        except (OSError, ValueError):
            self.close()
            self.remove()
            raise

    def _each(self) -> Iterable[Path]:
        return dict.fromkeys(self._folders.values())

    def limit(self, *, memory_mib: float, processes: int) -> None:
        """Let it use so much memory, swap included, and so many processes and threads, and no more."""
        for file in self._interface.memory:
            if (self._folders["memory"] / file).exists():  # without swap there is none for it
                write(self._folders["memory"] / file, str(int(memory_mib * MIB)))
        write(self._folders["pids"] / "pids.max", str(processes))

    def entrances(self) -> list[int]:
        """Return open descriptors to write 0 to; the caller closes them."""
        entrance = self._interface.entrance
        return [os.open(folder / entrance, os.O_WRONLY | os.O_CLOEXEC) for folder in self._each()]

    def exists(self) -> bool:
        """Tell whether it is still there."""
        return all(folder.exists() for folder in self._each())

    def members(self) -> list[int]:
        """Return the process ids of what is in it."""
        return _members(self._folders["pids"])

    def usage(self) -> Usage:
        """Return what all its processes have used so far; at its peak, with the files they made."""
        return Usage(self._read(self._interface.cpu_seconds), self._read(self._interface.peak_mib))

    def current_mib(self) -> float:
        """Return how much memory it uses now."""
        gauge = self._interface.current_mib
        return gauge.value((self._folders[gauge.controller] / gauge.file).read_text(encoding="ascii"))

    def is_out_of_memory(self) -> bool:
        """Tell whether the kernel ended one of its processes for want of memory."""
        return self._read(self._interface.oom_kills) > 0

    def _read(self, gauge: Gauge) -> float:
        return gauge.value(os.pread(self._open[gauge], _BYTES, 0).decode("ascii"))

    def kill(self) -> None:
        """End every process in it; does not wait for them."""
        with contextlib.suppress(OSError):  # it is gone already
            write(self._folders["pids"] / "pids.max", "0")
            _kill_members(self._folders["pids"])

    def close(self) -> None:
        """Let go of its accounts."""
        while self._open:
            os.close(self._open.popitem()[1])

    def remove(self) -> bool:
        """Remove it and tell whether that was possible; it is not while a process is in it."""
        try:
            for folder in self._each():
                with contextlib.suppress(FileNotFoundError):
                    folder.rmdir()
        except OSError:
            return False
        return True


class Groups:
    """A runner's groups, in folders of its own that are locked as long as it lives; thread-safe.

    The kernel makes and removes groups one at a time for the whole machine, so both are done beside the folds.
    """

    def __init__(self, version: str, *, memory_mib: int, processes: int) -> None:
        """Raise OSError where there can be no group."""
        self._interface = INTERFACES[version]
        self._memory_mib = memory_mib
        self._processes = processes
        self._count = itertools.count(1)
        self._folders: dict[str, Path] = {}
        self._locks: list[int] = []
        self._lock = threading.Lock()
        self._ready: deque[Group] = deque()
        self._used: set[Group] = set()
        self._retired: list[Group] = []
        self._aside = ThreadPoolExecutor(1, thread_name_prefix="groups")
        try:
            for patience in reversed(range(_PASSES)):
                with contextlib.suppress(*_LOST_RACE if patience else ()):
                    self._claim()
                    break
            self._ready.append(self._make())
        except (OSError, ValueError) as error:
            self.close()
            raise OSError(f"cgroup {version}: {error}") from error

    def _claim(self) -> None:
        """Remove what dead runners left, and make and lock the folders of this one."""
        above = hierarchies.parents(self._interface)
        for folder in dict.fromkeys(above.values()):
            sweep(folder)
        name = PREFIX + secrets.token_hex(4)
        self._folders = {controller: folder / name for controller, folder in above.items()}
        for folder in dict.fromkeys(self._folders.values()):
            folder.mkdir()
            self._locks.append(os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
            fcntl.flock(self._locks[-1], fcntl.LOCK_EX | fcntl.LOCK_NB)
        if self._interface is V2:
            own = self._folders["pids"]
            hierarchies.give_on(own.parent, own / hierarchies.ASIDE)
            hierarchies.give_on(own, own / hierarchies.ASIDE)

    def open(self) -> Group:
        """Return the group of one fold; raises OSError."""
        with self._lock:
            group = self._ready.popleft() if self._ready else None
        if group is None or not group.exists():
            group = self._make_surely()
        with self._lock:
            self._used.add(group)
        self._later(self._prepare)
        return group

    def _make_surely(self) -> Group:
        try:
            return self._make()
        except FileNotFoundError:  # somebody removed our folders
            self._claim()
            return self._make()

    def _make(self) -> Group:
        name = str(next(self._count))
        folders = {controller: folder / name for controller, folder in self._folders.items()}
        return Group(self._interface, folders, memory_mib=self._memory_mib, processes=self._processes)

    def _prepare(self) -> None:
        """Remove what can be removed and have one group ready."""
        self._collect()
        if not self._ready:
            with contextlib.suppress(OSError, ValueError):  # whoever opens the next one is told
                self._ready.append(self._make())

    def retire(self, group: Group) -> None:
        """End what is in a group and remove it as soon as that is over; soon, and not at once."""
        with self._lock:
            is_ours = group in self._used
            if is_ours:
                self._used.remove(group)
                self._retired.append(group)
        if is_ours:
            self._later(group.kill)
            self._later(group.close)
        else:  # closed meanwhile, which has ended it
            group.close()

    def _later(self, work: Callable[[], None]) -> None:
        with contextlib.suppress(RuntimeError):  # closed, which has done it
            self._aside.submit(work)

    def _collect(self) -> None:
        with self._lock:
            retired = list(self._retired)
        removed = {group for group in retired if group.remove()}
        with self._lock:
            self._retired = [group for group in self._retired if group not in removed]

    def close(self) -> None:
        """End and remove every group, and the folders; what does not end in time is left to the next runner's sweep."""
        self._aside.shutdown()
        deadline = time.monotonic() + REMOVE_SECONDS
        with self._lock:
            self._retired += [*self._used, *self._ready]
            self._used.clear()
        for group in self._ready:
            group.close()
        self._ready.clear()
        for group in self._retired:
            group.kill()
        self._collect()
        while self._retired and time.monotonic() < deadline:
            time.sleep(_WAIT_SECONDS)
            self._collect()
        for folder in dict.fromkeys(self._folders.values()):
            with contextlib.suppress(OSError):
                folder.rmdir()
        while self._locks:
            os.close(self._locks.pop())


def sweep(above: Path) -> None:
    """Remove the groups that runners left which live no more; what another one holds is locked."""
    for folder in above.glob(f"{PREFIX}*"):
        with contextlib.suppress(OSError):  # locked, or another runner sweeps it too
            descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                _remove_all(folder)
            finally:
                os.close(descriptor)


def _remove_all(folder: Path) -> None:
    """End what is in a folder's groups and remove them, or as many as are empty by then."""
    for group in [*(entry for entry in folder.iterdir() if entry.is_dir()), folder]:
        _kill_members(group)
        deadline = time.monotonic() + REMOVE_SECONDS
        while not _is_removed(group) and time.monotonic() < deadline:
            time.sleep(_WAIT_SECONDS)


def _is_removed(group: Path) -> bool:
    try:
        group.rmdir()
    except OSError:
        return False
    return True


def _members(folder: Path) -> list[int]:
    return [int(word) for word in (folder / "cgroup.procs").read_text(encoding="ascii").split()]


def _kill_members(folder: Path) -> None:
    """Kill what is in one group, by handles, so that nothing else can be hit."""
    if (folder / "cgroup.kill").exists():
        write(folder / "cgroup.kill", "1")
        return
    for _ in range(_PASSES):
        for pid in _members(folder):
            with contextlib.suppress(OSError):  # it has just ended, or is of another namespace
                pidfd = os.pidfd_open(pid)
                try:
                    if pid in _members(folder):
                        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
                finally:
                    os.close(pidfd)
