"""Which environment is in force for whom; a fold that comes before its first one is built waits for it."""

from __future__ import annotations

import threading
from collections.abc import Collection, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from datarun.environments import DEFAULT
from services.runner.environments.folders import Built
from services.runner.execution import Environment, ExecutionUnavailable

PATIENCE_SECONDS = 300.0


class Shelf:
    """The environments in force, by name; thread-safe."""

    def __init__(self, root: Path, *, patience_seconds: float = PATIENCE_SECONDS) -> None:
        self.root = root
        self._patience = patience_seconds
        self._changed = threading.Condition()
        self._awaited: set[str] = set()
        self._in_force: dict[str, Built | None] = {}
        self._holds: dict[str, ExitStack] = {}
        self._lacking: set[str] = set()

    def expect(self, names: Collection[str]) -> None:
        """Let folds of these environments wait until they are put here for the first time."""
        with self._changed:
            self._awaited.update(names)

    def mark(self, name: str, *, lacking: bool) -> None:
        """Say whether an environment lacks a package that it has elsewhere."""
        (self._lacking.add if lacking else self._lacking.discard)(name)

    def lacks(self, raw_data_id: int) -> bool:
        """Tell whether a package could be installed for the dataset elsewhere, and not here."""
        with self._changed:
            return self._name_of(raw_data_id) in self._lacking

    def _name_of(self, raw_data_id: int) -> str:
        own = str(raw_data_id)
        return own if own in self._in_force or own in self._awaited else DEFAULT

    def put(self, name: str, built: Built | None) -> None:
        """Put an environment in force, from the next fold on; None is the runner's own packages."""
        with ExitStack() as stack:
            if built is not None:
                stack.enter_context(built.environment.held())
            with self._changed:
                before = self._holds.pop(name, None)
                self._holds[name] = stack.pop_all()
                self._in_force[name] = built
                self._awaited.discard(name)
                self._changed.notify_all()
        if before is not None:
            before.close()

    def has(self, name: str) -> bool:
        """Tell whether an environment was ever put here."""
        with self._changed:
            return name in self._in_force

    def get(self, name: str) -> Built | None:
        """Return what is in force."""
        with self._changed:
            return self._in_force.get(name)

    @contextmanager
    def use(self, raw_data_id: int) -> Iterator[Environment | None]:
        """Hold a dataset's environment as it is now; raises ExecutionUnavailable when it takes too long to come."""
        with self._changed:
            name = self._name_of(raw_data_id)
            if not self._changed.wait_for(lambda: name not in self._awaited, self._patience):
                raise ExecutionUnavailable(f"the packages of environment {name} are still being installed")
            built = self._in_force.get(name)
        if built is None:
            yield None
            return
        with built.environment.held():
            yield built.environment

    def keys(self) -> dict[str, str]:
        """Return what is in force as `environment` or `environment.<dataset>` -> the beginning of its key."""
        with self._changed:
            return {
                "environment" if name == DEFAULT else f"environment.{name}": built.environment.key[:12]
                for name, built in self._in_force.items()
                if built is not None
            }

    def close(self) -> None:
        """Let go of everything."""
        with self._changed:
            for hold in self._holds.values():
                hold.close()
            self._holds.clear()
