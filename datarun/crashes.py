"""Named crash points: nothing at all, unless DATARUN_CRASH_AT names one; then the process dies there as by kill -9.

A test can so kill every seam between two lines exactly. The value is `name` or `name:n` for the n-th passing.
"""

from __future__ import annotations

import os
import signal

_name, _, _count = os.environ.get("DATARUN_CRASH_AT", "").partition(":")
_left = [int(_count or 1)]


def crash_point(name: str) -> None:
    """Die here if this is the point the environment names."""
    if name != _name:
        return
    _left[0] -= 1
    if _left[0] == 0:
        os.kill(os.getpid(), signal.SIGKILL)
