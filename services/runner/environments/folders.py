"""The folders that environments are in: built aside, complete when they have their name, shared by a host's runners.

Kernel locks, which no kill leaves behind, say who builds and what is in use.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from datarun.crashes import crash_point
from services.runner.environments.installer import NotInstalled
from services.runner.execution import Environment

KEPT_UNUSED = 5
WAIT_SECONDS = 1800.0
PAUSE_SECONDS = 0.1
_ASIDE = ".building-"
_MARKER = "environment.json"


@dataclass(frozen=True, slots=True)
class Built:
    """A complete environment and what it adds to the runner's own packages, as versions by name."""

    environment: Environment
    versions: Mapping[str, str]


class Folders:
    """All environments of one host."""

    def __init__(self, root: Path, *, kept_unused: int = KEPT_UNUSED) -> None:
        self.root = root
        self._kept_unused = kept_unused
        root.mkdir(parents=True, exist_ok=True)
        # Folds may be of another user than the runner.
        root.chmod(0o755)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Be the only builder on this host; raises NotInstalled when another does not end."""
        lock = os.open(self.root / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            deadline = time.monotonic() + WAIT_SECONDS
            while not _try_lock(lock):
                if time.monotonic() > deadline:
                    raise NotInstalled(f"another runner here has been installing for {WAIT_SECONDS:g} s")
                time.sleep(PAUSE_SECONDS)
            yield
        finally:
            os.close(lock)

    @contextmanager
    def room(self) -> Iterator[Path]:
        """Make a folder to build in, which is gone afterwards; call it locked, for it sweeps what died building."""
        for left in self.root.glob(f"{_ASIDE}*"):
            shutil.rmtree(left, ignore_errors=True)
        room = Path(tempfile.mkdtemp(prefix=_ASIDE, dir=self.root))
        room.chmod(0o755)
        try:
            yield room
        finally:
            shutil.rmtree(room, ignore_errors=True)

    def find(self, wish: str, pins: Mapping[str, str]) -> Built | None:
        """Return an environment that was built for a wish with these versions, or None."""
        for path in self.root.glob(f"*/wish-{wish}"):
            built = self._read(path.parent)
            if built is not None and all(built.versions[name] == pins[name] for name in pins.keys() & built.versions):
                os.utime(path.parent)
                return built
        return None

    def place(self, packages: Path, *, key: str, wish: str, versions: Mapping[str, str]) -> Built:
        """Give a tried folder of packages its name, once for all, and remember the wish it answers."""
        folder = self.root / key
        if self._read(folder) is None:
            room = packages.parent
            whole = room / "whole"
            whole.mkdir()
            whole.chmod(0o755)
            packages.rename(whole / "packages")
            _write(whole / _MARKER, json.dumps({"key": key, "versions": dict(versions)}))
            os.sync()
            shutil.rmtree(folder, ignore_errors=True)
            crash_point("runner.before_environment")
            whole.rename(folder)
            crash_point("runner.after_environment")
        (folder / f"wish-{wish}").touch()
        built = self._read(folder)
        if built is None:
            raise NotInstalled(f"the environment {key} was taken away while it was built")
        return built

    def sweep(self) -> None:
        """Delete what no runner uses, but for the few used last; call it locked."""
        complete = sorted(self.root.glob(f"*/{_MARKER}"), key=lambda path: -path.parent.stat().st_mtime)
        unused = [marker for marker in complete if _is_free(marker)]
        for marker in unused[self._kept_unused :]:
            aside = Path(tempfile.mkdtemp(prefix=_ASIDE, dir=self.root))
            marker.parent.rename(aside / "old")
            shutil.rmtree(aside, ignore_errors=True)

    @staticmethod
    def _read(folder: Path) -> Built | None:
        marker = folder / _MARKER
        try:
            content = json.loads(marker.read_bytes())
            return Built(Environment(content["key"], folder / "packages", marker), content["versions"])
        except (OSError, ValueError, KeyError, TypeError):
            return None


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_free(marker: Path) -> bool:
    with contextlib.closing(marker.open("rb")) as file:
        return _try_lock(file.fileno())


def _write(path: Path, text: str) -> None:
    with path.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
