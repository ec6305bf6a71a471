"""Indices that came a moment ago: all submissions to a dataset send those of the same few folds, again and again."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable
from time import monotonic
from typing import NamedTuple

import numpy as np

from datarun.events import Blob
from services.ingest.forms import MAX_ID
from services.ingest.indices import INDEX_BYTES

KNOWN_SECONDS = 10.0
"""How long nobody looks whether the bytes are still there; what was looked for stays for a day."""
MOST = 8192


class _Known(NamedTuple):
    blob: Blob
    highest: int
    until: float


class KnownIndices:
    """What texts stand for that were found to be right; any thread may ask."""

    def __init__(self, *, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._known: OrderedDict[bytes, _Known] = OrderedDict()

    def find(self, encoded: str, *, rows: int | None) -> Blob | None:
        """Return the stored blob of indices among so many rows; None where all is to be checked and stored."""
        known = self._known.get(_digest(encoded)) if encoded.isascii() else None
        if known is None or known.until <= self._clock() or known.highest >= (MAX_ID if rows is None else rows):
            return None
        return known.blob

    def keep(self, encoded: str, content: bytes | bytearray, blob: Blob) -> None:
        """Note that these indices are different, not negative, and durable; none at all are not kept."""
        if len(content) < INDEX_BYTES:
            return
        highest = int(np.frombuffer(content, dtype="<i8").max())
        self._known[_digest(encoded)] = _Known(blob, highest, self._clock() + KNOWN_SECONDS)
        while len(self._known) > MOST:
            self._known.popitem(last=False)


def _digest(encoded: str) -> bytes:
    return hashlib.sha256(encoded.encode()).digest()
