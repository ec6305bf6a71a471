"""One thing that was looked at: whether it is well, what was seen, and the command that helps."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class State(StrEnum):
    """How a thing is."""

    WELL = "ok"
    NOTED = "note"
    MISSING = "missing"


@dataclass(frozen=True, slots=True)
class Finding:
    """What was found; only what is missing makes the doctor fail."""

    name: str
    state: State
    seen: str
    remedy: str = ""


def well(name: str, seen: str) -> Finding:
    """Return that a thing is as it should be."""
    return Finding(name, State.WELL, seen)


def noted(name: str, seen: str, remedy: str = "") -> Finding:
    """Return something to know, which not everybody needs."""
    return Finding(name, State.NOTED, seen, remedy)


def missing(name: str, seen: str, remedy: str) -> Finding:
    """Return what must be mended first."""
    return Finding(name, State.MISSING, seen, remedy)
