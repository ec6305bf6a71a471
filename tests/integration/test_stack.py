"""`datarun up`, `status` and `down` as a user runs them: real Kafka, real Postgres, stand-ins for our services.

The acceptance tests run the same with the real services.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import psycopg2
import pytest

from datarun.log.admin import probe
from datarun.stack.connection import Connection
from datarun.stack.folder import StackFolder
from datarun.stack.ports import is_free
from datarun.stack.running import StackFailed, running_stack

STANDINS = Path(__file__).parent / "standins"
UP_SECONDS = 90


@pytest.fixture(autouse=True)
def _prepared(cache: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Let the stack find the stand-ins, and the cache where the other tests have it."""
    # `python -m` looks in the working directory first, and the real services may be there.
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(STANDINS))
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache.parent))


@pytest.fixture
def given(kafka: str, postgres_url: str, topic_prefix: str, monkeypatch: pytest.MonkeyPatch) -> tuple[str, ...]:
    """Return options for the session's servers, for a stack that starts sooner."""
    monkeypatch.setenv("DATARUN_TOPIC_PREFIX", topic_prefix)
    return ("--kafka", kafka, "--postgres", postgres_url)


def datarun(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    argv = [sys.executable, "-m", "datarun.cli", *map(str, arguments)]
    return subprocess.run(argv, capture_output=True, text=True, timeout=UP_SECONDS, check=False)


@contextmanager
def up(folder: Path, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """Start `datarun up` in the foreground, yield it when everything is ready, and stop it."""
    argv = [sys.executable, "-m", "datarun.cli", "up", "--dir", str(folder), *arguments]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        try:
            wait_for(folder, process)
            yield process
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)


def wait_for(folder: Path, process: subprocess.Popen[str]) -> None:
    """Wait until the stack of a folder is ready."""
    deadline = time.monotonic() + UP_SECONDS
    while not ((state := StackFolder(folder).state()) and state.is_ready and state.pid == process.pid):
        assert process.poll() is None, process.stdout and process.stdout.read()
        assert time.monotonic() < deadline
        time.sleep(0.02)


def processes(folder: Path) -> dict[str, int]:
    """Return the pids of a stack's parts."""
    state = StackFolder(folder).state()
    assert state is not None
    return {name: part.pid for name, part in state.processes.items() if part.pid}


def remains(folder: Path) -> list[str]:
    """Return what still runs, or listens, for a folder."""
    running = [
        " ".join(process.info["cmdline"] or [])
        for process in psutil.process_iter(["cmdline"])
        if str(folder) in " ".join(process.info["cmdline"] or [])
    ]
    connection = Connection.load(folder)
    ports = [urlsplit(connection.gateway_url).port]
    if (folder / "kafka").exists():
        ports.append(urlsplit(f"//{connection.kafka}").port)
    taken = [f"port {port}" for port in ports if port is not None and not is_free(port)]
    return running + taken + (["lock"] if StackFolder(folder).is_held() else [])


def await_nothing(folder: Path) -> None:
    """Wait until nothing of a stack is left."""
    deadline = time.monotonic() + 15
    while remains(folder):
        assert time.monotonic() < deadline, remains(folder)
        time.sleep(0.05)


def test_a_stack_starts_is_found_and_stops_without_a_trace(tmp_path: Path) -> None:
    """One line for each part; a second `up` says it runs already; Ctrl-C leaves no process, port or lock."""
    folder = tmp_path / "stack"
    with up(folder) as process:
        connection = Connection.load(folder)
        assert probe(connection.kafka, 5)
        status = json.loads(datarun("status", "--dir", folder, "-o", "json").stdout)
        assert status["ready"]
        assert set(status["processes"]) == {"kafka", "postgres", "gateway", "projector", "runner"}
        assert {part["state"] for part in status["processes"].values()} == {"ready"}
        assert status["processes"]["gateway"]["url"] == connection.gateway_url

        second = datarun("up", "--dir", folder)
        assert second.returncode == 0
        assert "already running" in second.stdout
        assert connection.gateway_url in second.stdout

        process.send_signal(signal.SIGINT)
        lines, _ = process.communicate(timeout=30)
    assert process.returncode == 0
    for name in ("kafka", "postgres", "gateway", "projector", "runner"):
        assert sum(line.startswith(f"{name} ") for line in lines.splitlines()) == 1
    assert remains(folder) == []
    assert datarun("status", "--dir", folder).returncode == 3


def test_data_addresses_and_password_outlive_a_restart(tmp_path: Path) -> None:
    """Clients need not be told anything new; `--fresh` starts over."""
    folder = tmp_path / "stack"
    with running_stack(folder, output=tmp_path / "log") as stack:
        before = stack.connection
        execute(before, "create table kept ()")
    with running_stack(folder, output=tmp_path / "log") as stack:
        assert stack.connection == before
        execute(before, "select from kept")
    with running_stack(folder, "--fresh", output=tmp_path / "log") as stack:
        assert stack.connection.password != before.password
        with pytest.raises(psycopg2.errors.UndefinedTable):
            execute(stack.connection, "select from kept")


def execute(connection: Connection, statement: str) -> None:
    """Run a statement in the stack's database."""
    opened = psycopg2.connect(connection.postgres_url.replace("+psycopg2", ""))
    with opened, opened.cursor() as cursor:
        cursor.execute(statement)
    opened.close()


@pytest.mark.parametrize("name", ["kafka", "postgres"])
def test_a_server_that_is_killed_is_restarted_and_this_is_said(tmp_path: Path, name: str) -> None:
    """The address stays, the others go on."""
    folder, log = tmp_path / "stack", tmp_path / "log"
    with running_stack(folder, output=log) as stack:
        before = processes(folder)
        os.kill(before[name], signal.SIGKILL)
        deadline = time.monotonic() + 30
        while (part := stack.state().processes[name]).restarts == 0 or part.state != "ready":
            assert time.monotonic() < deadline
            time.sleep(0.05)
        after = processes(folder)
        assert {other for other in after if after[other] != before[other]} == {name}
        assert probe(stack.connection.kafka, 5)
        execute(stack.connection, "select 1")
    assert f"{name} was killed by SIGKILL; restart 1" in log.read_text()
    assert remains(folder) == []


def test_a_killed_supervisor_takes_everything_along(tmp_path: Path) -> None:
    """Nothing is orphaned, and the next start finds the data as it was."""
    folder = tmp_path / "stack"
    with up(folder) as process:
        connection = Connection.load(folder)
        execute(connection, "create table kept ()")
        process.kill()
    await_nothing(folder)
    with running_stack(folder, output=tmp_path / "log"):
        execute(connection, "select from kept")


def test_a_start_right_after_a_kill_of_everything_works(tmp_path: Path) -> None:
    """Neither a stale pid file nor a process that is still dying is in the way."""
    folder = tmp_path / "stack"
    with up(folder) as process:
        victims = [*processes(folder).values(), process.pid]
        for pid in victims:
            os.kill(pid, signal.SIGKILL)
    with running_stack(folder, output=tmp_path / "log") as stack:
        assert probe(stack.connection.kafka, 5)


def test_a_part_that_does_not_start_shows_its_log_and_stops_the_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: tuple[str, ...]
) -> None:
    """The exit code is not 0 and nothing is left running."""
    monkeypatch.setenv("STANDIN_FAILS", "ingest")
    failed = datarun("up", "--dir", tmp_path / "stack", *given)
    assert failed.returncode == 1
    assert "gateway ended with exit code 5" in failed.stderr
    assert failed.stderr.splitlines()[-20:] == [f"line {number}" for number in range(20, 40)]
    assert remains(tmp_path / "stack") == []
    with pytest.raises(StackFailed), running_stack(tmp_path / "stack", *given, output=tmp_path / "log"):
        pass


def test_an_interruption_while_starting_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: tuple[str, ...]
) -> None:
    """Even when a part would never have been ready."""
    folder = tmp_path / "stack"
    monkeypatch.setenv("STANDIN_NEVER_READY", "projector")
    argv = [sys.executable, "-m", "datarun.cli", "up", "--dir", str(folder), *given]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        while not process.stdout.readline().startswith("runner"):
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        assert process.wait(30) != 0
    assert remains(folder) == []


def test_a_detached_stack_is_ready_when_the_command_returns_and_ends_with_down(
    tmp_path: Path, given: tuple[str, ...]
) -> None:
    """Its lines are seen, and kept in logs/stack.log."""
    folder = tmp_path / "stack"
    started = datarun("up", "--detach", "--dir", folder, *given)
    try:
        assert started.returncode == 0, started.stderr
        assert started.stdout == (folder / "logs" / "stack.log").read_text()
        assert probe(Connection.load(folder).kafka, 5)
        refused = datarun("up", "--fresh", "--dir", folder)
        assert (refused.returncode, refused.stdout) == (1, "")
        assert "datarun down" in refused.stderr
    finally:
        assert datarun("down", "--dir", folder).stdout == "stopped\n"
    assert remains(folder) == []
    assert "no stack runs" in datarun("down", "--dir", folder).stdout


def test_servers_that_are_given_are_used(
    kafka: str, postgres_url: str, blobs_url: str, given: tuple[str, ...], tmp_path: Path
) -> None:
    """Neither a broker nor a database is started beside them."""
    with running_stack(tmp_path / "stack", *given, "--blobs", blobs_url, output=tmp_path / "log") as stack:
        assert set(stack.state().processes) == {"gateway", "projector", "runner"}
        connection = stack.connection
        assert (connection.kafka, connection.postgres_url, connection.blobs) == (kafka, postgres_url, blobs_url)


@pytest.mark.parametrize("missing", [("--kafka", "127.0.0.1:9"), ("--postgres", "postgresql://x@127.0.0.1:9/x")])
def test_a_given_server_that_is_not_there_is_named(
    tmp_path: Path, given: tuple[str, ...], missing: tuple[str, str]
) -> None:
    """The exit code says that a server is missing, and no traceback does."""
    failed = datarun("up", "--dir", tmp_path / "stack", *given, *missing)
    assert failed.returncode == 3
    assert "Traceback" not in failed.stderr
    assert "127.0.0.1:9" in failed.stderr or '127.0.0.1", port 9' in failed.stderr


def test_a_folder_with_a_long_path_works(tmp_path: Path) -> None:
    """Though its path is too long for a Unix socket."""
    folder = tmp_path / ("x" * 120)
    with running_stack(folder, output=tmp_path / "log") as stack:
        execute(stack.connection, "select 1")
