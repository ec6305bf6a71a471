"""`make bench`: every measurement, one after the other, so that none disturbs another."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

BENCHMARKS = (
    "bench_execution",
    "bench_levels",
    "bench_peers",
    "bench_projection",
    "bench_visible",
    "bench_dead_letters",
    "bench_gateway",
    "bench_reads",
    "bench_swap",
    "bench_end_to_end",
    "bench_scheduling",
)


def main() -> int:
    """Run the named benchmarks, or all; return the first exit code that is not 0."""
    chosen = sys.argv[1:] or BENCHMARKS
    codes = []
    for name in chosen:
        print(f"== {name}", flush=True)
        codes.append(
            subprocess.run(
                [sys.executable, "-m", f"benchmarks.{name}"], cwd=Path(__file__).parents[1], check=False
            ).returncode
        )
    return next((code for code in codes if code), 0)


if __name__ == "__main__":
    sys.exit(main())
