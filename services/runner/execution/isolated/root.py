"""A root of its own for the zygote and all it forks: interpreter, libraries and empty boxes, read-only, no network.

Built once, before the libraries are imported, so that an import proves that it works inside.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from . import kernel

BOXES = "/box"
BOX_COUNT = 256
SYSTEM = ("/usr", "/lib", "/lib64", "/bin", "/etc/ld.so.cache", "/etc/localtime")
DEVICES = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom")
_NAMESPACES = kernel.CLONE_NEWNS | kernel.CLONE_NEWPID | kernel.CLONE_NEWNET | kernel.CLONE_NEWIPC | kernel.CLONE_NEWUTS


def leave_namespaces(*, as_user: bool) -> None:
    """Enter new mount, process, network, IPC and host-name namespaces, and a user namespace that allows it."""
    uid, gid = os.getuid(), os.getgid()
    kernel.unshare(_NAMESPACES | (kernel.CLONE_NEWUSER if as_user else 0))
    if as_user:
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"{uid} {uid} 1")
        Path("/proc/self/gid_map").write_text(f"{gid} {gid} 1")


def build_root(folder: Path, readable: Iterable[str]) -> None:
    """Make and enter a root with the readable folders, the system's libraries, an own /proc and boxes, no more."""
    kernel.mount("none", "/", None, kernel.MS_REC | kernel.MS_PRIVATE)
    kernel.mount("none", str(folder), "tmpfs", kernel.MS_NOSUID | kernel.MS_NODEV, "size=1m,mode=755")
    for path in (*SYSTEM, *DEVICES, *sorted(readable)):
        _show(Path(path), folder)
    (folder / "proc").mkdir()
    for number in range(BOX_COUNT):
        (folder / BOXES.strip("/") / str(number)).mkdir(parents=True)
    flags = kernel.MS_NOSUID | kernel.MS_NODEV | kernel.MS_NOEXEC
    kernel.mount("proc", f"{folder}/proc", "proc", flags)
    kernel.pivot_root(str(folder))
    kernel.make_read_only("/", recursive=False)


def _show(path: Path, folder: Path) -> None:
    inside = folder / path.relative_to("/")
    if path.is_symlink():
        inside.parent.mkdir(parents=True, exist_ok=True)
        inside.symlink_to(path.readlink())
        # Where the link leads there may be nothing yet, as with an environment that is a link.
        _show(Path(os.path.normpath(path.parent / path.readlink())), folder)
        return
    if not path.exists() or inside.exists():
        return
    if path.is_dir():
        inside.mkdir(parents=True)
    else:
        inside.parent.mkdir(parents=True, exist_ok=True)
        inside.touch()
    kernel.mount(str(path), str(inside), None, kernel.MS_BIND | kernel.MS_REC)
    kernel.make_read_only(str(inside))
