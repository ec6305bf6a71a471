"""What this process computes with: interpreter and libraries, CPU, threads; asked by the zygote of itself."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from threadpoolctl import threadpool_info

from .wire import Message

CPUINFO = Path("/proc/cpuinfo")
_MAX_CHARACTERS = 200
_NAMED = {
    "model name": "",
    "cpu family": "family ",
    "model": "model ",
    "stepping": "stepping ",
    "CPU implementer": "implementer ",
    "CPU variant": "variant ",
    "CPU part": "part ",
    "CPU revision": "revision ",
}
"""What tells one CPU from another, on x86 and on ARM, and how it is written."""
_FLAGS = ("flags", "Features")
_OF_BLAS = ("internal_api", "version", "architecture", "threading_layer")


def runtime(environment: str) -> Message:
    """Return what is in force once the numerical libraries are imported; `environment` is their digest."""
    pools = threadpool_info()
    described = [
        " ".join([*(str(pool.get(name) or "?") for name in _OF_BLAS), Path(pool["filepath"]).name])[:_MAX_CHARACTERS]
        for pool in pools
        if pool["user_api"] == "blas"
    ]
    processor = first_processor(CPUINFO.read_text(encoding="utf-8", errors="replace"))
    named = [f"{word}{processor[name]}" for name, word in _NAMED.items() if name in processor]
    flags = " ".join(processor.get(name, "") for name in _FLAGS).split()
    return {
        "environment": environment,
        "harness": harness_digest(Path(__file__).parent),
        "threads": max((pool["num_threads"] for pool in pools), default=1),
        "blas": sorted(described),
        "cpu": ", ".join(named)[:_MAX_CHARACTERS],
        "cpu_flags": hashlib.sha256(" ".join(sorted(flags)).encode()).hexdigest(),
    }


def harness_digest(folder: Path) -> str:
    """Return the sha256 of a folder's Python files and their names, in hexadecimal."""
    digests = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.glob("*.py")}
    return hashlib.sha256(json.dumps(digests, sort_keys=True).encode()).hexdigest()


def first_processor(cpuinfo: str) -> dict[str, str]:
    """Return what /proc/cpuinfo says of the first processor, on x86 as on ARM."""
    lines = (line.partition(":") for line in cpuinfo.partition("\n\n")[0].splitlines())
    return {name.strip(): value.strip() for name, _, value in lines}
