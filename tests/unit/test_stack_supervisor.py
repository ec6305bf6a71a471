"""The supervisor, with small scripts for parts."""

import asyncio
import os
import signal
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from datarun.stack.folder import StackFolder
from datarun.stack.process import Command
from datarun.stack.supervisor import Part, PartFailed, Supervisor, in_thread

READY = "from datarun import notify; notify.ready('here');"
STAY = "import time; time.sleep(60)"


class Recorder:
    """A report that is looked at afterwards."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def ready(self, name: str, url: str, _seconds: float) -> None:
        """Record it."""
        self.lines.append(f"{name} ready at {url}")

    def note(self, text: str) -> None:
        """Record it."""
        self.lines.append(text)

    def problem(self, text: str) -> None:
        """Record it."""
        self.lines.append(text)

    def progress(self, text: str, done: int, total: int) -> None:
        """Record it."""
        self.lines.append(f"{text} {done}/{total}")


def part(name: str, code: str, *, ready_seconds: float = 20, stop_seconds: float = 5) -> Part:
    """Return a part that runs a piece of Python."""
    command = Command(argv=[sys.executable, "-c", code], environment=dict(os.environ))
    return Part(name=name, command=lambda: command, ready_seconds=ready_seconds, stop_seconds=stop_seconds)


def supervise(folder: Path, work: Callable[[Supervisor], Awaitable[None]]) -> list[str]:
    """Let a supervisor work, stop it, and return what it told."""
    report = Recorder()

    async def run() -> None:
        supervisor = Supervisor(StackFolder(folder), report)
        try:
            await work(supervisor)
        finally:
            await supervisor.stop()

    (folder / "run").mkdir()
    asyncio.run(run())
    return report.lines


def pid_of(folder: Path, name: str) -> int:
    """Return the pid the state file has for a part."""
    state = StackFolder(folder).state()
    assert state is not None
    pid = state.processes[name].pid
    assert pid is not None
    return pid


async def until(condition: Callable[[], bool]) -> None:
    """Wait until something holds, ten seconds at most."""
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)


def test_a_part_is_started_known_and_stopped(tmp_path: Path) -> None:
    """While it runs the state file says so; afterwards nothing of it is left."""
    pids: list[int] = []

    async def work(supervisor: Supervisor) -> None:
        await supervisor.start(part("gateway", READY + STAY))
        pids.append(pid_of(tmp_path, "gateway"))

    assert supervise(tmp_path, work) == ["gateway ready at here"]
    state = StackFolder(tmp_path).state()
    assert state is not None
    assert state.processes["gateway"].state == "stopped"
    assert not state.processes["gateway"].is_alive


def test_a_part_that_is_killed_comes_back(tmp_path: Path) -> None:
    """It is said, counted, and the new process has another pid."""

    async def work(supervisor: Supervisor) -> None:
        await supervisor.start(part("runner", READY + STAY))
        first = pid_of(tmp_path, "runner")
        os.kill(first, signal.SIGKILL)

        def is_back() -> bool:
            state = StackFolder(tmp_path).state()
            return state is not None and state.processes["runner"].restarts == 1 and _is_ready(tmp_path, "runner")

        await until(is_back)
        assert pid_of(tmp_path, "runner") != first

    lines = supervise(tmp_path, work)
    assert lines == [
        "runner ready at here",
        "runner was killed by SIGKILL; restart 1 in 0.25 s",
        "runner ready at here",
    ]


def _is_ready(folder: Path, name: str) -> bool:
    state = StackFolder(folder).state()
    return state is not None and state.processes[name].state == "ready"


def test_a_part_that_cannot_start_shows_the_end_of_its_log(tmp_path: Path) -> None:
    """Twenty lines, no more."""

    async def work(supervisor: Supervisor) -> None:
        await supervisor.start(part("gateway", "[print('line', n) for n in range(40)]; raise SystemExit(5)"))

    with pytest.raises(PartFailed) as caught:
        supervise(tmp_path, work)
    assert "gateway ended with exit code 5" in str(caught.value)
    assert str(caught.value).splitlines()[1:] == [f"line {number}" for number in range(20, 40)]


def test_a_part_that_never_says_it_is_ready_fails(tmp_path: Path) -> None:
    """And is not left running."""

    async def work(supervisor: Supervisor) -> None:
        await supervisor.start(part("gateway", "print('thinking', flush=True);" + STAY, ready_seconds=0.5))

    with pytest.raises(PartFailed, match=r"was not ready after 0\.5 s[^\0]*thinking"):
        supervise(tmp_path, work)
    state = StackFolder(tmp_path).state()
    assert state is not None
    assert not state.processes["gateway"].is_alive


def test_a_part_that_keeps_failing_is_tried_more_and_more_rarely(tmp_path: Path) -> None:
    """It is never given up."""
    once = tmp_path / "once"
    code = f"import os,sys; os.path.exists({str(once)!r}) and sys.exit(1); open({str(once)!r}, 'w');" + READY

    async def work(supervisor: Supervisor) -> None:
        await supervisor.start(part("runner", code))
        await asyncio.sleep(2)

    lines = [line for line in supervise(tmp_path, work) if "restart" in line]
    assert [line.split(" in ")[1] for line in lines[:3]] == ["0.25 s", "0.5 s", "1 s"]


def test_stages_are_stopped_in_order(tmp_path: Path) -> None:
    """A service is gone before the server it needs gets its signal."""
    record = tmp_path / "record"

    def code(name: str) -> str:
        return (
            "import signal, sys\n"
            f"def stop(*_): open({str(record)!r}, 'a').write('{name} '); sys.exit()\n"
            f"signal.signal(15, stop)\n{READY}\n{STAY}"
        )

    async def work(supervisor: Supervisor) -> None:
        for name in ("kafka", "gateway", "runner"):
            await supervisor.start(part(name, code(name)))
        await supervisor.stop(("runner",), ("gateway",))

    supervise(tmp_path, work)
    assert record.read_text().split() == ["runner", "gateway", "kafka"]


def test_a_part_that_does_not_stop_is_killed_with_all_it_started(tmp_path: Path) -> None:
    """Its own children as well."""
    child = tmp_path / "child"
    code = (
        "import signal, subprocess, sys\n"
        "signal.signal(15, signal.SIG_IGN)\n"
        f"p = subprocess.Popen([sys.executable, '-c', '{STAY}'])\n"
        f"open({str(child)!r}, 'w').write(str(p.pid))\n{READY}\n{STAY}"
    )

    async def work(supervisor: Supervisor) -> None:
        await supervisor.start(part("runner", code, stop_seconds=0.2))

    lines = supervise(tmp_path, work)
    assert "runner did not stop in 0.2 s and is killed" in lines
    deadline = time.monotonic() + 5
    while Path(f"/proc/{child.read_text()}/stat").exists() and "Z" not in _stat(child.read_text()):
        assert time.monotonic() < deadline


def _stat(pid: str) -> str:
    path = Path(f"/proc/{pid}/stat")
    return path.read_text().rpartition(")")[2].split()[0] if path.exists() else "Z"


def test_abandoned_work_does_not_delay_the_end() -> None:
    """A call that hangs in a library is left behind when its waiter is cancelled."""

    async def run() -> None:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(in_thread(lambda: time.sleep(30)), 0.05)

    begun = time.monotonic()
    asyncio.run(run())
    assert time.monotonic() - begun < 5
