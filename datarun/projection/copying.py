"""Rows as COPY reads them in its binary format, where Postgres parses nothing; the types are the declared columns'."""

from __future__ import annotations

import struct
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from operator import itemgetter
from typing import Any

from sqlalchemy import BigInteger, Column, DateTime, Float, Integer, SmallInteger, Table, Text
from sqlalchemy.dialects.postgresql import ARRAY

from datarun.projection.text import storable

_NULL = b"\xff\xff\xff\xff"
_EPOCH = datetime(2000, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_INT4_OID = 23
_COUNT = struct.Struct("!h")
_LENGTH = struct.Struct("!i")
_LARGE = struct.Struct("!iq")
_WHOLE = struct.Struct("!ii")
_MANY = 1024
_SHORT = [_LENGTH.pack(size) for size in range(_MANY)]
_FORMATS = {SmallInteger: "h", Integer: "i", BigInteger: "q", Float: "d"}

Encode = Callable[[Any], bytes]
Row = dict[str, Any]

BEGIN = b"PGCOPY\n\xff\r\n\0" + bytes(8)
END = b"\xff\xff"


class Unfit(Exception):
    """A number does not fit its column."""


class Part:
    """Columns that are filled together, one after the other in the rows of a table."""

    def __init__(self, table: Table, names: Sequence[str], *, blank: Row, given: Collection[str] = ()) -> None:
        """Take columns by name; numbers that are `given`, or never null, are there whatever else is not."""
        columns = [table.columns[name] for name in names]
        sure = [one for one in columns if type(one.type) in _FORMATS and (not one.nullable or one.name in given)]
        texts = [one for one in columns if type(one.type) is Text]
        rest = [one for one in columns if one not in (*sure, *texts)]
        self.columns = [column.name for column in (*sure, *texts, *rest)]
        self._unsaid: Row = dict.fromkeys(self.columns) | {name: blank[name] for name in names if name in blank}
        # Of one name alone it would not be a tuple.
        self._values = itemgetter(*self.columns, self.columns[0])
        self._sizes = [struct.calcsize(f"!{_format(column)}") for column in sure]
        self._packed = struct.Struct("!" + "".join(f"i{_format(column)}" for column in sure)).pack
        self._texts = slice(len(sure), len(sure) + len(texts))
        self._encoders = [_ENCODERS[type(column.type)] for column in rest]
        self.blank = b"".join(self._encoded([dict.fromkeys((one.name for one in sure), 0)]))

    def encoded(self, rows: Iterable[Row]) -> list[bytes]:
        """Return these columns of rows; what a row does not say is blank. Raises Unfit."""
        try:
            return list(self._encoded(rows))
        except (struct.error, OverflowError) as error:
            raise Unfit from error

    def _encoded(self, rows: Iterable[Row]) -> Iterator[bytes]:
        unsaid, get, pack, texts, encoders = self._unsaid, self._values, self._packed, self._texts, self._encoders
        sizes = [part for size in self._sizes for part in (size, 0)]
        for row in rows:
            values = get(unsaid | row)
            sizes[1::2] = values[: texts.start]
            parts = [pack(*sizes)]
            for text in values[texts]:
                if text is None:
                    parts.append(_NULL)
                else:
                    content = _bytes(text)
                    size = len(content)
                    parts += (_SHORT[size] if size < _MANY else _LENGTH.pack(size), content)
            parts += [
                _NULL if value is None else encode(value)
                for value, encode in zip(values[texts.stop : -1], encoders, strict=True)
            ]
            yield b"".join(parts)


def beginning(*parts: Part) -> bytes:
    """Return what a row begins with that has these parts."""
    return _COUNT.pack(sum(len(part.columns) for part in parts))


def _format(column: Column[Any]) -> str:
    return _FORMATS[type(column.type)]


def _number(form: str) -> Encode:
    packed = struct.Struct(f"!i{form}")
    size = packed.size - _LENGTH.size
    return lambda value: packed.pack(size, value)


def _bytes(text: str) -> bytes:
    if text.isascii() and "\0" not in text:
        return text.encode()
    return storable(text).encode()


@lru_cache(1024)
def _time(value: datetime) -> bytes:
    return _LARGE.pack(8, (value - _EPOCH) // _MICROSECOND)


def _whole_numbers(values: tuple[int, ...]) -> bytes:
    if not values:
        # An array without elements has no dimensions.
        return struct.pack("!iiii", 12, 0, 0, _INT4_OID)
    count = len(values)
    head = struct.pack("!iiiiii", 20 + 8 * count, 1, 0, _INT4_OID, count, 1)
    return head + b"".join(_WHOLE.pack(4, value) for value in values)


_ENCODERS: dict[type, Encode] = {
    SmallInteger: _number("h"),
    Integer: _number("i"),
    BigInteger: _number("q"),
    DateTime: _time,
    ARRAY: _whole_numbers,
}
