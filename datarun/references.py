"""The blobs that an event names, wherever in it, and that a record may name, whatever it is."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import suppress

from pydantic import BaseModel

from datarun.envelope import decode
from datarun.errors import Rejected
from datarun.events import Blob
from datarun.log import StoredRecord

_SHA256 = re.compile(rb"(?<![0-9a-f])[0-9a-f]{64}(?![0-9a-f])")


def blobs_in(value: object) -> Iterator[Blob]:
    """Yield every blob that an event, or a part of one, names; a blob that is named twice comes twice."""
    if isinstance(value, Blob):
        yield value
    elif isinstance(value, BaseModel):
        for name in type(value).model_fields:
            yield from blobs_in(getattr(value, name))
    elif isinstance(value, tuple):
        for one in value:
            yield from blobs_in(one)


def blobs_named(record: StoredRecord) -> set[str]:
    """Return every sha256 in a record, also of one that nobody can decode: rather too many than one too few."""
    value = record.value or b""
    named = {found.decode() for found in _SHA256.findall(value)}
    if b"\\" in value:
        # JSON may write any letter in another way.
        with suppress(Rejected):
            named |= {blob.sha256 for blob in blobs_in(decode(value, record.headers))}
    return named
