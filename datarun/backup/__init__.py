"""Backups: every record with its offset and time, and every blob that records name, in a folder.

What is not in the log is not in a backup: accounts, tokens, and runners' heartbeats, which nobody keeps.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from datarun.errors import DatarunError
from datarun.topics import RUNNER_STATUS, TOPICS, Topic

FORMAT: Literal["datarun.backup.v1"] = "datarun.backup.v1"
MANIFEST = "manifest.json"
KEPT: tuple[Topic, ...] = tuple(topic for topic in TOPICS if topic is not RUNNER_STATUS)

_Count = Annotated[int, Field(ge=0)]


class BadBackup(DatarunError):
    """A folder is not a backup, or not what its manifest says."""


class Part(BaseModel):
    """One partition: a file of lines, so long and no longer, up to before an offset."""

    model_config = ConfigDict(extra="forbid", strict=True)
    topic: Annotated[str, StringConstraints(pattern=r"\A[a-z.-]{1,60}\z")]
    partition: Annotated[int, Field(ge=0, le=10_000)]
    next_offset: _Count = 0
    records: _Count = 0
    length: _Count = 0
    sha256: str = ""
    """Of the file, once the backup is complete."""

    @property
    def file(self) -> Path:
        """Where it is in the backup's folder."""
        return Path("topics", self.topic, f"{self.partition}.jsonl.zst")


class Manifest(BaseModel):
    """What a backup holds; an incomplete one is gone on with by the same command."""

    model_config = ConfigDict(extra="forbid", strict=True)
    format: Literal["datarun.backup.v1"] = FORMAT
    source: str
    """The cluster and the prefix that it is a backup of."""
    complete: bool = False
    parts: list[Part] = []
    blobs: _Count = 0
    missing: list[str] = []
    """The sha256 of blobs that records name and the store does not have."""

    @classmethod
    def load(cls, folder: Path) -> Manifest | None:
        """Return a folder's manifest, None without one; raises BadBackup, OSError."""
        try:
            return cls.model_validate_json((folder / MANIFEST).read_bytes())
        except FileNotFoundError:
            return None
        except ValidationError as error:
            raise BadBackup(f"{folder / MANIFEST} is not the manifest of a backup") from error

    def save(self, folder: Path) -> None:
        """Write the manifest durably, whole or not at all; raises OSError."""
        aside = folder / f"{MANIFEST}.new"
        with aside.open("wb") as file:
            file.write(self.model_dump_json(indent=1).encode())
            file.flush()
            os.fsync(file.fileno())
        aside.replace(folder / MANIFEST)
