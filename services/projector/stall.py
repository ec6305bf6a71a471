"""When a projector has stopped projecting: pure, on the caller's monotonic clock."""

from __future__ import annotations

STALL_SECONDS = 30.0


class Stall:
    """Watches progress: behind, and no further than before, for longer than the limit, is a stall."""

    def __init__(self, limit_seconds: float = STALL_SECONDS) -> None:
        self._limit_seconds = limit_seconds
        self._progress = -1
        self._since: float | None = None

    def restart(self) -> None:
        """Begin anew: the log or the database was away, which is nobody's stall."""
        self._since = None

    def look(self, *, behind: int, progress: int, now: float) -> bool:
        """Tell whether nothing has moved for too long, `behind` records from the end."""
        if behind <= 0 or progress != self._progress or self._since is None:
            self._progress = progress
            self._since = now
        return now - self._since >= self._limit_seconds
