"""A child that tries what it must not be able to do, and tells what it sees of the place it runs in."""

from __future__ import annotations

import os
import resource
import socket
from collections.abc import Callable, Sequence
from pathlib import Path

from . import kernel
from .wire import Message, send

NAMESPACES = ("mnt", "pid", "net", "ipc", "uts", "user")


def run(sock: socket.socket, box: Path, job: Message, _descriptors: Sequence[int]) -> None:
    """Answer which attempts were refused, and the namespaces, root, disk and limits of this process.

    Where it is to fill memory, it then does so until it is killed or has.
    """
    disk = os.statvfs(box)
    answer: Message = {
        "event": "probed",
        "refused": [name for name, attempt in _ATTEMPTS.items() if _is_refused(attempt)],
        "landlock_abi": kernel.landlock_abi(),
        "namespaces": namespaces(),
        "root": root(),
        "disk_bytes": disk.f_blocks * disk.f_frsize,
        "open_files": resource.getrlimit(resource.RLIMIT_NOFILE)[1],
    }
    if job["fill_mib"]:
        answer["forked"] = _can_fork()
    send(sock, answer)
    if job["fill_mib"]:
        blocks = [b"x" * (n + (1 << 20)) for n in range(job["fill_mib"])]
        send(sock, {"event": "filled", "blocks": len(blocks)})


def _can_fork() -> bool:
    try:
        pid = os.fork()
    except BlockingIOError:
        return False
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)
    return True


def namespaces() -> dict[str, str]:
    """Return the kernel's names of the namespaces this process is in."""
    return {name: str(Path(f"/proc/self/ns/{name}").readlink()) for name in NAMESPACES}


def root() -> list[int]:
    """Return which folder of which file system is this process's root."""
    found = Path("/").stat()
    return [found.st_dev, found.st_ino]


def _is_refused(attempt: Callable[[], object]) -> bool:
    try:
        attempt()
    except PermissionError:
        return True
    except OSError:
        return False
    return False


def _write_outside_the_box() -> None:
    Path("/proc/self/comm").write_text("probe", encoding="ascii")


_ATTEMPTS: dict[str, Callable[[], object]] = {
    "reading": lambda: list(Path("/").iterdir()),
    "writing": _write_outside_the_box,
    "socket": lambda: socket.socket(socket.AF_UNIX),
    "datagrams": lambda: socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM),
    "unshare": lambda: kernel.unshare(0),
}
