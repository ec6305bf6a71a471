"""Says which sandbox levels this machine gives, each tried as a runner tries it: `python -m services.runner.doctor`.

One JSON object on standard output, for `datarun doctor` to show.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from datarun.events import Sandbox
from datarun.telemetry import configure_logging
from services.runner.execution import Limits, SandboxRefused
from services.runner.execution.nursery import Nursery
from services.runner.execution.sandboxes import ACCOUNTED, FILTERED, ISOLATED, LIMITED, Plan, remedy, strongest_first

NAMES = {0: "none", LIMITED: "limited", FILTERED: "filtered", ISOLATED: "isolated", ACCOUNTED: "accounted"}
NOT_HELD = {
    0: "anything: a submission is a program of the runner's user",
    LIMITED: "files, network, other processes",
    FILTERED: "names and sizes of hidden files; the disk quota; signals to its user's processes before Landlock 6",
    ISOLATED: "exact memory of all its processes together",
    ACCOUNTED: "",
}


def main() -> int:
    """Print the levels; return the exit code, which is 0 whatever the machine gives."""
    configure_logging("doctor", level="error")
    with tempfile.TemporaryDirectory(prefix="datarun-doctor-") as folder:
        sandbox, refusals = strongest(Path(folder))
    json.dump({"levels": levels(sandbox, refusals)}, sys.stdout)
    return 0


def strongest(work_folder: Path) -> tuple[Sandbox, list[tuple[Plan, str]]]:
    """Return the strongest isolation that is proved here, and why each stronger plan was refused."""
    refusals: list[tuple[Plan, str]] = []
    for plan in strongest_first():
        nursery = Nursery(Limits(), plans=[plan], spare=1, work_folder=work_folder)
        try:
            return nursery.start(), refusals
        except SandboxRefused as error:
            refusals.append((plan, str(error)))
        finally:
            nursery.close()
    return Sandbox(level=0), refusals


def levels(sandbox: Sandbox, refusals: list[tuple[Plan, str]]) -> list[dict[str, Any]]:
    """Return what is known of every level: whether it holds, by which mechanisms, what it lacks, or what to do."""
    return [_level(level, sandbox, [text for plan, text in refusals if plan.level == level]) for level in NAMES]


def _level(level: int, sandbox: Sandbox, reasons: list[str]) -> dict[str, Any]:
    holds = level <= sandbox.level
    return {
        "level": level,
        "name": NAMES[level],
        "holds": holds,
        "mechanisms": list(sandbox.mechanisms) if level == sandbox.level else [],
        "not_held": NOT_HELD[level],
        "reason": "" if holds else "; ".join(dict.fromkeys(reasons)) or "nothing here claims it",
        "remedy": "" if holds else remedy(level),
    }


if __name__ == "__main__":
    sys.exit(main())
