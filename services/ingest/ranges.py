"""The Range header of HTTP: one range of bytes; what is no such thing, or several, is answered with the whole."""

from __future__ import annotations

import re

_ONE = re.compile(r"bytes\s*=\s*([0-9]{0,18})\s*-\s*([0-9]{0,18})\s*", re.ASCII | re.IGNORECASE)


class Unsatisfiable(ValueError):
    """The range begins after the last byte, or has none."""


def one_range(header: str | None, size: int) -> tuple[int, int] | None:
    """Return the first byte asked for and the one after the last, None for the whole; raises Unsatisfiable."""
    asked = _ONE.fullmatch(header or "")
    if asked is None or asked.groups() == ("", ""):
        return None
    first, last = asked.groups()
    if not first:
        start, stop = max(0, size - int(last)), size
    else:
        start, stop = int(first), min(size, int(last) + 1 if last else size)
        if last and int(last) < start:
            return None
    if start >= stop:
        raise Unsatisfiable(f"There is no such range in {size} bytes.")
    return start, stop
