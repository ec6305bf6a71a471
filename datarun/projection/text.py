"""Text from outside, made fit for Postgres: it stores neither NUL nor half a surrogate pair."""

from __future__ import annotations

from typing import Any

import orjson

REPLACEMENT = "\ufffd"


def storable(text: str) -> str:
    """Return the text with what Postgres cannot store replaced."""
    if "\x00" in text or not (text.isascii() or _encodes(text)):
        return text.replace("\x00", REPLACEMENT).encode("utf-8", "replace").decode()
    return text


def json_text(rows: object) -> str:
    """Return JSON that Postgres can turn into rows, whatever the strings in it hold."""
    try:
        encoded = orjson.dumps(rows)
    except orjson.JSONEncodeError:
        return orjson.dumps(_clean(rows)).decode()
    # Also true of a harmless backslash before u0000, which cleaning leaves as it is.
    if rb"\u0000" in encoded:
        encoded = orjson.dumps(_clean(rows))
    return encoded.decode()


def _clean(value: Any) -> Any:
    match value:
        case str():
            return storable(value)
        case dict():
            return {_clean(name): _clean(content) for name, content in value.items()}
        case list() | tuple():
            return [_clean(content) for content in value]
        case _:
            return value


def _encodes(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
