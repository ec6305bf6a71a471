"""What isolation costs: fork, jail, an iris fit and its answer at every sandbox level of this machine, in one run.

Every level has an executor of its own that stays warm; rounds alternate. Run: `python -m benchmarks.bench_levels
[rounds]`. A plain fork of the same warm process that only fits stands beside them.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from statistics import quantiles

from benchmarks import peers
from benchmarks.bench_execution import request_of, run_for
from datarun.blobs import LocalBlobs
from datarun.events import FoldRequested
from services.runner.execution import Executor, Limits, SandboxRefused
from services.runner.execution.sandboxes import strongest_first

ROUND_SECONDS = 1.5
FORKS = 40


def executors(folder: Path, stack: ExitStack) -> dict[str, tuple[Executor, FoldRequested]]:
    """Start an executor at each level that works here, the strongest way to each."""
    plans = list(strongest_first())
    found: dict[str, tuple[Executor, FoldRequested]] = {}
    for level in sorted({plan.level for plan in plans}, reverse=True):
        blobs = LocalBlobs(folder / f"blobs-{level}")
        executor = Executor(
            blobs=blobs,
            limits=Limits(),
            slots=1,
            work_folder=folder / f"work-{level}",
            plans=[plan for plan in plans if plan.level == level],
        )
        stack.callback(executor.close)
        try:
            executor.start()
        except SandboxRefused as error:
            print(f"level {level} is not to be had here: {error}")
        else:
            found[f"level {level}"] = (executor, request_of(executor, blobs))
    return found


def forked() -> list[float]:
    """Return the seconds of plain forks that fit and end."""
    taken = []
    for _ in range(FORKS):
        begun = time.perf_counter()
        pid = os.fork()
        if pid == 0:
            peers.fold(0)
            os._exit(0)
        os.waitpid(pid, 0)
        taken.append(time.perf_counter() - begun)
    return taken


def main() -> None:
    """Measure and print a row a level."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        ready = executors(Path(folder), stack)
        peers.fold(0)
        taken: dict[str, list[float]] = {name: [] for name in [*ready, "plain fork"]}
        for turn in range(rounds + 1):
            for name, (executor, request) in ready.items():
                seconds = run_for(executor, request, ROUND_SECONDS, threads=1)[1]
                taken[name] += seconds if turn else []
            taken["plain fork"] += forked()
    for name, values in taken.items():
        cuts = quantiles(values, n=20)
        print(f"{name:12} p50 {1000 * cuts[9]:6.1f}  p95 {1000 * cuts[18]:6.1f} ms a fold   n {len(values)}")


if __name__ == "__main__":
    main()
