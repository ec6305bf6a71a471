"""Where control groups can be made and what their files are called, in both versions of the kernel's interface.

Version 1 has a tree of folders for each controller, version 2 one tree for all of them.
"""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass
from pathlib import Path

from services.runner.execution.isolated.trees import family

PREFIX = "datarun-"
ASIDE = "aside"
"""Where a runner puts itself, since version 2 has processes in the leaves of its tree alone."""


@dataclass(frozen=True, slots=True)
class Gauge:
    """Where a number is read: the one after `word` in a controller's file, in so many units to one of ours."""

    controller: str
    file: str
    word: str
    units: float

    def value(self, text: str) -> float:
        """Return the number in the file's text; raises ValueError when it is not there."""
        return int(text[text.index(self.word) + len(self.word) :].split(maxsplit=1)[0]) / self.units


@dataclass(frozen=True, slots=True)
class Interface:
    """One version's names; files that `optional` names are used where they are."""

    name: str
    controllers: tuple[str, ...]
    entrance: str
    memory: tuple[str, ...]
    optional: tuple[tuple[str, str, str], ...]
    current_mib: Gauge
    peak_mib: Gauge
    cpu_seconds: Gauge
    oom_kills: Gauge


MIB = 1 << 20
V1 = Interface(
    name="v1",
    controllers=("memory", "pids", "cpu", "cpuacct"),
    # A thread that moves itself waits for no other; moving a process costs 10 ms.
    entrance="tasks",
    memory=("memory.limit_in_bytes", "memory.memsw.limit_in_bytes"),
    optional=(),
    current_mib=Gauge("memory", "memory.usage_in_bytes", "", MIB),
    peak_mib=Gauge("memory", "memory.max_usage_in_bytes", "", MIB),
    cpu_seconds=Gauge("cpuacct", "cpuacct.usage", "", 1e9),
    oom_kills=Gauge("memory", "memory.oom_control", "oom_kill ", 1),
)
V2 = Interface(
    name="v2",
    controllers=("memory", "pids", "cpu"),
    entrance="cgroup.procs",
    memory=("memory.max",),
    optional=(("memory", "memory.swap.max", "0"), ("memory", "memory.oom.group", "1")),
    current_mib=Gauge("memory", "memory.current", "", MIB),
    peak_mib=Gauge("memory", "memory.peak", "", MIB),
    cpu_seconds=Gauge("cpu", "cpu.stat", "usage_usec ", 1e6),
    oom_kills=Gauge("memory", "memory.events", "oom_kill ", 1),
)
INTERFACES = {interface.name: interface for interface in (V2, V1)}


def own_folders(groups: str, mounts: str) -> dict[str, Path]:
    """Return the folder of a process's own group by controller, "" being version 2; from its two files in /proc."""
    paths: dict[str, str] = {}
    for line in groups.splitlines():
        _, names, path = line.split(":", 2)
        paths |= dict.fromkeys(names.split(","), path)
    found: dict[str, Path] = {}
    for line in mounts.splitlines():
        place, _, what = line.partition(" - ")
        (root, point), (kind, _, options) = place.split()[3:5], what.split(" ", 2)
        controllers = {"cgroup": options.split(","), "cgroup2": [""]}.get(kind, [])
        for name in paths.keys() & controllers:
            if Path(paths[name]).is_relative_to(root) and ".." not in paths[name]:
                found.setdefault(name, Path(point) / Path(paths[name]).relative_to(root))
    return found


def parents(interface: Interface) -> dict[str, Path]:
    """Return the folder to make groups in by controller; raises OSError when a controller is not to be had."""
    own = own_folders(_text("/proc/self/cgroup"), _text("/proc/self/mountinfo"))
    if interface is V2:
        folder = _delegated(own.get(""))
        return dict.fromkeys(interface.controllers, folder)
    missing = [name for name in interface.controllers if name not in own]
    if missing:
        raise OSError(errno.ENOTSUP, f"cgroup {interface.name} has no controller {', '.join(missing)} here")
    return {name: own[name] for name in interface.controllers}


def _delegated(own: Path | None) -> Path:
    """Return the folder below which version 2's controllers may be given on."""
    if own is None:
        raise OSError(errno.ENOTSUP, "cgroup v2 is not mounted")
    folder = own.parent.parent if own.name == ASIDE and own.parent.name.startswith(PREFIX) else own
    missing = set(V2.controllers) - set(_text(folder / "cgroup.controllers").split())
    if missing:
        raise OSError(errno.ENOTSUP, f"cgroup v2 has no controller {', '.join(sorted(missing))} in {folder}")
    return folder


def give_on(folder: Path, aside: Path) -> None:
    """Let the groups in version 2's folder have its controllers, moving ourselves aside where we are in the way."""
    controllers = " ".join(f"+{name}" for name in V2.controllers)
    try:
        write(folder / "cgroup.subtree_control", controllers)
    except OSError as error:
        if error.errno != errno.EBUSY:
            raise
        aside.mkdir()
        try:
            _move_ourselves(aside)
            write(folder / "cgroup.subtree_control", controllers)
        except OSError:
            _move_ourselves(folder)
            aside.rmdir()
            raise


def _move_ourselves(folder: Path) -> None:
    for pid in family([os.getpid()]):
        write(folder / V2.entrance, str(pid))


def write(file: Path, text: str) -> None:
    """Write into one of the kernel's files, which are never made; raises OSError naming it."""
    descriptor = os.open(file, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(descriptor, text.encode())
    except OSError as error:
        raise OSError(error.errno, os.strerror(error.errno or 0), str(file)) from error
    finally:
        os.close(descriptor)


def _text(file: str | Path) -> str:
    return Path(file).read_text(encoding="utf-8", errors="surrogateescape")
