"""When a message that was not taken is tried again: pauses that double, with chance in them. Pure."""

from __future__ import annotations

from datarun.settings import WebhookSettings

_MOST_DOUBLINGS = 30


def pause(settings: WebhookSettings, *, attempt: int, chance: float, asked: float | None = None) -> float:
    """Return the seconds until the next try after a number of failed ones; `chance` is from 0 to 1.

    The receiver may ask for a longer pause than that, up to the longest.
    """
    longest = settings.longest_retry_seconds
    doubled = min(settings.retry_seconds * 2.0 ** min(attempt - 1, _MOST_DOUBLINGS), longest)
    # Of many that failed at once not all come back at once.
    return max(doubled * (0.5 + chance / 2), min(asked or 0.0, longest))
