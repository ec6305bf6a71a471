"""Keeps the zygote alive and children ready: confined before their job arrives, so that a fold waits for no fork."""

from __future__ import annotations

import contextlib
import select
import socket
import subprocess
import threading
from collections import deque
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import structlog
from pydantic import ValidationError

from datarun.events import Runtime, Sandbox
from services.runner.execution import programs
from services.runner.execution.box import Box, ZygoteSilent
from services.runner.execution.cgroups import Groups
from services.runner.execution.environment import Environment
from services.runner.execution.isolated import wire
from services.runner.execution.isolated.wire import Message
from services.runner.execution.outcomes import ExecutionUnavailable, Limits, SandboxRefused
from services.runner.execution.proofs import prove
from services.runner.execution.sandboxes import Plan

MAX_LOG_BYTES = 390_000
"""So that a log with its marker fits into an event."""
WARM_SECONDS = 60.0
ATTEMPTS = 2
logger = structlog.get_logger()


class Nursery:
    """Hands out confined children; thread-safe."""

    def __init__(
        self,
        limits: Limits,
        *,
        plans: Iterable[Plan],
        spare: int,
        work_folder: Path,
        environments: Path | None = None,
    ) -> None:
        self._limits = limits
        self._plans = plans
        self._spare = spare
        self._work_folder = work_folder.absolute()  # the zygote works in another folder than we
        self._environments = environments
        self._lock = threading.Lock()
        self._children: deque[tuple[Environment | None, Box]] = deque()
        self._zygote: tuple[subprocess.Popen[bytes], socket.socket] | None = None
        self._plan: Plan | None = None
        self._sandbox: Sandbox | None = None
        self._runtime: Runtime | None = None
        self._groups: Groups | None = None
        self._closed = False

    def start(self) -> Sandbox:
        """Start the zygote under the first plan that works here; returns what is in force, raises SandboxRefused."""
        with self._lock:
            self._revive()
            assert self._sandbox is not None  # noqa: S101 - _revive raises when no plan works
            return self._sandbox

    def take(self, environment: Environment | None = None) -> Box:
        """Return a child of an environment that waits for its job; raises ExecutionUnavailable."""
        problem: ExecutionUnavailable | None = None
        for _ in range(self._spare + ATTEMPTS):
            try:
                return self._ready(environment)
            except ExecutionUnavailable as error:
                problem = error
        raise ExecutionUnavailable(f"no child to be had: {problem}") from problem

    def _ready(self, environment: Environment | None) -> Box:
        with self._lock:
            self._revive()
            waiting = next((child for child in self._children if child[0] == environment), None)
            if waiting is not None:
                self._children.remove(waiting)
            box = waiting[1] if waiting is not None else self._breed(environment)
            zygote = self._zygote
            box.sandbox, box.runtime = self._sandbox, self._runtime_in(environment)
        try:
            box.wait_ready()
        except BaseException as error:
            box.close()
            if isinstance(error, ZygoteSilent):
                self._replace(zygote)
            raise
        return box

    def _replace(self, zygote: tuple[subprocess.Popen[bytes], socket.socket] | None) -> None:
        """End a zygote that stands still, with all it has forked, unless somebody else has."""
        with self._lock:
            if self._zygote is zygote:
                logger.warning("zygote replaced", reason="it does not answer")
                self._discard()

    def _runtime_in(self, environment: Environment | None) -> Runtime | None:
        return environment.added_to(self._runtime) if environment and self._runtime else self._runtime

    def replenish(self, environment: Environment | None = None) -> None:
        """Have a spare child of the environment wait, and as many as there may be; does not wait for them.

        The one that waited longest for another environment makes room.
        """
        # Whoever takes a child that could not be made is told why.
        with self._lock, contextlib.suppress(ExecutionUnavailable):
            if not self._is_alive():
                return
            has_one = any(of == environment for of, _ in self._children)
            if self._children and len(self._children) >= self._spare and not has_one:
                self._children.popleft()[1].close()
            while len(self._children) < self._spare:
                self._children.append((environment, self._breed(environment)))

    def _breed(self, environment: Environment | None) -> Box:
        assert self._zygote is not None  # noqa: S101 - called only while it is alive
        limits: dict[str, Any] = {
            name: getattr(self._limits, name)
            for name in ("hard_seconds", "memory_mib", "disk_mib", "output_mib", "open_files", "processes")
        }
        limits["packages"] = str(environment.packages) if environment else None
        log_bytes = min(self._limits.log_kib * 1024, MAX_LOG_BYTES)
        return Box(self._zygote[1], limits, log_bytes=log_bytes, groups=self._groups)

    def _is_alive(self) -> bool:
        if self._zygote is None or self._zygote[0].poll() is not None:
            return False
        hung_up = select.poll()
        hung_up.register(self._zygote[1], 0)
        return not hung_up.poll(0)

    def _revive(self) -> None:
        if self._closed:
            raise ExecutionUnavailable("the executor is closed")
        if self._is_alive():
            return
        self._discard()
        reasons = []
        for plan in [self._plan] if self._plan else self._plans:
            try:
                self._try(plan)
            except ExecutionUnavailable as error:
                self._discard()
                logger.warning("isolation refused", **asdict(plan), reason=str(error))
                reasons.append(str(error))
            else:
                return
        raise SandboxRefused(", ".join(dict.fromkeys(reasons)) or "there is no such plan")

    def _try(self, plan: Plan) -> None:
        """Start a zygote and prove its plan with a first child; raises ExecutionUnavailable with what failed."""
        self._account(plan.accounted)
        (self._work_folder / "root").mkdir(parents=True, exist_ok=True)
        process, control = programs.start("entry", plan.argument(self._work_folder, self._environments))
        self._zygote = process, control
        control.settimeout(WARM_SECONDS)
        try:
            received = wire.receive(control)
        except TimeoutError:
            received = None
        control.settimeout(None)
        refusal = "it died" if received is None else received[0].get("refused")
        if received is None or refusal is not None:
            raise ExecutionUnavailable(refusal)
        self._runtime = _runtime_of(received[0])
        box = self._breed(None)
        try:
            box.wait_ready()
            self._sandbox = prove(plan, box, self._limits)
        finally:
            box.close()
        self._plan = plan

    def _account(self, version: str) -> None:
        """Have groups for the children where the plan has them; raises ExecutionUnavailable."""
        if not version:
            return
        try:
            self._groups = Groups(version, memory_mib=self._limits.memory_mib, processes=self._limits.processes)
        except OSError as error:
            raise ExecutionUnavailable(str(error)) from error

    def _discard(self) -> None:
        while self._children:
            self._children.popleft()[1].close()
        if self._zygote is not None:
            programs.stop(*self._zygote)
            self._zygote = None
        if self._groups is not None:
            self._groups.close()
            self._groups = None

    def close(self) -> None:
        """End the zygote and every child."""
        with self._lock:
            self._closed = True
            self._discard()


def _runtime_of(message: Message) -> Runtime:
    """Return what a zygote says of itself before it has forked."""
    try:
        return Runtime.model_validate(message.get("runtime"))
    except ValidationError as error:
        raise ExecutionUnavailable("the zygote does not say what it computes with") from error
