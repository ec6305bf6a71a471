"""References to bytes: an event names them, the blob store has them."""

from __future__ import annotations

from typing import Annotated

from pydantic import StringConstraints

from datarun.events.event import Fact
from datarun.events.fields import Count, Sha256, Text


class Blob(Fact):
    """Bytes in the blob store, named by their sha256; size in bytes."""

    sha256: Sha256
    size: Count
    media_type: Text = "application/octet-stream"


class NamedBlob(Fact):
    """A file: the name is a label, never a path."""

    name: Annotated[str, StringConstraints(min_length=1, max_length=100)]
    blob: Blob
