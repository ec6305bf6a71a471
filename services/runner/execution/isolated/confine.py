"""What a child gives up before it runs a submission: limits on what it may use, its user, every privilege."""

from __future__ import annotations

import os
import resource
import signal
from dataclasses import dataclass
from pathlib import Path

from . import kernel
from .landlock import Fence
from .wire import Message

MIB = 1 << 20
_SLACK_BYTES = 1 << 30
_SLACK_SECONDS = 5


@dataclass(frozen=True, slots=True)
class Filters:
    """What every child may still open, and the program that judges its system calls."""

    fence: Fence
    program: bytes


def confine(limits: Message, *, uid: int | None, box: Path, filters: Filters | None) -> None:
    """Enter a new session under the limits, as another user if one is given, unable to gain anything back."""
    kernel.rename("datarun-fold")
    os.setsid()
    os.umask(0o077)
    set_limits(limits)
    ruleset = None if filters is None else filters.fence.around(box, limits["packages"])
    if uid is not None:
        os.setgroups([])
        os.setresgid(uid, uid, uid)
        os.setresuid(uid, uid, uid)
    kernel.refuse_privileges()
    kernel.drop_capabilities()
    kernel.hide_memory()
    kernel.die_with_parent(signal.SIGKILL)
    if filters is not None and ruleset is not None:
        kernel.landlock_restrict(ruleset)
        os.close(ruleset)
        kernel.filter_calls(filters.program)


def set_limits(limits: Message) -> None:
    """Set the resource limits; memory is what is written to, address space is that and what is only mapped."""
    memory = limits["memory_mib"] * MIB
    file_size = max(limits["disk_mib"], limits["output_mib"]) * MIB
    seconds = int(limits["hard_seconds"]) * (os.cpu_count() or 1) + _SLACK_SECONDS
    for what, soft in (
        (resource.RLIMIT_DATA, memory),
        (resource.RLIMIT_AS, memory + _SLACK_BYTES + limits["address_space_bytes"]),
        (resource.RLIMIT_CPU, seconds),
        (resource.RLIMIT_FSIZE, file_size),
        (resource.RLIMIT_NOFILE, limits["open_files"]),
        (resource.RLIMIT_NPROC, limits["processes"]),
        (resource.RLIMIT_CORE, 0),
    ):
        _, hard = resource.getrlimit(what)
        value = soft if hard == resource.RLIM_INFINITY else min(soft, hard)
        resource.setrlimit(what, (value, value))


def address_space_bytes() -> int:
    """Return how much address space this process uses."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    return pages * resource.getpagesize()
