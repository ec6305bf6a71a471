"""JSON as this service reads it: an object, each key once, numbers of a sane size, nesting up to 64, real text."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any

from services.ingest.refusals import Refusal, detail, invalid

MAX_DEPTH = 64
MAX_DIGITS = 100

_PYTHON_NAMES = {list: "list", str: "str", int: "int", float: "float", bool: "bool", type(None): "NoneType"}


Gaps = Sequence[tuple[int, int]]
"""Where in a body how many bytes were left out."""


def parse(content: bytes | bytearray, *, gaps: Gaps = ()) -> dict[str, Any]:
    """Return the object a body holds; raises Refusal, which names places in the body as it was with its gaps."""
    try:
        value = _DECODER.decode(_text(content, gaps))
    except json.JSONDecodeError as error:
        raise _parse_error(_where(error, gaps)) from error
    except RecursionError as error:
        raise _too_deep() from error
    if not isinstance(value, dict):
        message = f"Invalid data. Expected a dictionary, but got {_PYTHON_NAMES[type(value)]}."
        raise invalid(non_field_errors=message)
    _check_depth(value)
    _check_text(value)
    return value


def _where(error: json.JSONDecodeError, gaps: Gaps) -> str:
    position = _in_whole(error.pos, gaps)
    on_line = position - _in_whole(error.pos - error.colno, gaps)
    return f"{error.msg}: line {error.lineno} column {on_line} (char {position})"


def _in_whole(position: int, gaps: Gaps) -> int:
    return position + sum(count for at, count in gaps if at <= position)


def _text(content: bytes | bytearray, gaps: Gaps) -> str:
    try:
        text = content.decode()
    except UnicodeDecodeError as error:
        raise _parse_error(f"not UTF-8 at byte {_in_whole(error.start, gaps)}") from error
    if text.startswith("\ufeff"):
        raise json.JSONDecodeError("Unexpected UTF-8 BOM (decode using utf-8-sig)", text, 0)
    return text


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    read = dict(pairs)
    if len(read) != len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise _parse_error(f"duplicate key {json.dumps(twice[:100])}")
    return read


def _not_a_number(_: str) -> float:
    raise _parse_error("NaN and Infinity are not JSON")


def _float(text: str) -> float:
    if len(text) > MAX_DIGITS:
        raise _parse_error("number too long")
    value = float(text)
    return value if math.isfinite(value) else _not_a_number(text)


def _int(text: str) -> int:
    if len(text) > MAX_DIGITS:
        raise _parse_error("number too long")
    return int(text)


def _check_depth(value: dict[str, Any]) -> None:
    level: list[Any] = [value]
    for _ in range(MAX_DEPTH):
        level = [child for parent in level for child in _children(parent) if isinstance(child, dict | list)]
        if not level:
            return
    raise _too_deep()


def _children(parent: Any) -> list[Any]:
    return list(parent.values()) if isinstance(parent, dict) else parent


def _check_text(value: dict[str, Any]) -> None:
    for key, field in value.items():
        problem = _text_problem(key) or (_text_problem(field) if isinstance(field, str) else None)
        if problem:
            raise Refusal(400, {key.encode("ascii", "backslashreplace").decode()[:100]: [problem]})


def _text_problem(text: str) -> str | None:
    if "\0" in text:
        return "Null characters are not allowed."
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            return "Not valid text (lone surrogate)."
    return None


def _too_deep() -> Refusal:
    return _parse_error(f"nested deeper than {MAX_DEPTH}")


def _parse_error(text: str) -> Refusal:
    return detail(400, f"JSON parse error - {text}")


_DECODER = json.JSONDecoder(object_pairs_hook=_unique, parse_constant=_not_a_number, parse_float=_float, parse_int=_int)
