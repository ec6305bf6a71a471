"""The digests of blobs in the bytes of events, of many at once: a pattern in each text takes three times as long."""

from __future__ import annotations

import re
from collections.abc import Iterable

DIGEST = "sha256"
"""The field that is looked at."""
DIGITS = 64
_UNSOUND = re.compile(rb'sha256(?!":"[0-9a-f]{64}")')
_ESCAPE = b"\\"
_SPELT = re.compile(rb"\\u00[367]")
"""A digit or a small letter, written as its number; no other escape is one."""


def has_sound_digests(values: Iterable[bytes]) -> bool:
    """Tell whether all texts that JSON objects call `sha256` are 64 lower-case hexadecimal digits.

    It may say no of values that speak of digests in another way, and never yes of one with a digest that is none.
    """
    # No text of JSON goes over the end of a line, so nothing is a digest of two values.
    together = b"\n".join(values)
    # Looking for one byte is much faster than for more.
    if _ESCAPE in together and _SPELT.search(together):
        return False
    return _UNSOUND.search(together) is None
