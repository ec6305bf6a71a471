"""How a fold or a split fails: where, why, and whose doing it was."""

from __future__ import annotations

from enum import StrEnum


class Stage(StrEnum):
    """Where in its life a fold failed."""

    SPLIT = "split data"
    TRAIN = "train"
    VALIDATION = "validation"
    TEST = "test"


class Cause(StrEnum):
    """Why a fold failed."""

    USER_ERROR = "user_error"
    OUTPUT_SHAPE = "output_shape"
    OUTPUT_VALUE = "output_value"
    SOFT_TIMEOUT = "soft_timeout"
    HARD_TIMEOUT = "hard_timeout"
    MEMORY = "memory"
    DISK = "disk"
    SIGNAL = "signal"
    POLICY = "policy"
    INVALID = "invalid"
    CANCELLED = "cancelled"
    LOST = "lost"


class Fault(StrEnum):
    """Whose doing a failure was; platform faults are retried and never look like the user's."""

    USER = "user"
    LIMIT = "limit"
    PLATFORM = "platform"
