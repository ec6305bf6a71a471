"""The machine: Python, packages, disk, user namespaces, and the sandbox levels that a runner would get."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

from datarun.doctor.findings import Finding, missing, noted, well

PYTHONS = ((3, 11), (3, 13))
"""The first that works, and the first that does not."""
FREE_MIB = 2048
PROBE_SECONDS = 180.0
_NAME = re.compile(r"[^A-Za-z0-9._-]")
_NAMESPACES = Path("/proc/sys/user/max_user_namespaces")
_CLOSED = {
    Path("/proc/sys/kernel/unprivileged_userns_clone"): "0",
    Path("/proc/sys/kernel/apparmor_restrict_unprivileged_userns"): "1",
}
"""Settings of Debian and Ubuntu that close them, and the value that does."""


def examine(folder: Path, *, sandbox_min: int) -> Iterator[Finding]:
    """Yield what was found; the sandbox takes some seconds."""
    yield _python()
    yield _packages()
    yield _disk(folder)
    yield _user_namespaces()
    yield from _sandbox(sandbox_min)


def _python() -> Finding:
    running, (first, beyond) = sys.version_info[:2], PYTHONS
    seen = f"{sys.version.split()[0]} at {sys.executable}"
    if first <= running < beyond:
        return well("python", seen)
    return missing("python", f"{seen}; 3.11 or 3.12 is needed", "make setup PYTHON=/path/to/python3.12")


def _packages() -> Finding:
    if not _is_installed("datarun"):
        return missing("packages", "datarun itself is not installed", "make setup")
    names = [_NAME.split(text, maxsplit=1)[0] for text in requires("datarun") or () if "extra ==" not in text]
    absent = [name for name in names if not _is_installed(name)]
    if absent:
        return missing("packages", f"not installed: {', '.join(absent)}", "make setup")
    return well("packages", f"datarun {version('datarun')} and the {len(names)} packages it needs")


def _is_installed(name: str) -> bool:
    try:
        version(name)
    except PackageNotFoundError:
        return False
    return True


def _disk(folder: Path) -> Finding:
    existing = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    free_mib = shutil.disk_usage(existing).free >> 20
    seen = f"{free_mib / 1024:.1f} GiB free below {existing}"
    if free_mib < FREE_MIB:
        return missing("disk", f"{seen}; {FREE_MIB >> 10} GiB are needed", "free some, or choose another --dir")
    return well("disk", seen)


def _user_namespaces() -> Finding:
    limit = _read(_NAMESPACES)
    if limit in ("", "0"):
        return noted("user namespaces", "closed", "sysctl -w user.max_user_namespaces=15000, or run the runner as root")
    closed = [path for path, value in _CLOSED.items() if _read(path) == value]
    if closed:
        names = [".".join(path.parts[3:]) for path in closed]
        opened = " ".join(f"{name}={1 - int(_CLOSED[path])}" for name, path in zip(names, closed, strict=True))
        seen = f"closed to users by {', '.join(names)}"
        return noted("user namespaces", seen, f"sysctl -w {opened}, or run the runner as root")
    return well("user namespaces", f"open, at most {limit}")


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        return ""


def _sandbox(sandbox_min: int) -> Iterator[Finding]:
    try:
        argv = [sys.executable, "-m", "services.runner.doctor"]
        told = subprocess.run(argv, capture_output=True, text=True, timeout=PROBE_SECONDS, check=True)
        levels = json.loads(told.stdout)["levels"]
    except (OSError, subprocess.SubprocessError, ValueError, KeyError) as error:
        reason = getattr(error, "stderr", None) or error
        yield missing("sandbox", f"it cannot be tried: {reason}", "python -m services.runner.doctor")
        return
    for level in levels:
        name = f"sandbox level {level['level']}"
        if level["holds"]:
            by = f", by {', '.join(level['mechanisms'])}" if level["mechanisms"] else ""
            not_held = f"; not held: {level['not_held']}" if level["not_held"] else ""
            yield well(name, f"{level['name']}{by}{not_held}")
        else:
            made = missing if level["level"] <= sandbox_min else noted
            yield made(name, f"{level['name']}: {level['reason']}", level["remedy"])
