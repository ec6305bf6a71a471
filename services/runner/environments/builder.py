"""From requests to a folder that was tried: all at once or, where that fails, one by one."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from datarun.events import PackageRequested
from datarun.requirements import Requirement, RequirementRefused, parse
from services.runner.environments.base import base_pins, modules_of, platform_line
from services.runner.environments.folders import Built, Folders
from services.runner.environments.installer import NotInstalled, tail
from services.runner.execution import Environment

MAX_REQUESTS = 64
Try = Callable[[Environment, Sequence[str]], str | None]
"""(environment, modules) -> why they cannot be imported by a fold, or None."""


class Installer(Protocol):
    """What resolves, locks and installs; every method raises NotInstalled with the reason."""

    def resolve(self, requirements: Sequence[str], *, base: str, pins: Mapping[str, str], room: Path) -> dict[str, str]:
        """Return the versions by name of all that is missing in the base, as pinned where that is possible."""
        ...

    def lock(self, versions: Mapping[str, str], *, room: Path) -> str:
        """Return the text that names exactly what is to be installed."""
        ...

    def install(self, lock: str, *, target: Path, room: Path) -> None:
        """Install it into a folder."""
        ...


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of an environment's requests: the folder, if any is needed, and the reasons of the failed by id."""

    built: Built | None
    failures: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Builder:
    """Builds environments; `attempt` imports modules as a fold would, in a jail."""

    folders: Folders
    installer: Installer
    attempt: Try

    def build(self, requests: Sequence[PackageRequested], pins: Mapping[str, str]) -> Outcome:
        """Build what can be built of the requests, the earlier before the later; never raises for a package."""
        valid, failures = _validated(requests)
        try:
            return Outcome(self._tried(valid, pins), failures)
        except NotInstalled as error:
            if len(valid) == 1:
                return Outcome(None, failures | {valid[0][0].request_id: str(error)})
        return self._one_by_one(valid, pins, failures)

    def _one_by_one(self, valid: Sequence[_Valid], pins: Mapping[str, str], failures: dict[str, str]) -> Outcome:
        working: list[_Valid] = []
        built = None
        for one in valid:
            try:
                built = self._tried([*working, one], pins)
            except NotInstalled as error:
                failures[one[0].request_id] = str(error)
            else:
                working.append(one)
        return Outcome(built, failures)

    def _tried(self, valid: Sequence[_Valid], pins: Mapping[str, str]) -> Built | None:
        try:
            return self._made(valid, pins)
        except OSError as error:
            raise NotInstalled(f"no environment could be written: {error}") from error

    def _made(self, valid: Sequence[_Valid], pins: Mapping[str, str]) -> Built | None:
        """Return a tried environment, found or made; None when the runner's own packages are all it takes."""
        if not valid:
            return None
        requirements = [requirement for _, requirement in valid]
        wish = _digest(base_pins(), platform_line(), *(f"{request.request_id} {text.text}" for request, text in valid))
        with self.folders.locked():
            found = self.folders.find(wish, pins)
            if found is not None:
                return found
            with self.folders.room() as room:
                built = self._make(requirements, pins, wish=wish, room=room)
            self.folders.sweep()
        return built

    def _make(
        self, requirements: Sequence[Requirement], pins: Mapping[str, str], *, wish: str, room: Path
    ) -> Built | None:
        packages = room / "packages"
        packages.mkdir()
        texts = [requirement.text for requirement in requirements]
        versions = self.installer.resolve(texts, base=base_pins(), pins=pins, room=room)
        lock = self.installer.lock(versions, room=room) if versions else ""
        key = _digest(base_pins(), platform_line(), lock)
        if versions:
            self.installer.install(lock, target=packages, room=room)
        modules = [module for requirement in requirements for module in modules_of(requirement.name, packages)]
        problem = self.attempt(Environment(key, packages, room), modules)
        if problem is not None:
            raise NotInstalled(tail(problem))
        return self.folders.place(packages, key=key, wish=wish, versions=versions) if versions else None


_Valid = tuple[PackageRequested, Requirement]


def _validated(requests: Sequence[PackageRequested]) -> tuple[list[_Valid], dict[str, str]]:
    valid: list[_Valid] = []
    failures: dict[str, str] = {}
    for request in requests:
        try:
            requirement = parse(request.requirement)
        except RequirementRefused as error:
            failures[request.request_id] = str(error)
            continue
        if len(valid) < MAX_REQUESTS:
            valid.append((request, requirement))
        else:
            failures[request.request_id] = f"an environment has {MAX_REQUESTS} packages at the most"
    return valid, failures


def _digest(*parts: str) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()
