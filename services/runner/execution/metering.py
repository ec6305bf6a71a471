"""Times and memory of a fold's stages, by the runner's clock and the kernel's accounts, never by the child's word."""

from __future__ import annotations

import time
from typing import Any

from datarun.events import Metrics, Stage
from services.runner.execution.box import Box, Usage


class Meter:
    """Adds up the metrics of one fold, stage after stage."""

    def __init__(self, box: Box) -> None:
        self._box = box
        self._values: dict[str, Any] = {}
        self._stage = Stage.TRAIN
        self._begun = 0.0
        self._used = Usage(0.0, 0.0)
        self.peak_mib = 0.0

    def begin(self, stage: Stage) -> None:
        """Start the clocks of a stage."""
        self._stage = stage
        self._used = self._box.usage()
        self._begun = time.monotonic()

    def finish(self, usage: Usage | None = None) -> None:
        """Stop the clocks of the stage; `usage` is given when the child is gone."""
        wall = time.monotonic() - self._begun
        used = usage or self._box.usage()
        self.peak_mib = used.peak_mib
        name = str(self._stage)
        self._values[f"{name}_time"] = wall
        if self._stage is not Stage.VALIDATION:
            self._values[f"{name}_cpu_time"] = max(0.0, used.cpu_seconds - self._used.cpu_seconds)
            self._values[f"{name}_memory"] = used.peak_mib

    @property
    def metrics(self) -> Metrics:
        """The metrics of the stages that have finished."""
        return Metrics(**self._values)
