"""How far a replay has come, in a file that is written whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path

import orjson
from pydantic import BaseModel, ConfigDict, ValidationError

from datarun.errors import DatarunError
from datarun.log import TopicPartition
from datarun.projection.offsets import Offsets


class OtherReplay(DatarunError):
    """The file tells of another replay."""


class Progress(BaseModel):
    """Where a replay goes on: what it reads, up to where it has, and what it had written by then."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    replay: str
    """A digest of what was asked for."""
    since_ms: int | None = None
    until_ms: int | None = None
    """The span of time, which was said as ago from a moment that has passed."""
    ends: list[tuple[str, int, int]]
    here: list[tuple[str, int, int]]
    written: dict[str, int] = {}
    """What the target says of itself: a file's length, or the ends of topics."""

    @classmethod
    def load(cls, path: Path, *, replay: str) -> Progress | None:
        """Return what a file tells, None without one; raises OtherReplay, OSError."""
        try:
            found = cls.model_validate_json(path.read_bytes())
        except FileNotFoundError:
            return None
        except ValidationError as error:
            raise OtherReplay(f"{path} does not tell how far a replay has come") from error
        if found.replay != replay:
            raise OtherReplay(f"{path} tells of a replay with other options: go on with those, or begin with --fresh")
        return found

    def save(self, path: Path) -> None:
        """Write the file durably; raises OSError."""
        path.parent.mkdir(parents=True, exist_ok=True)
        aside = path.with_name(f"{path.name}.new")
        with aside.open("wb") as file:
            file.write(orjson.dumps(self.model_dump()))
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)


def listed(offsets: Offsets) -> list[tuple[str, int, int]]:
    """Return offsets as a progress has them."""
    return [(tp.topic, tp.partition, offset) for tp, offset in sorted(offsets.items())]


def offsets(of: list[tuple[str, int, int]]) -> Offsets:
    """Return what a progress has as offsets."""
    return {TopicPartition(topic, partition): offset for topic, partition, offset in of}
