"""What runners say of themselves."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from datarun.events.event import Event, Fact
from datarun.events.fields import Count, Delivery, Id, Ordinal, Text
from datarun.events.measures import Sandbox


class RunningFold(Fact):
    """One fold a runner holds, as its heartbeats name it."""

    fold_id: Id
    attempt: Ordinal
    delivery: Delivery


class RunnerHeartbeat(Event):
    """A runner is alive; what it runs and what it is made of."""

    key_field: ClassVar[str] = "runner_id"
    identity: ClassVar[tuple[str, ...]] = ("runner_id", "sequence")
    runner_id: Text
    sequence: Count
    """Grows with each heartbeat of a runner."""
    host: Text
    pid: Count
    queues: tuple[Text, ...]
    slots: Count
    running: tuple[RunningFold, ...] = ()
    splitting: tuple[Id, ...] = ()
    """The datasets it splits."""
    skipped: Count = 0
    """Requests it did not start, for they were over or fenced."""
    versions: dict[str, str] = Field(default_factory=dict)
    sandbox: Sandbox
    stopping: bool = False
