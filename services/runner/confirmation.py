"""When a request is doubted, and what the gateway's answer makes of it: pure rules.

A share group whose state is lost hands out its whole queue again, and one that is handed out twice may have been begun
before. Only the broker's times are compared.
"""

from __future__ import annotations

from enum import Enum, IntEnum
from typing import NamedTuple

OLD_MS = 3_600_000
HOLD_SECONDS = 10.0
"""How long a request is held while it cannot be confirmed: well within the 15 s for which its record is locked."""


class Handed(NamedTuple):
    """How a request came to this runner."""

    offset: int
    timestamp_ms: int
    delivery_count: int
    is_copy: bool
    """Whether a runner appended it anew instead of giving it back once more."""

    @property
    def is_again(self) -> bool:
        """Whether it says itself that it was handed out before."""
        return self.delivery_count > 1 or self.is_copy


class Doubt(IntEnum):
    """Why a request may have been begun before."""

    NONE = 0
    EARLIER = 1
    """It was there before this runner."""
    AGAIN = 2
    """It was handed out before: a full runner gave it back, or one died with it."""
    OLD = 3
    """It is older than an hour."""
    FORGOTTEN = 4
    """Later ones were handed out here before it: its group has forgotten what it knew."""


class Answer(Enum):
    """What the gateway says of a request."""

    OPEN = "open"
    CLOSED = "closed"
    AWAITED = "awaited"
    AWAY = "away"
    NOBODY = "nobody"
    """There is no gateway to ask."""


class Verdict(Enum):
    """What becomes of a request."""

    START = "start"
    SKIP = "skip"
    LEAVE = "leave"
    """Nobody here can tell: it is accepted, and the reaper puts it back if nobody has begun it."""
    WAIT = "wait"
    RELEASE = "release"


def doubt(handed: Handed, *, now_ms: int, highest: int, earlier_than: int) -> Doubt:
    """Return the gravest doubt about a request.

    Known are the broker's time, the highest offset handed out here for the first time, and the offset below which
    requests were there before.
    """
    if not handed.is_again and handed.offset < highest:
        return Doubt.FORGOTTEN
    if now_ms - handed.timestamp_ms > OLD_MS:
        return Doubt.OLD
    if handed.is_again:
        return Doubt.AGAIN
    return Doubt.EARLIER if handed.offset < earlier_than else Doubt.NONE


def verdict(doubted: Doubt, answer: Answer, *, held_seconds: float) -> Verdict:
    """Return what becomes of a doubted request."""
    match answer:
        case Answer.OPEN:
            return Verdict.START
        case Answer.CLOSED:
            return Verdict.SKIP
        case Answer.NOBODY:
            # What full runners give back must not wait for the reaper; of the few that died with theirs, some repeat.
            return Verdict.LEAVE if doubted >= Doubt.OLD else Verdict.START
        case Answer.AWAY if doubted <= Doubt.EARLIER:
            # A young request that merely was there before this runner has, all but surely, waited for it.
            return Verdict.START
        case Answer.AWAITED | Answer.AWAY if held_seconds < HOLD_SECONDS:
            return Verdict.WAIT
        case Answer.AWAITED | Answer.AWAY:
            return Verdict.START if doubted <= Doubt.EARLIER else Verdict.RELEASE
