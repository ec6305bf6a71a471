"""What runs in a folder, as a file: for `datarun status`, and for the next start after a crash."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from datarun.stack.cache import write_atomically
from datarun.stack.process import is_same_process, started_at

FILE_NAME = "state.json"


@dataclass
class ProcessState:
    """One part of the stack; `started_at` tells it from another process that was given its pid later."""

    pid: int | None = None
    state: str = "starting"
    url: str = ""
    detail: str = ""
    restarts: int = 0
    started_at: float | None = None

    @property
    def is_alive(self) -> bool:
        """Whether that very process still runs."""
        return self.pid is not None and is_same_process(self.pid, self.started_at)


@dataclass
class StackState:
    """A supervisor and its parts."""

    pid: int = field(default_factory=os.getpid)
    started_at: float | None = field(default_factory=lambda: started_at(os.getpid()))
    is_ready: bool = False
    processes: dict[str, ProcessState] = field(default_factory=dict)

    @property
    def is_alive(self) -> bool:
        """Whether that very supervisor still runs."""
        return is_same_process(self.pid, self.started_at)

    def save(self, run_folder: Path) -> None:
        """Write the state; a reader finds the old one or the new one."""
        write_atomically(run_folder / FILE_NAME, json.dumps(asdict(self), indent=2) + "\n")


def load_state(run_folder: Path) -> StackState | None:
    """Return the last state written, or None."""
    try:
        content: dict[str, Any] = json.loads((run_folder / FILE_NAME).read_text(encoding="utf-8"))
        processes = {name: ProcessState(**fields) for name, fields in content.pop("processes").items()}
        return StackState(**content, processes=processes)
    except (OSError, ValueError, TypeError, KeyError):
        # None was written yet, or by another version: there is nothing to go by.
        return None
