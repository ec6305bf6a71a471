"""A standard dataset's CSV: one header, at least one data row, every line as long as the header, real UTF-8."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Sequence

from services.ingest.forms import Bad

SHOWN_COLUMNS = 20
BYTE_ORDER_MARK = b"\xef\xbb\xbf"


class UnknownColumn(Bad):
    """The target column is not in the header."""


def check_csv(content: Iterable[bytes], *, target_column: str) -> int:
    """Return how many data rows a file's lines are; raises Bad for the file, UnknownColumn for the target."""
    lines = csv.reader(_lines(content))
    try:
        header = next(lines, [])
        _check_header(header)
        rows = sum(_is_row(fields, len(header), lines.line_num) for fields in lines)
    except csv.Error as error:
        raise Bad(f"Line {lines.line_num}: {error}.") from error
    if rows == 0:
        raise Bad("No data rows.")
    if target_column not in header:
        raise UnknownColumn(f'"{target_column}" is not a column: {_shown(header)}.')
    return rows


def _lines(content: Iterable[bytes]) -> Iterator[str]:
    for number, line in enumerate(content, 1):
        if b"\0" in line:
            raise Bad(f"Line {number} has a null byte.")
        try:
            yield (line.removeprefix(BYTE_ORDER_MARK) if number == 1 else line).decode()
        except UnicodeDecodeError as error:
            raise Bad(f"Line {number} is not UTF-8.") from error


def _check_header(header: Sequence[str]) -> None:
    if not header:
        raise Bad("No data rows.")
    seen: set[str] = set()
    for column in header:
        if column in seen:
            raise Bad(f'Column "{column[:100]}" appears twice.')
        seen.add(column)


def _is_row(fields: Sequence[str], width: int, line: int) -> bool:
    if fields and len(fields) != width:
        raise Bad(f"Line {line} has {len(fields)} fields, header has {width}.")
    return bool(fields)


def _shown(header: Sequence[str]) -> str:
    if len(header) > SHOWN_COLUMNS:
        header = [*header[: SHOWN_COLUMNS - 1], "…", header[-1]]
    return ", ".join(column[:100] for column in header)
