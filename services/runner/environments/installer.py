"""uv, asked to resolve, to lock and to install: wheels only, so that no package's code runs before it is in a jail."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from uv import find_uv_bin

from datarun.errors import DatarunError

STEP_SECONDS = 600.0
REASON_LINES, REASON_CHARACTERS = 30, 4000
_COMMON = ("--no-config", "--no-progress", "--color", "never", "--only-binary", ":all:", "--python", sys.executable)
_CREDENTIALS = re.compile(r"(?<=://)[^/@\s]+@")


class NotInstalled(DatarunError):
    """A package cannot be installed, or not imported."""


@dataclass(frozen=True, slots=True)
class UvInstaller:
    """Installs from one index: a URL, a folder of wheels, or what uv finds configured."""

    index: str | None = None

    def resolve(self, requirements: Sequence[str], *, base: str, pins: Mapping[str, str], room: Path) -> dict[str, str]:
        """Return the versions by name of all that is missing in the runner's own packages, which may not change.

        `pins` are kept to where that is possible. Raises NotInstalled with uv's reason.
        """
        wanted, constraints = room / "wanted.txt", room / "constraints.txt"
        wanted.write_text("\n".join(requirements), encoding="utf-8")
        agreed = "".join(f"{name}=={version}\n" for name, version in pins.items())
        argv = ["install", "--dry-run", "--output-format", "json", "-c", str(constraints), "-r", str(wanted)]
        constraints.write_text(base + agreed, encoding="utf-8")
        try:
            answer = self._uv(argv)
        except NotInstalled:
            if not agreed:
                raise
            # Another platform, or a newer request that they do not fit.
            constraints.write_text(base, encoding="utf-8")
            answer = self._uv(argv)
        return _installed(answer)

    def lock(self, versions: Mapping[str, str], *, room: Path) -> str:
        """Return these versions with the hashes that the index tells, a folder tells none; raises NotInstalled."""
        exact = room / "exact.txt"
        exact.write_text("".join(f"{name}=={version}\n" for name, version in sorted(versions.items())), "utf-8")
        plain = ("--no-deps", "--generate-hashes", "--no-header", "--no-annotate", "--no-emit-index-url")
        return self._uv(["compile", "--quiet", *plain, "--no-emit-find-links", str(exact)])

    def install(self, lock: str, *, target: Path, room: Path) -> None:
        """Install exactly what is locked into a folder; raises NotInstalled."""
        locked = room / "lock.txt"
        locked.write_text(lock, encoding="utf-8")
        into = ("--target", str(target), "--compile-bytecode")
        self._uv(["install", "--quiet", "--no-deps", *into, "-r", str(locked)])

    def _uv(self, argv: Sequence[str]) -> str:
        command = [find_uv_bin(), "pip", argv[0], *_COMMON, *self._sources(), *argv[1:]]
        try:
            done = subprocess.run(
                command,
                capture_output=True,
                stdin=subprocess.DEVNULL,
                timeout=STEP_SECONDS,
                check=False,
                cwd="/",
                umask=0o022,
            )
        except subprocess.TimeoutExpired as error:
            raise NotInstalled(f"the installer did not end within {STEP_SECONDS:g} s") from error
        except OSError as error:
            raise NotInstalled(f"the installer cannot be started: {error}") from error
        if done.returncode:
            reason = tail(done.stderr.decode(errors="replace"))
            raise NotInstalled(reason or f"the installer ended with {done.returncode}")
        return done.stdout.decode(errors="replace")

    def _sources(self) -> tuple[str, ...]:
        if self.index is None:
            return ()
        if Path(self.index).is_dir():
            return ("--no-index", "--find-links", str(Path(self.index).absolute()))
        return ("--default-index", self.index)


def tail(text: str) -> str:
    """Return the last lines of an installer's output, without the passwords of addresses in it."""
    lines = _CREDENTIALS.sub("", text).strip().splitlines()[-REASON_LINES:]
    return "\n".join(lines)[-REASON_CHARACTERS:]


def _installed(answer: str) -> dict[str, str]:
    try:
        changes = json.loads(answer)["changes"]
        return {change["name"]: change["version"] for change in changes if change["action"] == "installed"}
    except (ValueError, KeyError, TypeError) as error:
        raise NotInstalled(f"the installer's plan cannot be read: {error!r}") from error
