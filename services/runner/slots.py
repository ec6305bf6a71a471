"""How many works may run at once."""

from __future__ import annotations

import threading


class Slots:
    """Counts the free slots; `wait_free` wakes when one is vacated."""

    def __init__(self, count: int) -> None:
        self._free = count
        self._changed = threading.Condition()

    def occupy(self) -> None:
        """Take one slot."""
        with self._changed:
            self._free -= 1

    def vacate(self) -> None:
        """Give one slot back."""
        with self._changed:
            self._free += 1
            self._changed.notify_all()

    def wait_free(self, seconds: float) -> bool:
        """Wait until a slot is free, or for the given time; tell which."""
        with self._changed:
            return self._changed.wait_for(lambda: self._free > 0, seconds)
