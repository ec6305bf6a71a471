"""Which attempts are not to run any more: the newest fences of fold-control, by fold."""

from __future__ import annotations

import threading
from collections import OrderedDict

REMEMBERED = 100_000
"""What an older fence forbade has long left its queue, or is asked for at the gateway when it comes again."""


class Fences:
    """The newest fences; thread-safe."""

    def __init__(self, limit: int = REMEMBERED) -> None:
        self._limit = limit
        self._lock = threading.Lock()
        self._attempts: OrderedDict[int, int] = OrderedDict()

    def learn(self, fold_id: int, attempt: int) -> None:
        """Remember that attempts of a fold up to this one are not to run."""
        with self._lock:
            self._attempts[fold_id] = max(attempt, self._attempts.pop(fold_id, 0))
            while len(self._attempts) > self._limit:
                self._attempts.popitem(last=False)

    def cover(self, fold_id: int, attempt: int) -> bool:
        """Tell whether an attempt is not to run."""
        with self._lock:
            return attempt <= self._attempts.get(fold_id, 0)
