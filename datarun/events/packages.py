"""What happens to the packages that folds can import."""

from __future__ import annotations

from typing import ClassVar

from datarun.events.event import Event
from datarun.events.fields import EnvironmentName, Log, Seconds, Sha256, Text


class EnvironmentEvent(Event):
    """Something that happened to the packages that folds can import."""

    key_field: ClassVar[str] = "environment"
    environment: EnvironmentName
    request_id: Text
    requirement: Text
    """A name with versions, such as lightgbm>=4."""


class PackageRequested(EnvironmentEvent):
    """Every runner is to have a package in an environment; a later request for the same package takes its place."""

    identity: ClassVar[tuple[str, ...]] = ("request_id",)
    requested_by: Text


class PackageResult(EnvironmentEvent):
    """What came of a request in one environment on one runner; a request for all is built in every environment."""

    identity: ClassVar[tuple[str, ...]] = ("request_id", "environment", "runner_id")
    runner_id: Text
    seconds: Seconds
    environment_key: Sha256 | None = None
    """Of the environment that is in force from now on; without one it is the runner's own packages."""


class PackageInstalled(PackageResult):
    """A runner's next fold in the environment can import the package."""

    packages: tuple[Text, ...] = ()
    """All that the environment adds to the runner's own packages, as name==version."""


class PackageFailed(PackageResult):
    """A runner could not install a package, or not import it; what it had stays in force."""

    reason: Log
