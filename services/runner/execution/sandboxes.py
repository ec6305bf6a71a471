"""Which isolation to ask of the zygote, the strongest first, and what level each would be if it holds.

Levels: 0 none; 1 limited; 2 filtered (Landlock and seccomp); 3 isolated (a root and namespaces of its own as well);
4 accounted (a control group for each fold as well).
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from services.runner.execution.hierarchies import INTERFACES
from services.runner.execution.programs import readable_folders

FIRST_UID = 60_000
LIMITED, FILTERED, ISOLATED, ACCOUNTED = 1, 2, 3, 4

_NEEDS = {
    FILTERED: "it needs Linux 5.13 with Landlock among its security modules, and seccomp, on x86_64 or aarch64",
    ISOLATED: "start the runner as root, or allow user namespaces "
    "(sysctl user.max_user_namespaces, kernel.apparmor_restrict_unprivileged_userns=0)",
    ACCOUNTED: "give it a control group it may make others in: as root with the controllers memory, pids and cpu, "
    "or by systemd (a unit of its own with Delegate=yes; Linux 5.19)",
}


@dataclass(frozen=True, slots=True)
class Plan:
    """How the zygote is to isolate itself and its children; `namespaces` are had as root, as a user, or not at all.

    `accounted` is the version of the control groups that its children are put into, or empty.
    """

    namespaces: str
    first_uid: int | None
    filtered: bool = True
    accounted: str = ""

    @property
    def level(self) -> int:
        """The level when all of it holds; a root of its own without filters still leaves the kernel open."""
        if not self.filtered:
            return LIMITED
        if not self.namespaces:
            return FILTERED
        return ACCOUNTED if self.accounted else ISOLATED

    def argument(self, work_folder: Path, environments: Path | None = None) -> str:
        """Return the plan as the zygote reads it; environments that are built after its start it sees as well."""
        return json.dumps(
            {
                "namespaces": self.namespaces,
                "first_uid": self.first_uid,
                "filtered": self.filtered,
                "root": str(work_folder / "root"),
                "boxes": str(work_folder / "boxes"),
                "readable": readable_folders(),
                "environments": str(environments) if environments else None,
            }
        )


def strongest_first() -> Iterator[Plan]:
    """Yield what to try; as root every child gets a user of its own as long as it can still read the interpreter."""
    places = list(_places())
    own_roots = [place for place in places if place[0]]
    yield from (Plan(*place, accounted=version) for place in own_roots for version in INTERFACES)
    yield from (Plan(namespaces, first_uid) for namespaces, first_uid in places)
    yield from (Plan(namespaces, first_uid, filtered=False) for namespaces, first_uid in places)


def at_least(level: int) -> Iterator[Plan]:
    """Yield what to try where less than this level will not do."""
    return (plan for plan in strongest_first() if plan.level >= level)


def remedy(level: int) -> str:
    """Return what an operator can do where a level is not to be had."""
    return f"{_NEEDS.get(level, 'see the reasons in the log')}; --sandbox-min {level - 1} accepts less"


def _places() -> Iterator[tuple[str, int | None]]:
    is_root = os.geteuid() == 0
    if is_root:
        yield "root", FIRST_UID
    yield "user", None
    if is_root and all(_readable_by_all(Path(folder)) for folder in readable_folders()):
        yield "", FIRST_UID
    yield "", None


def _readable_by_all(folder: Path) -> bool:
    """Tell whether a user who owns nothing can reach the folder."""
    return all(path.stat().st_mode & stat.S_IXOTH for path in (folder, *folder.parents))
