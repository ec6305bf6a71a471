"""Texts of submissions made to fit into an event: what is too large the log refuses for ever.

A control character takes six bytes in JSON, so a text of usual length may be too large.
"""

from __future__ import annotations

import json

TEXT_BYTES = 450_000
"""Two such texts, and all else that a result says, are less than a record may be."""
TEXT_CHARACTERS = 390_000
"""Less than an event's field takes."""
_MARKER = "\n[... {} characters left out ...]\n"


def fitted(text: str) -> str:
    """Return a text that fits into an event: as it is, or its head and its tail."""
    kept, whole = min(len(text), TEXT_CHARACTERS), text
    text = _shortened(whole, kept)
    while _size(text) > TEXT_BYTES:
        kept = kept * 3 // 4
        text = _shortened(whole, kept)
    return text


def _shortened(text: str, kept: int) -> str:
    if kept >= len(text):
        return text
    half = kept // 2
    return text[:half] + _MARKER.format(len(text) - 2 * half) + text[len(text) - half :]


def _size(text: str) -> int:
    return len(json.dumps(text, ensure_ascii=False).encode("utf-8", "surrogatepass"))
