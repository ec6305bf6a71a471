"""Rows as COPY reads them in its binary format, where Postgres parses nothing; the types are the declared columns'."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from operator import itemgetter
from typing import Any

from sqlalchemy import BigInteger, Column, DateTime, Float, Integer, SmallInteger, Table, Text
from sqlalchemy.dialects.postgresql import ARRAY

from datarun.projection.text import storable

_BEGIN = b"PGCOPY\n\xff\r\n\0" + bytes(8)
_END = b"\xff\xff"
_NULL = b"\xff\xff\xff\xff"
_EPOCH = datetime(2000, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_INT4_OID = 23
_LENGTH = struct.Struct("!i")
_TIME = struct.Struct("!iq")
_LARGE = struct.Struct("!iq")
_WHOLE = struct.Struct("!ii")
_FORMATS = {SmallInteger: "h", Integer: "i", BigInteger: "q", Float: "d"}

Encode = Callable[[Any], bytes]
Row = dict[str, Any]


class Unfit(Exception):
    """A number does not fit its column."""


class Rows:
    """The rows of one table; what a row does not say is as `blank` says, or NULL."""

    def __init__(self, table: Table, blank: Row) -> None:
        sure = [column for column in table.columns if not column.nullable]
        rest = [column for column in table.columns if column.nullable]
        self.columns = [column.name for column in (*sure, *rest)]
        self._blank: Row = dict.fromkeys(self.columns) | blank
        self._values = itemgetter(*self.columns)
        self._sure = len(sure)
        self._sizes = [struct.calcsize(f"!{_format(column)}") for column in sure]
        self._packed = struct.Struct("!h" + "".join(f"i{_format(column)}" for column in sure))
        self._encoders = [_ENCODERS[type(column.type)] for column in rest]

    def copied(self, rows: Iterable[Row]) -> bytes:
        """Return the rows; raises Unfit."""
        parts = [_BEGIN]
        count, sure, sizes = len(self.columns), self._sure, self._sizes
        packed = [count, *[part for size in sizes for part in (size, 0)]]
        try:
            for row in rows:
                values = self._values(self._blank | row)
                packed[2::2] = values[:sure]
                parts.append(self._packed.pack(*packed))
                parts += [
                    _NULL if value is None else encode(value)
                    for value, encode in zip(values[sure:], self._encoders, strict=True)
                ]
        except (struct.error, OverflowError) as error:
            raise Unfit from error
        parts.append(_END)
        return b"".join(parts)


def _format(column: Column[Any]) -> str:
    return _FORMATS[type(column.type)]


def _number(form: str) -> Encode:
    packed = struct.Struct(f"!i{form}")
    size = packed.size - _LENGTH.size
    return lambda value: packed.pack(size, value)


def _text(value: str) -> bytes:
    try:
        encoded = value.encode()
    except UnicodeEncodeError:
        encoded = storable(value).encode()
    if b"\0" in encoded:
        encoded = storable(value).encode()
    return _LENGTH.pack(len(encoded)) + encoded


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
    Text: _text,
    DateTime: _time,
    ARRAY: _whole_numbers,
}
