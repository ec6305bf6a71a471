"""Where episodes are played: each is done to a real system of its own, and returns what tests then look at.

Most of an episode is waiting for leases and locks, so all that a session needs are played at the same time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from tests.faults.system import System, running_system

ENDED_SECONDS = 150.0
"""So long an episode waits before it calls something stuck; whether it came soon enough is for its test to say."""


@dataclass(frozen=True)
class Stage:
    """The session's servers."""

    kafka: str
    cache: Path
    database: Callable[[], AbstractContextManager[str]]
    folder: Path

    @contextmanager
    def system(self, name: str, *, kafka: str | None = None) -> Iterator[System]:
        """Make an installation with a prefix, a database and a folder of its own."""
        with self.database() as url, running_system(kafka or self.kafka, url, self.folder / name) as system:
            yield system


R = TypeVar("R")
Episode = Callable[[Stage], R]


def looks_at(episode: Episode[Any]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Mark a test with the episode it looks at, so that it is played when the test is among those that run."""

    def mark(test: Callable[..., None]) -> Callable[..., None]:
        test.episode = episode  # type: ignore[attr-defined]
        return test

    return mark
