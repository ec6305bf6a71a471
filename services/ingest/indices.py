"""Train and test indices: base64(zlib(little-endian int64)), positions among the rows of the train part."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from services.ingest.files import TooLarge, decode
from services.ingest.forms import MAX_ID, Bad

MAX_INDICES = 10_000_000
INDEX_BYTES = 8


def decode_indices(encoded: str) -> bytearray:
    """Return the bytes of indices; raises Bad."""
    try:
        content = decode(encoded, at_most=MAX_INDICES * INDEX_BYTES)
    except TooLarge as error:
        raise Bad(f"More than {MAX_INDICES} indices.") from error
    if len(content) % INDEX_BYTES:
        raise Bad(f"Length {len(content)} is not a multiple of {INDEX_BYTES}.")
    return content


def check_indices(content: bytearray, *, rows: int | None, may_be_empty: bool) -> None:
    """Raise Bad unless the indices are different rows; `rows` is None while the split is not known."""
    indices = np.frombuffer(content, dtype="<i8")
    if len(indices) == 0:
        if may_be_empty:
            return
        raise Bad("Empty.")
    _check_range(indices, last=MAX_ID - 1 if rows is None else rows - 1)
    ordered = np.sort(indices)
    twice = np.flatnonzero(ordered[1:] == ordered[:-1])
    if len(twice):
        raise Bad(f"Index {ordered[twice[0]]} appears twice.")


def _check_range(indices: npt.NDArray[np.int64], *, last: int) -> None:
    outside = (indices < 0) | (indices > last)
    if outside.any():
        position = int(np.argmax(outside))
        raise Bad(f"Index {indices[position]} at position {position} is out of range 0..{last}.")
