"""The positions of a fold's rows in the train part: little-endian int64, counted from 0."""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from .wire import read

Positions = np.ndarray[Any, np.dtype[np.int64]]


def read_positions(descriptor: int) -> Positions:
    """Return the positions in a memory file; raises ValueError when they are not whole int64."""
    size = os.fstat(descriptor).st_size
    if size % 8:
        message = f"the train indices are {size} bytes long, not a multiple of 8"
        raise ValueError(message)
    return np.frombuffer(read(descriptor, size), dtype="<i8")


def check_positions(positions: Positions, rows: int) -> None:
    """Raise IndexError, naming the first position that is not one of the rows."""
    outside = np.flatnonzero((positions < 0) | (positions >= rows))
    if len(outside):
        message = f"index {positions[outside[0]]} is out of range 0..{rows - 1}"
        raise IndexError(message)
