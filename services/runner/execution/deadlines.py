"""The time a submission may take, which does not run while it waits for the platform."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager


class Deadline:
    """A point on the monotonic clock that can be put off."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._at = time.monotonic() + seconds

    @property
    def seconds_left(self) -> float:
        """How long until then; negative afterwards."""
        return self._at - time.monotonic()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Put the deadline off by as long as this takes."""
        begun = time.monotonic()
        try:
            yield
        finally:
            self._at += time.monotonic() - begun
