"""Starts parts, waits until each really works, restarts those that die, and stops them all.

Everything happens on one thread, the one whose death takes the children along (see process.py).
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import os
import signal
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar

from datarun.errors import DatarunError
from datarun.stack.folder import StackFolder
from datarun.stack.process import Command, open_log, started_at, tail
from datarun.stack.readiness import Readiness
from datarun.stack.report import Report
from datarun.stack.state import ProcessState, StackState

POLL_SECONDS = 0.02
FIRST_BACKOFF_SECONDS = 0.25
LONGEST_BACKOFF_SECONDS = 10.0
HEALTHY_SECONDS = 30.0

Result = TypeVar("Result")


class PartFailed(DatarunError):
    """A part of the stack did not become ready."""


@dataclass(frozen=True, kw_only=True)
class Part:
    """One process of the stack; without `is_ready` it says so itself (datarun.notify)."""

    name: str
    command: Callable[[], Command]
    url: str = ""
    prepare: Callable[[], None] = lambda: None
    is_ready: Callable[[], bool] | None = None
    ready_seconds: float = 30.0
    stop_signal: signal.Signals = signal.SIGTERM
    stop_seconds: float = 10.0


@dataclass
class _Unit:
    part: Part
    state: ProcessState = field(default_factory=ProcessState)
    process: asyncio.subprocess.Process | None = None
    ready_at: float = 0.0
    backoff_seconds: float = FIRST_BACKOFF_SECONDS
    keeper: asyncio.Task[None] | None = None

    @property
    def is_running(self) -> bool:
        return self.process is not None and self.process.returncode is None


class Supervisor:
    """The parts of one folder."""

    def __init__(self, folder: StackFolder, report: Report) -> None:
        self._folder = folder
        self._report = report
        self._units: list[_Unit] = []
        self._state = StackState()

    async def start(self, part: Part) -> None:
        """Start a part and return when it works; it is kept running from then on. Raises PartFailed."""
        unit = _Unit(part)
        self._units.append(unit)
        self._state.processes[part.name] = unit.state
        begun = time.monotonic()
        await self._bring_up(unit)
        self._report.ready(part.name, unit.state.url, time.monotonic() - begun)
        unit.keeper = asyncio.create_task(self._keep(unit))

    def mark_ready(self) -> None:
        """Record that the whole stack works."""
        self._state.is_ready = True
        self._save()

    async def stop(self, *stages: Sequence[str]) -> None:
        """Stop the parts, stage by stage, those of one stage together; what is not named comes last."""
        self._state.is_ready = False
        for unit in self._units:
            if unit.keeper is not None:
                unit.keeper.cancel()
        named = {name for stage in stages for name in stage}
        rest = [unit.part.name for unit in self._units if unit.part.name not in named]
        for stage in (*stages, rest):
            await asyncio.gather(*(self._end(unit) for unit in self._units if unit.part.name in stage))

    async def _keep(self, unit: _Unit) -> None:
        while True:
            code = await _ended(unit.process)
            # What it started must not work beside what its successor starts.
            if unit.process is not None:
                _kill_group(unit.process.pid)
            if time.monotonic() - unit.ready_at > HEALTHY_SECONDS:
                unit.backoff_seconds = FIRST_BACKOFF_SECONDS
            unit.state.restarts += 1
            self._change(unit, "restarting")
            self._report.problem(
                f"{unit.part.name} {_how(code)}; restart {unit.state.restarts} in {unit.backoff_seconds:g} s"
            )
            await asyncio.sleep(unit.backoff_seconds)
            unit.backoff_seconds = min(2 * unit.backoff_seconds, LONGEST_BACKOFF_SECONDS)
            begun = time.monotonic()
            try:
                await self._bring_up(unit)
            except DatarunError as error:
                self._report.problem(str(error))
                await self._end(unit)
            else:
                self._report.ready(unit.part.name, unit.state.url, time.monotonic() - begun)

    async def _bring_up(self, unit: _Unit) -> None:
        part = unit.part
        self._change(unit, "starting")
        try:
            await in_thread(part.prepare)
        except OSError as error:
            raise PartFailed(f"{part.name} cannot be started: {error}") from error
        with Readiness() as readiness:
            unit.process = await self._spawn(part, readiness)
            unit.state.pid, unit.state.started_at = unit.process.pid, started_at(unit.process.pid)
            self._change(unit, "starting")
            said = await self._until_ready(unit, readiness)
        unit.ready_at = time.monotonic()
        unit.state.url, unit.state.detail = part.url or said, readiness.detail
        self._change(unit, "ready")

    async def _spawn(self, part: Part, readiness: Readiness) -> asyncio.subprocess.Process:
        command = part.command()
        if part.is_ready is None:
            command = replace(command, environment={**(command.environment or {}), "NOTIFY_SOCKET": readiness.address})
        log = open_log(self._folder.log(part.name))
        try:
            return await asyncio.create_subprocess_exec(
                *command.argv, stdin=asyncio.subprocess.DEVNULL, stdout=log, stderr=log, **command.popen_options()
            )
        finally:
            os.close(log)

    async def _until_ready(self, unit: _Unit, readiness: Readiness) -> str:
        part = unit.part
        waiting = asyncio.create_task(readiness.wait() if part.is_ready is None else _poll(part.is_ready))
        ending = asyncio.create_task(_ended(unit.process))
        done, pending = await asyncio.wait(
            {waiting, ending}, timeout=part.ready_seconds, return_when=asyncio.FIRST_COMPLETED
        )
        for task in pending:
            task.cancel()
        if waiting in done and ending not in done:
            return waiting.result() or ""
        why = _how(ending.result()) if ending in done else f"was not ready after {part.ready_seconds:g} s"
        log = self._folder.log(part.name)
        raise PartFailed(f"{part.name} {why}; the end of {log}:\n{tail(log)}")

    async def _end(self, unit: _Unit) -> None:
        if unit.process is not None and unit.is_running:
            _signal(unit.process, unit.part.stop_signal)
            try:
                await asyncio.wait_for(unit.process.wait(), unit.part.stop_seconds)
            except TimeoutError:
                self._report.problem(f"{unit.part.name} did not stop in {unit.part.stop_seconds:g} s and is killed")
        if unit.process is not None:
            # Whatever it started belongs to its session.
            _kill_group(unit.process.pid)
            await unit.process.wait()
        self._change(unit, "stopped")

    def _change(self, unit: _Unit, state: str) -> None:
        unit.state.state = state
        self._save()

    def _save(self) -> None:
        self._state.save(self._folder.run)


async def in_thread(work: Callable[[], Result]) -> Result:
    """Run blocking work aside; unlike asyncio's own threads an abandoned one does not delay the end of the program."""
    outcome: concurrent.futures.Future[Result] = concurrent.futures.Future()
    outcome.set_running_or_notify_cancel()

    def run() -> None:
        try:
            outcome.set_result(work())
        except BaseException as error:  # noqa: BLE001 - it is raised again where it is awaited
            outcome.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return await asyncio.wrap_future(outcome)


async def _poll(is_ready: Callable[[], bool]) -> str:
    while not await in_thread(is_ready):  # noqa: ASYNC110 - other programs set no event of ours
        await asyncio.sleep(POLL_SECONDS)
    return ""


async def _ended(process: asyncio.subprocess.Process | None) -> int | None:
    return None if process is None else await process.wait()


def _how(code: int | None) -> str:
    if code is None:
        return "did not start"
    if code < 0:
        return f"was killed by {signal.Signals(-code).name}"
    return f"ended with exit code {code}"


def _signal(process: asyncio.subprocess.Process, number: signal.Signals) -> None:
    try:
        process.send_signal(number)
    except ProcessLookupError:
        return


def _kill_group(pid: int) -> None:
    try:
        os.killpg(pid, signal.SIGKILL)
    except ProcessLookupError:
        return
