"""Records as lines of JSON, one a line and every byte kept: what files of the log hold, whatever their prefix was."""

from __future__ import annotations

import base64
import binascii
from typing import Annotated, Any

import orjson
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from datarun.errors import DatarunError
from datarun.log import StoredRecord
from datarun.topics import Catalogue

LONGEST_LINE_BYTES = 64 << 20
"""No broker takes records nearly as large."""


class BadLine(DatarunError):
    """A line is not a record of the log."""


class _Base64(BaseModel):
    """Bytes that are no text in UTF-8."""

    model_config = ConfigDict(extra="forbid", strict=True)
    base64: str


_Bytes = str | _Base64 | None


class _Line(BaseModel):
    """What a line says of a record; its topic is without the installation's prefix."""

    model_config = ConfigDict(extra="forbid", strict=True)
    topic: Annotated[str, StringConstraints(pattern=r"\A[A-Za-z0-9._-]{1,200}\z")]
    partition: Annotated[int, Field(ge=0, le=2_147_483_647)]
    offset: Annotated[int, Field(ge=0, le=9_223_372_036_854_775_806)]
    timestamp_ms: Annotated[int, Field(ge=-1, le=9_223_372_036_854_775_807)] = 0
    key: _Bytes = None
    value: _Bytes = None
    headers: list[tuple[str, _Bytes]] = Field(default_factory=list)


def said_of(record: StoredRecord, *, catalogue: Catalogue) -> dict[str, Any]:
    """Return what is written of a record; its topic without the installation's prefix."""
    return {
        "topic": record.topic.removeprefix(catalogue.prefix),
        "partition": record.partition,
        "offset": record.offset,
        "timestamp_ms": record.timestamp_ms,
        "key": _said(record.key),
        "headers": [[name, _said(value)] for name, value in record.headers],
        "value": _said(record.value),
    }


def to_line(record: StoredRecord, *, catalogue: Catalogue) -> bytes:
    """Return a record's line, with its end."""
    return orjson.dumps(said_of(record, catalogue=catalogue), option=orjson.OPT_APPEND_NEWLINE)


def from_line(line: bytes, *, catalogue: Catalogue) -> StoredRecord:
    """Return the record of a line, as one of this installation; raises BadLine, whatever the bytes."""
    try:
        said = _Line.model_validate_json(line)
        headers = [(name, _meant(value)) for name, value in said.headers]
        key, value = _meant(said.key), _meant(said.value)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        raise BadLine(f"not a record: /{'/'.join(map(str, first['loc']))}: {first['msg']}") from error
    except binascii.Error as error:
        raise BadLine(f"not a record: {error}") from error
    name = catalogue.prefix + said.topic
    return StoredRecord(name, said.partition, said.offset, key, value, headers, said.timestamp_ms)


def _said(content: bytes | None) -> Any:
    if content is None:
        return None
    try:
        return content.decode()
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(content).decode()}


def _meant(said: _Bytes) -> bytes | None:
    match said:
        case None:
            return None
        case str():
            return said.encode()
        case _Base64():
            return base64.b64decode(said.base64, validate=True)
