"""Lays the zygote's own memory in huge pages: a fork copies page tables, and a huge page has one entry for 512."""

from __future__ import annotations

import ctypes
import re
from collections.abc import Iterator
from pathlib import Path

HUGE_PAGE_BYTES = 2 << 20
_MADV_COLLAPSE = 25
_ANONYMOUS = re.compile(r"([0-9a-f]+)-([0-9a-f]+) rw-p \S+ \S+ 0 *(\[heap\])?$")


def collapse() -> int:
    """Collapse what can be collapsed and return how many huge pages that made; 0 where the kernel cannot (< 6.1)."""
    libc = ctypes.CDLL(None)
    libc.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    return sum(libc.madvise(start, HUGE_PAGE_BYTES, _MADV_COLLAPSE) == 0 for start in _huge_ranges())


def _huge_ranges() -> Iterator[int]:
    for line in Path("/proc/self/maps").read_text(encoding="ascii").splitlines():
        found = _ANONYMOUS.match(line)
        if found:
            first, end = int(found[1], 16), int(found[2], 16)
            yield from range(-(-first // HUGE_PAGE_BYTES) * HUGE_PAGE_BYTES, end - HUGE_PAGE_BYTES + 1, HUGE_PAGE_BYTES)
