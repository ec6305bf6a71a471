"""Times and memory of a fold's stages, by the runner's clock and the kernel's accounts, never by the child's word."""

from __future__ import annotations

import time

from datarun.events import Metrics, Stage
from services.runner.execution.box import Box


class Meter:
    """Adds up the metrics of one fold, stage after stage; CPU used between two stages counts for the later one."""

    def __init__(self, box: Box) -> None:
        self._box = box
        self._values: dict[str, float] = {}
        self._cpu_seconds = box.usage().cpu_seconds
        self._peak_mib = 0.0
        self._begun = 0.0

    def begin(self) -> None:
        """Start the clock of a stage."""
        self._begun = time.monotonic()

    def finish(self, stage: Stage) -> None:
        """Stop the clock of the stage."""
        self._values[f"{stage}_time"] = time.monotonic() - self._begun
        used = self._box.usage()
        if stage is not Stage.VALIDATION:
            self._values[f"{stage}_cpu_time"] = max(0.0, used.cpu_seconds - self._cpu_seconds)
            # The kernel gathers a process's counters in batches, so a peak can read a little less the second time.
            self._peak_mib = max(self._peak_mib, used.peak_mib)
            self._values[f"{stage}_memory"] = self._peak_mib
        self._cpu_seconds = used.cpu_seconds

    @property
    def metrics(self) -> Metrics:
        """The metrics of the stages that have finished."""
        return Metrics.model_validate(self._values)
