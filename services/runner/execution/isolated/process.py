"""What the child does around the code it runs: random state and search path before, flushed output after."""

from __future__ import annotations

import ctypes
import os
import random
import signal
import site
import sys
from pathlib import Path
from typing import NoReturn

import numpy as np

SEED = 0
_libc = ctypes.CDLL(None)


class SoftTimeLimitExceeded(KeyboardInterrupt):
    """The soft time limit was reached; code that stops early when it is interrupted may still finish."""


def settle(box: Path, packages: str | None) -> None:
    """Make the process the box's: its folder, its search path with the packages at the end; no byte code is written."""
    os.chdir(box)
    os.environ.update(HOME=str(box), TMPDIR=str(box), PWD=str(box))  # noqa: TID251 - set here for the submission
    sys.path.insert(0, str(box))
    sys.dont_write_bytecode = True
    if packages is not None:
        # Here and no earlier: a package's .pth file may run code.
        site.addsitedir(packages)
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    # Python seeds this one anew at every fork.
    random.seed(SEED)
    signal.signal(signal.SIGINT, _interrupt)


def _interrupt(*_: object) -> NoReturn:
    raise SoftTimeLimitExceeded


def seed() -> None:
    """Set the random state of numpy that every child inherits."""
    np.random.seed(SEED)  # noqa: NPY002 - the state that submissions use


def flush_output() -> None:
    """Write out what is still buffered, so that the log is complete before a result is sent."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError, AttributeError):  # the submission closed or replaced it: nothing is buffered here
            continue
    _libc.fflush(None)
