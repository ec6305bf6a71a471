"""Who runs the database: Postgres refuses uid 0, and needs a uid that has a name.

As root it runs in a user namespace of its own, where root's uid goes by another number: nothing on the machine changes
and its files stay root's. Where namespaces are closed it runs as an unprivileged user that is handed its folder.
"""

from __future__ import annotations

import ctypes
import os
import pwd
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from datarun.errors import DatarunError

CLONE_NEWUSER = 0x10000000
PROBE_SECONDS = 10

_libc = ctypes.CDLL(None, use_errno=True)


class RootRefused(DatarunError):
    """Postgres does not run as root here."""


@dataclass(frozen=True)
class Identity:
    """How a child takes its identity before exec, and which uid its files must have (None: they are ours anyway)."""

    enter: Callable[[], None] | None
    owner_uid: int | None = None

    def own(self, folder: Path) -> None:
        """Hand a folder and all below it over, if they must belong to someone else."""
        if self.owner_uid is None or folder.stat().st_uid == self.owner_uid:
            return
        for path in (folder, *folder.rglob("*")):
            os.chown(path, self.owner_uid, -1, follow_symlinks=False)


def find_identity(program: Path) -> Identity:
    """Return the identity under which `program` runs; every way is really tried. Raises RootRefused."""
    uid = os.geteuid()
    if uid != 0 and _has_name(uid):
        return Identity(None)
    named = _unprivileged()
    ways = [Identity(_namespace_entry(uid, os.getegid(), named.pw_uid), owner_uid=uid)]
    if uid == 0:
        ways.append(Identity(drop_to(named.pw_uid, named.pw_gid), owner_uid=named.pw_uid))
    for way in ways:
        if _runs(program, way):
            return way
    raise RootRefused(
        "Postgres does not run as this user: user namespaces are closed"
        f" and {program} cannot be reached as user {named.pw_name}.\n"
        "Start as another user, keep the checkout where others may read it, or pass --postgres URL"
    )


def _namespace_entry(uid: int, gid: int, inside: int) -> Callable[[], None]:
    def enter() -> None:
        if _libc.unshare(CLONE_NEWUSER) != 0:
            raise OSError(ctypes.get_errno(), "unshare")
        # Plain descriptors: this runs between fork and exec.
        for name, text in (("setgroups", "deny"), ("uid_map", f"{inside} {uid} 1"), ("gid_map", f"{inside} {gid} 1")):
            descriptor = os.open(f"/proc/self/{name}", os.O_WRONLY)
            os.write(descriptor, text.encode())
            os.close(descriptor)

    return enter


def drop_to(uid: int, gid: int) -> Callable[[], None]:
    """Return what makes a child another user, for good."""

    def enter() -> None:
        os.setgroups([])
        os.setresgid(gid, gid, gid)
        os.setresuid(uid, uid, uid)

    return enter


def _runs(program: Path, way: Identity) -> bool:
    try:
        subprocess.run(
            [program, "--version"],
            preexec_fn=way.enter,
            check=True,
            capture_output=True,
            timeout=PROBE_SECONDS,
            cwd="/",
        )
    except (OSError, subprocess.SubprocessError):
        return False
    return True


def _has_name(uid: int) -> bool:
    return any(entry.pw_uid == uid for entry in pwd.getpwall())


def _unprivileged() -> pwd.struct_passwd:
    try:
        return pwd.getpwnam("nobody")
    except KeyError:
        return next(entry for entry in pwd.getpwall() if entry.pw_uid != 0)
