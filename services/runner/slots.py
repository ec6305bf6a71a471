"""How many works may run at once, and how many of those that ended may still have their result to tell."""

from __future__ import annotations

import threading

WAY_SECONDS = 0.005
"""What a result waits so that the next fold goes first; where one waits in its queue, that takes 2 ms as a rule."""


class Slots:
    """Counts the free slots; `wait_free` wakes when one is vacated."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._free = count
        self._untold = 0
        self._sent = 0
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

    def vacate_untold(self) -> None:
        """Give one slot back before its result is told, and let the next fold go first, if it comes within 5 ms."""
        with self._changed:
            self._free += 1
            self._untold += 1
            sent = self._sent
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._sent > sent, WAY_SECONDS)

    def sent(self) -> None:
        """Say that the next fold is on its way: who let it go first may go on."""
        with self._changed:
            self._sent += 1
            self._changed.notify_all()

    def told(self) -> None:
        """Say that a result was told, or that there is none."""
        with self._changed:
            self._untold -= 1
            self._changed.notify_all()

    def wait_free(self, seconds: float) -> bool:
        """Wait until a slot is free and no more results are to be told than there are slots, or so long; tell which."""
        with self._changed:
            return self._changed.wait_for(lambda: self._free > 0 and self._untold <= self._count, seconds)
