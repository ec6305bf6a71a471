"""Which isolation to ask of the zygote, the strongest first; what is in force is the first that really starts."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from datarun.events import Sandbox
from services.runner.execution.programs import readable_folders

FIRST_UID = 60_000
_ALWAYS = ("rlimits", "no_new_privs", "no_capabilities", "clean_environment", "closed_descriptors", "session")
_NAMESPACES = ("own_root", "mount_namespace", "pid_namespace", "network_namespace", "ipc_namespace", "uts_namespace")


@dataclass(frozen=True, slots=True)
class Plan:
    """How the zygote is to isolate itself and its children."""

    namespaces: str
    first_uid: int | None

    def argument(self, work_folder: Path) -> str:
        """Return the plan as the zygote reads it."""
        return json.dumps(
            {
                "namespaces": self.namespaces,
                "first_uid": self.first_uid,
                "root": str(work_folder / "root"),
                "boxes": str(work_folder / "boxes"),
                "readable": readable_folders(),
            }
        )

    def missing(self, pid: int) -> str | None:
        """Return what the kernel says a confined child lacks of the plan, None when it has all."""
        lines = (Path("/proc") / str(pid) / "status").read_text(encoding="latin-1").splitlines()
        status = {name: value.split() for name, _, value in (line.partition(":") for line in lines)}
        held = {
            "no_new_privs": status["NoNewPrivs"] == ["1"],
            "no_capabilities": {int(word, 16) for name in ("CapEff", "CapPrm", "CapInh") for word in status[name]}
            == {0},
            "pid_namespace": len(status["NSpid"]) > 1 or not self.namespaces,
            "own_uid": self.first_uid is None or all(int(uid) >= self.first_uid for uid in status["Uid"]),
        }
        return ", ".join(name for name, holds in held.items() if not holds) or None

    @property
    def sandbox(self) -> Sandbox:
        """What children run under when the plan works."""
        mechanisms = [*_ALWAYS]
        if self.namespaces:
            mechanisms += [*_NAMESPACES, "disk_quota"]
        if self.namespaces == "user":
            mechanisms.append("user_namespace")
        if self.first_uid is not None:
            mechanisms.append("own_uid")
        return Sandbox(level=1, mechanisms=tuple(mechanisms))


def strongest_first() -> Iterator[Plan]:
    """Yield what to try; as root every child gets a user of its own as long as it can still read the interpreter."""
    is_root = os.geteuid() == 0
    if is_root:
        yield Plan("root", FIRST_UID)
    yield Plan("user", None)
    if is_root and all(_readable_by_all(Path(folder)) for folder in readable_folders()):
        yield Plan("", FIRST_UID)
    yield Plan("", None)


def _readable_by_all(folder: Path) -> bool:
    """Tell whether a user who owns nothing can reach the folder."""
    return all(path.stat().st_mode & stat.S_IXOTH for path in (folder, *folder.parents))
