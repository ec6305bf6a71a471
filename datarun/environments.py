"""What every runner is to have installed: the fold of the topic `environments`, pure.

A dataset's environment has the default's packages and its own; of two requests for one package the later one holds,
and a dataset's own before the default's.
"""

from __future__ import annotations

from collections.abc import Iterable

from datarun.events import Event, PackageFailed, PackageInstalled, PackageRequested
from datarun.requirements import RequirementRefused, parse

DEFAULT = "default"
Result = PackageInstalled | PackageFailed


class Environments:
    """The requests in force and what runners said of them; events are taken in the order of the log."""

    def __init__(self) -> None:
        self._order: dict[str, int] = {}
        self._requests: dict[str, dict[str, PackageRequested]] = {DEFAULT: {}}
        self._results: dict[tuple[str, str], dict[str, Result]] = {}
        self._first: dict[tuple[str, str], PackageInstalled] = {}

    def take(self, event: Event) -> None:
        """Take an event; a request that comes again, with its id, changes nothing."""
        if isinstance(event, PackageRequested) and event.request_id not in self._order:
            self._order[event.request_id] = len(self._order)
            self._requests.setdefault(event.environment, {})[package_of(event)] = event
        elif isinstance(event, PackageInstalled | PackageFailed):
            of = event.request_id, event.environment
            self._results.setdefault(of, {})[event.runner_id] = event
            if isinstance(event, PackageInstalled):
                self._first.setdefault(of, event)

    def names(self) -> list[str]:
        """Return the environments that somebody asked for packages in, the default first in any case."""
        return list(self._requests)

    def requests(self, environment: str) -> list[PackageRequested]:
        """Return the requests in force for an environment, in the order of the log."""
        wanted = self._requests[DEFAULT] | self._requests.get(environment, {})
        return sorted(wanted.values(), key=lambda request: self._order[request.request_id])

    def results(self, request_id: str, environment: str) -> dict[str, Result]:
        """Return what each runner last said of a request in an environment."""
        return dict(self._results.get((request_id, environment), {}))

    def is_installed(self, request_id: str, environment: str) -> bool:
        """Tell whether any runner ever installed what was asked for."""
        return (request_id, environment) in self._first

    def pins(self, environment: str) -> dict[str, str]:
        """Return the versions that the first runner to install each request chose, so that all choose the same.

        A package asked for and not installed anywhere since has none.
        """
        pins: dict[str, str] = {}
        for request in self.requests(environment):
            first = self._first.get((request.request_id, environment))
            if first is None:
                pins.pop(package_of(request), None)
            else:
                pins |= versions(first.packages)
        return pins


def versions(packages: Iterable[str]) -> dict[str, str]:
    """Return name==version texts as versions by name; others are left out."""
    parts = (package.partition("==") for package in packages)
    return {name: version for name, equals, version in parts if equals}


def package_of(request: PackageRequested) -> str:
    """Return the package that is asked for; a requirement that is none is a package of its own."""
    try:
        return parse(request.requirement).name
    except RequirementRefused:
        return request.request_id
