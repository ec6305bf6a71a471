"""Whose turn it is: high before data before low, but who has been passed over seven times in a row is asked first.

Pure: no clock and no I/O. What is learned is only what asking told, so a queue ages while it may have work.
"""

from __future__ import annotations

from collections.abc import Sequence

PRIORITY = ("H", "data", "L")
"""The order in which queues are asked; a split is short and many folds may wait for it."""
SHARE = 8
"""While work waits in a queue, one start in so many is its own; one in nine if another was passed over as often."""
ASKED = 8
"""So often a queue whose turn has come is asked before it counts as empty: its work may have been slow to arrive."""


class Turns:
    """Orders one runner's queues before each start."""

    def __init__(self, queues: Sequence[str]) -> None:
        self._passed = dict.fromkeys(sorted(queues, key=PRIORITY.index), 0)

    def order(self) -> tuple[str, ...]:
        """Return the queues in the order to ask them now."""
        # Sorting is stable: among those whose turn has come, and among the others, priority decides.
        return tuple(sorted(self._passed, key=lambda name: self._passed[name] < SHARE - 1))

    def took(self, queue: str | None) -> None:
        """Learn what asking in this order brought: those before `queue` had nothing, those behind were passed over."""
        order = self.order()
        place = len(order) if queue is None else order.index(queue)
        for name in order[:place]:
            asked_again = queue is not None and SHARE - 1 <= self._passed[name] < SHARE - 2 + ASKED
            self._passed[name] = self._passed[name] + 1 if asked_again else 0
        for name in order[place + 1 :]:
            self._passed[name] += 1
        if queue is not None:
            self._passed[queue] = 0
