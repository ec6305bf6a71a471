"""Landlock: what of the file system a process may still open, which no right over files can widen.

It hides neither names nor sizes: stat, access and chdir are not its business.
"""

from __future__ import annotations

import errno
import os
import stat
import struct
from collections.abc import Iterable
from pathlib import Path

from . import kernel

EXECUTE, WRITE_FILE, READ_FILE, READ_DIR, REMOVE_DIR, REMOVE_FILE = 1, 2, 4, 8, 16, 32
MAKE_CHAR, MAKE_DIR, MAKE_REG, MAKE_SOCK, MAKE_FIFO, MAKE_BLOCK, MAKE_SYM = 64, 128, 256, 512, 1024, 2048, 4096
REFER, TRUNCATE, IOCTL_DEV = 8192, 16384, 32768
_FIRST = (MAKE_SYM << 1) - 1
_SINCE = {2: REFER, 3: TRUNCATE, 5: IOCTL_DEV}
_NETWORK, _NETWORK_ABI = 0b11, 4
_SCOPES, _SCOPES_ABI = 0b11, 6
_READ = EXECUTE | READ_FILE | READ_DIR
_OF_FILES = EXECUTE | WRITE_FILE | READ_FILE | TRUNCATE | IOCTL_DEV
_NO_NODES = ~(MAKE_CHAR | MAKE_BLOCK | MAKE_SOCK)


class Fence:
    """The places that all children may read or write, and the rights that this kernel knows."""

    def __init__(self, *, readable: Iterable[str], writable: Iterable[str]) -> None:
        """Look the places up; those that do not exist are left out. Raises OSError without Landlock."""
        self.abi = kernel.landlock_abi()
        if self.abi < 1:
            raise OSError(errno.ENOSYS, "no Landlock")
        self._handled = _FIRST | sum(right for abi, right in _SINCE.items() if abi <= self.abi)
        self._rules = [
            (path, self._rights(path, wanted))
            for paths, wanted in ((readable, _READ), (writable, self._handled & _NO_NODES))
            for path in paths
            if Path(path).exists()
        ]

    def around(self, box: Path, packages: str | None = None) -> int:
        """Return the ruleset that adds a box to write in and packages to read, as a descriptor."""
        ruleset = kernel.landlock_ruleset(self._attributes())
        more = [] if packages is None else [(packages, self._rights(packages, _READ))]
        for path, rights in (*self._rules, *more, (str(box), self._handled & _NO_NODES)):
            place = os.open(path, os.O_PATH | os.O_CLOEXEC)
            kernel.landlock_allow(ruleset, place, rights)
            os.close(place)
        return ruleset

    def _rights(self, path: str, wanted: int) -> int:
        is_folder = stat.S_ISDIR(Path(path).stat().st_mode)
        return wanted & self._handled & (-1 if is_folder else _OF_FILES)

    def _attributes(self) -> bytes:
        """Deny every other use of files, TCP, and what is scoped: signals and abstract sockets to the outside."""
        attributes = struct.pack("=Q", self._handled)
        if self.abi >= _NETWORK_ABI:
            attributes += struct.pack("=Q", _NETWORK)
        if self.abi >= _SCOPES_ABI:
            attributes += struct.pack("=Q", _SCOPES)
        return attributes
