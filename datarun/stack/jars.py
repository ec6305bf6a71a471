"""Apache Kafka's jars: fetched once from Maven Central by jgo, and only those whose sha256 is the one committed here.

The list names every jar with its version, so nothing is resolved at run time; jars put there by hand are as good.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from datarun.errors import DatarunError
from datarun.stack.cache import locked, write_atomically

KAFKA_VERSION = "4.4.0"
PARALLEL_DOWNLOADS = 8
ATTEMPTS = 3
TIMEOUT_SECONDS = 30

Progress = Callable[[int, int], None]


class JarsMissing(DatarunError):
    """Apache Kafka's jars are not in the cache and could not be fetched."""


@dataclass(frozen=True)
class Jar:
    """One file of Apache Kafka or of a library it stands on."""

    sha256: str
    group: str
    artifact: str
    version: str

    @property
    def file_name(self) -> str:
        """The name Maven gives the file."""
        return f"{self.artifact}-{self.version}.jar"


def kafka_jars() -> tuple[Jar, ...]:
    """Return the committed list."""
    lines = resources.files(__package__).joinpath(f"kafka-{KAFKA_VERSION}.sha256").read_text().splitlines()
    entries = (line.split() for line in lines if not line.startswith("#"))
    return tuple(Jar(sha256, *coordinates.split(":")) for sha256, coordinates in entries)


def ensure_jars(folder: Path, jars: Sequence[Jar], *, progress: Progress = lambda _done, _total: None) -> list[Path]:
    """Return the jars' paths in `folder`, having fetched what is missing and verified what is new."""
    paths = [folder / jar.file_name for jar in jars]
    if not _is_verified(folder, paths):
        with locked(folder / ".lock"):
            if not _is_verified(folder, paths):
                _complete(folder, jars, progress)
                write_atomically(folder / ".verified", _stamp(paths))
    return paths


def _complete(folder: Path, jars: Sequence[Jar], progress: Progress) -> None:
    missing = [jar for jar in jars if not _is_sound(folder / jar.file_name, jar)]
    if not missing:
        return
    staging = folder / ".staging"
    shutil.rmtree(staging, ignore_errors=True)
    try:
        done = len(jars) - len(missing)
        progress(done, len(jars))
        with ThreadPoolExecutor(PARALLEL_DOWNLOADS) as pool:
            fetches = [pool.submit(_fetch, jar, staging, folder) for jar in missing]
            for count, fetch in enumerate(as_completed(fetches), start=done + 1):
                fetch.result()
                progress(count, len(jars))
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _fetch(jar: Jar, staging: Path, folder: Path) -> None:
    # Half a second of imports that only the first start on a machine pays.
    from jgo.config import GlobalSettings
    from jgo.constants import MAVEN_CENTRAL_URL
    from jgo.maven import MavenContext

    mirrors = GlobalSettings.load().repositories
    context = MavenContext(
        repo_cache=staging, remote_repos={"central": MAVEN_CENTRAL_URL, **mirrors}, timeout=TIMEOUT_SECONDS
    )
    artifact = context.project(jar.group, jar.artifact).at_version(jar.version).artifact()
    for attempt in range(1, ATTEMPTS + 1):
        try:
            fetched = artifact.resolve()
            break
        # requests' errors are OSErrors; jgo's own are RuntimeErrors.
        except (OSError, RuntimeError) as error:
            (staging / artifact.component.path_prefix / jar.file_name).unlink(missing_ok=True)
            if attempt == ATTEMPTS:
                raise JarsMissing(_advice(jar, folder, str(error))) from error
    if not _is_sound(fetched, jar):
        raise JarsMissing(_advice(jar, folder, "what came has another sha256 than the one in this repository"))
    fetched.replace(folder / jar.file_name)


def _advice(jar: Jar, folder: Path, reason: str) -> str:
    return (
        f"{jar.file_name} of Apache Kafka {KAFKA_VERSION} could not be fetched: {reason}\n"
        "Use a running broker with --kafka HOST:PORT,"
        f" or put the jars that datarun/stack/kafka-{KAFKA_VERSION}.sha256 lists into {folder}"
    )


def _is_sound(path: Path, jar: Jar) -> bool:
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() == jar.sha256


def _is_verified(folder: Path, paths: Iterable[Path]) -> bool:
    stamp = folder / ".verified"
    return stamp.is_file() and stamp.read_text(encoding="utf-8") == _stamp(paths)


def _stamp(paths: Iterable[Path]) -> str:
    # Sums of 43 MB at each start would cost a tenth of the start; a file that was touched is summed again.
    stats = [(path.name, path.stat()) for path in paths if path.exists()]
    return "\n".join(f"{name} {stat.st_size} {stat.st_mtime_ns}" for name, stat in stats)
