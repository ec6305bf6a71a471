"""How the zygote begins: namespaces and root first, then the libraries inside them, then work.

What the plan asks for and the system refuses is answered as a refusal; the runner then comes back with less.
"""

from __future__ import annotations

import json
import os
import signal
import socket
from collections.abc import Sequence
from pathlib import Path

from . import kernel
from .boxes import Boxes
from .confine import Filters
from .distributions import environment_digest
from .landlock import Fence
from .libraries import warm
from .root import BOXES, DEVICES, SYSTEM, build_root, leave_namespaces
from .seccomp import program
from .wire import Message, send

REFUSED = 78
WRITABLE = "/dev/null"
_ABOUT_THE_MACHINE = (
    "/proc/self",
    "/proc/cpuinfo",
    "/proc/meminfo",
    "/proc/stat",
    "/proc/version",
    "/sys/devices/system/cpu",
    "/sys/fs/cgroup/cpu.max",
    "/sys/fs/cgroup/cpu/cpu.cfs_quota_us",
    "/sys/fs/cgroup/cpu/cpu.cfs_period_us",
)
"""What libraries read to count processors and memory."""


def main(arguments: list[str]) -> None:
    """Take up the plan in the argument and serve the runner at the other end of standard input."""
    plan = json.loads(arguments[0])
    os.umask(0o022)
    kernel.rename("datarun-zygote")
    runner = _take_standard_input()
    try:
        boxes = _settle(plan)
        filters = _filters(plan["readable"]) if plan["filtered"] else None
    except OSError as error:
        send(runner, {"refused": str(error)})
        os._exit(REFUSED)
    environment = environment_digest()
    warm()
    from .process import seed  # noqa: PLC0415 - they import the libraries, which must come from inside the new root
    from .runtime import runtime  # noqa: PLC0415
    from .zygote import Zygote  # noqa: PLC0415

    seed()
    send(runner, {"ready": True, "runtime": runtime(environment)})
    Zygote(runner, boxes, filters).serve()


def _take_standard_input() -> socket.socket:
    runner = socket.socket(fileno=os.dup(0))
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    return runner


def _settle(plan: Message) -> Boxes:
    isolated = bool(plan["namespaces"])
    if isolated:
        leave_namespaces(as_user=plan["namespaces"] == "user")
        _continue_as_first_process()
        build_root(Path(plan["root"]), [*plan["readable"], *filter(None, [plan["environments"]])])
    kernel.adopt_orphans()
    kernel.hide_memory()
    return Boxes(Path(BOXES if isolated else plan["boxes"]), mounted=isolated, first_uid=plan["first_uid"])


def _filters(readable: Sequence[str]) -> Filters:
    places = (*SYSTEM, *DEVICES, *_ABOUT_THE_MACHINE, *readable)
    return Filters(Fence(readable=places, writable=[WRITABLE]), program())


def _continue_as_first_process() -> None:
    """Go on as the first process of the new namespace: when it ends, the kernel ends all in it. The old one waits."""
    pid = os.fork()
    if pid == 0:
        kernel.die_with_parent(signal.SIGKILL)
        return
    os.closerange(3, os.sysconf("SC_OPEN_MAX"))
    _, status = os.waitpid(pid, 0)
    os._exit(os.waitstatus_to_exitcode(status) & 0xFF)
