"""The folders that children run in: numbered, empty at first, gone at the end, each of its own user as root."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from . import kernel
from .root import BOX_COUNT

_INODES = 20_000


@dataclass(slots=True)
class Boxes:
    """A place for boxes; `mounted` gives each a file system of its own size, `first_uid` each a user."""

    folder: Path
    mounted: bool
    first_uid: int | None

    def uid_of(self, number: int) -> int | None:
        """Return the user a box belongs to, None for our own."""
        return None if self.first_uid is None else self.first_uid + number

    def path_of(self, number: int) -> Path:
        """Return where a box is."""
        return self.folder / str(number)

    def open(self, number: int, *, disk_mib: int) -> Path:
        """Make an empty box."""
        box, uid = self.path_of(number), self.uid_of(number)
        if self.mounted:
            owner = os.getuid() if uid is None else uid
            options = f"size={disk_mib}m,nr_inodes={_INODES},mode=700,uid={owner},gid={owner}"
            kernel.mount("none", str(box), "tmpfs", kernel.MS_NOSUID | kernel.MS_NODEV, options)
            return box
        if box.exists():
            shutil.rmtree(box)
        box.mkdir(mode=0o700, parents=True)
        if uid is not None:
            os.chown(box, uid, uid)
        return box

    def close(self, number: int) -> None:
        """Remove a box and what is in it; nothing that was in it is followed."""
        if self.mounted:
            kernel.unmount(str(self.path_of(number)))
        else:
            shutil.rmtree(self.path_of(number), ignore_errors=True)


def first_free(used: set[int]) -> int:
    """Return the lowest number that no box has; raises OSError when all are taken."""
    for number in range(BOX_COUNT):
        if number not in used:
            return number
    raise OSError("every box is taken")
