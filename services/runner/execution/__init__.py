"""Running folds and splits: each in a fresh process forked from a warm one, measured from outside."""

from services.runner.execution.environment import Environment
from services.runner.execution.executor import Executor
from services.runner.execution.outcomes import (
    ExecutionUnavailable,
    Failed,
    InputsCorrupt,
    Limits,
    Predictions,
    SandboxRefused,
    Tested,
    Trained,
)

__all__ = [
    "Environment",
    "ExecutionUnavailable",
    "Executor",
    "Failed",
    "InputsCorrupt",
    "Limits",
    "Predictions",
    "SandboxRefused",
    "Tested",
    "Trained",
]
