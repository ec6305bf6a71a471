"""The blobs that an event names, wherever in it."""

from __future__ import annotations

from collections.abc import Iterator

from pydantic import BaseModel

from datarun.events import Blob


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
