"""Child processes: their logs, and that they die with their parent."""

import os
import subprocess
import sys
from pathlib import Path

import psutil

from datarun.stack.process import LOG_LIMIT_BYTES, end_processes, is_same_process, open_log, started_at, tail

PARENT = """
import subprocess, sys, time
from datarun.stack.process import Command
child = Command(argv=[sys.executable, "-c", "import signal, time; signal.signal(15, signal.SIG_IGN); time.sleep(60)"])
print(subprocess.Popen(child.argv, **child.popen_options()).pid, flush=True)
time.sleep(60)
"""


def test_a_child_dies_with_a_killed_parent() -> None:
    """Even one that ignores SIGTERM, when its parent had no time for anything."""
    with subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child = psutil.Process(int(parent.stdout.readline()))
        assert child.is_running()
        parent.kill()
    assert psutil.wait_procs([child], timeout=5)[1] == []


def test_the_tail_is_the_last_lines(tmp_path: Path) -> None:
    """However long the log is, and whatever bytes are in it."""
    log = tmp_path / "log"
    assert tail(log) == ""
    log.write_bytes(b"x" * 200_000 + b"\n\xff\n" + b"\n".join(b"line %d" % number for number in range(30)))
    assert tail(log, 3) == "line 27\nline 28\nline 29"


def test_a_long_log_is_set_aside_at_the_next_start(tmp_path: Path) -> None:
    """Logs do not grow for ever."""
    log = tmp_path / "logs" / "kafka.log"
    for _ in range(2):
        descriptor = open_log(log)
        os.write(descriptor, b"x" * (LOG_LIMIT_BYTES + 1))
        os.close(descriptor)
    assert log.stat().st_size == log.with_suffix(".old.log").stat().st_size == LOG_LIMIT_BYTES + 1


def test_a_process_that_refuses_is_killed() -> None:
    """Politeness has an end."""
    code = "import signal, time; signal.signal(15, signal.SIG_IGN); print(flush=True); time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        end_processes([process.pid], patience_seconds=0.2)
        assert not psutil.pid_exists(process.pid)


def test_a_pid_and_its_start_name_one_process() -> None:
    """The dead are told from their pid's next owner."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        start = started_at(process.pid)
        assert is_same_process(process.pid, start)
        assert not is_same_process(process.pid, (start or 0) - 100)
        process.kill()
    assert not is_same_process(process.pid, start)
