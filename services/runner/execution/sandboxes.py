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


def plans() -> Iterator[Plan]:
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
