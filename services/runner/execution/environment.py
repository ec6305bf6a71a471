"""An environment as the executor knows it: a folder of packages that a fold can import beside the runner's own."""

from __future__ import annotations

import fcntl
import hashlib
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from datarun.events import Runtime
from services.runner.execution.outcomes import ExecutionUnavailable


@dataclass(frozen=True, slots=True)
class Environment:
    """A complete folder of packages; the key says all that is in it."""

    key: str
    packages: Path
    marker: Path

    def added_to(self, runtime: Runtime) -> Runtime:
        """Return what a process computes with that has these packages as well."""
        both = hashlib.sha256(f"{runtime.environment} {self.key}".encode()).hexdigest()
        return runtime.model_copy(update={"environment": both})

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keep it from being swept; raises ExecutionUnavailable when it is gone."""
        try:
            descriptor = os.open(self.marker, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise ExecutionUnavailable(f"environment {self.key} is gone") from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH)
            yield
        finally:
            os.close(descriptor)


class Environments(Protocol):
    """Who knows which environment a dataset's folds run in."""

    @property
    def root(self) -> Path | None:
        """The folder that all of them are in or will be, if there can be any."""
        ...

    def use(self, raw_data_id: int) -> AbstractContextManager[Environment | None]:
        """Hold a dataset's environment as it is now; None is the runner's own packages."""
        ...

    def lacks(self, raw_data_id: int) -> bool:
        """Tell whether a package could be installed for the dataset elsewhere, and not here."""
        ...


class NoEnvironments:
    """Every fold has the runner's own packages."""

    root: None = None

    def use(self, raw_data_id: int) -> AbstractContextManager[Environment | None]:  # noqa: ARG002 - the protocol's
        """Hold nothing."""
        return nullcontext(None)

    def lacks(self, raw_data_id: int) -> bool:  # noqa: ARG002 - the protocol's
        """Nothing was asked for."""
        return False
