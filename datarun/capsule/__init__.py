"""A capsule: one fold in one file, with all that it takes to run it again where there is no server.

It is a plain tar, not compressed, whose first file says name, size and sha256 of the others; it holds the data and
the held-out labels of its fold.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from datarun.errors import DatarunError
from datarun.events import Sha256

FORMAT: Literal["datarun.fold-capsule.v1"] = "datarun.fold-capsule.v1"
MANIFEST, EVENTS, BLOBS = "manifest.json", "events.jsonl", "blobs/"
MOST_FILES = 1000
MOST_MANIFEST_BYTES = 1 << 20
MOST_EVENTS_BYTES = 256 << 20


class BadCapsule(DatarunError):
    """A file is not a capsule, or not what its manifest says."""


class File(BaseModel):
    """A file of a capsule."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)
    name: Annotated[str, StringConstraints(pattern=r"\A(events\.jsonl|blobs/[0-9a-f]{64})\z")]
    size: Annotated[int, Field(ge=0, le=1 << 40)]
    sha256: Sha256


class Manifest(BaseModel):
    """What a capsule holds, in this order."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)
    format: Literal["datarun.fold-capsule.v1"] = FORMAT
    fold_id: Annotated[int, Field(ge=1)]
    files: Annotated[list[File], Field(min_length=1, max_length=MOST_FILES)]
