"""What a fold may use and how it can end."""

from __future__ import annotations

from dataclasses import dataclass, field

from datarun.errors import DatarunError, Retryable
from datarun.events import Cause, Fault, Metrics, Provenance, Stage

SOFT_SHARE = 0.9
"""Of the hard limit, where a command was given no soft one."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What one fold may use; the memory is that of each of its processes, the disk that of all its files.

    At `soft_seconds` it is interrupted and may still finish until `hard_seconds`; None interrupts nothing.
    """

    hard_seconds: float = 3600.0
    soft_seconds: float | None = None
    memory_mib: int = 4096
    disk_mib: int = 1024
    processes: int = 64
    open_files: int = 256
    output_mib: int = 512
    log_kib: int = 1024

    def __post_init__(self) -> None:
        """Raise DatarunError for a soft limit that the hard one would always come before."""
        soft, hard = self.soft_seconds, self.hard_seconds
        if soft is not None and not 0 < soft < hard:
            raise DatarunError(f"the soft limit of {soft:g} s must be shorter than the hard limit of {hard:g} s")

    @classmethod
    def of_options(cls, *, hard_limit: float, soft_limit: float | None, memory: int) -> Limits:
        """Return the limits a command was given; raises DatarunError for a soft one that is not shorter."""
        soft = SOFT_SHARE * hard_limit if soft_limit is None else soft_limit
        return cls(hard_seconds=hard_limit, soft_seconds=soft, memory_mib=memory)

    @property
    def last_seconds(self) -> float:
        """How long before the hard limit the soft one is; 0 where there is none."""
        return 0.0 if self.soft_seconds is None else self.hard_seconds - self.soft_seconds


@dataclass(frozen=True, slots=True)
class Predictions:
    """Predictions as float64, little-endian, in C order."""

    content: bytes
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Trained:
    """A submission was trained and predicted the full train part."""

    predictions: Predictions
    metrics: Metrics


@dataclass(frozen=True, slots=True)
class Tested:
    """A submission predicted the full train part and the test part."""

    full_train: Predictions
    test: Predictions
    metrics: Metrics
    log: str
    provenance: Provenance | None = None


@dataclass(frozen=True, slots=True)
class Failed:
    """A fold or a split ended without its result; the message is the text that legacy clients read."""

    stage: Stage
    cause: Cause
    fault: Fault
    message: str
    log: str = ""
    metrics: Metrics = field(default_factory=Metrics)
    full_train: Predictions | None = None


class ExecutionUnavailable(Retryable):
    """A process that runs folds ended unexpectedly; the next one is started afresh."""


class InputsCorrupt(ExecutionUnavailable):
    """A blob that a request names has other bytes than it says."""


class SandboxRefused(DatarunError):
    """None of the planned ways to isolate a fold works on this machine."""
