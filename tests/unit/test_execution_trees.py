"""Trees of processes end whole, also those that keep forking."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import psutil

from services.runner.execution.isolated.trees import children, kill_trees

FORKER = """
import os, time
for _ in range(6):
    os.fork()
    time.sleep(0.001)
time.sleep(60)
"""
"""64 processes in seven generations."""


def test_a_tree_that_forks_is_killed_whole() -> None:
    """Nothing that grew below the root is left, whichever generation it is of."""
    with subprocess.Popen([sys.executable, "-S", "-c", FORKER], start_new_session=True) as root:
        time.sleep(0.3)
        grown = psutil.Process(root.pid).children(recursive=True)
        assert len(grown) > 5
        kill_trees([root.pid])
        assert root.wait(5) == -signal.SIGKILL
    _, alive = psutil.wait_procs(grown, timeout=5)
    assert not [process for process in alive if process.status() != psutil.STATUS_ZOMBIE]


def test_the_children_of_every_thread_are_listed() -> None:
    """A process started by a thread is a child of that process all the same."""
    import threading

    started: list[subprocess.Popen[bytes]] = []
    ready, done = threading.Event(), threading.Event()

    def start() -> None:
        started.append(subprocess.Popen(["sleep", "30"]))
        ready.set()
        done.wait(30)

    thread = threading.Thread(target=start)
    thread.start()
    ready.wait(10)
    assert started[0].pid in children(str(os.getpid()))
    kill_trees([started[0].pid])
    assert started[0].wait(5) == -signal.SIGKILL
    done.set()
    thread.join()


def test_what_is_gone_has_no_children() -> None:
    """A process that ends while it is looked at is no error."""
    with subprocess.Popen(["true"]) as process:
        process.wait()
    assert children(str(process.pid)) == []
    kill_trees([process.pid])
