"""The platform's own processes: killed, closed, or with less isolation than they would like."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

import datarun
from datarun.errors import Retryable
from datarun.events import Cause, Dataset, FoldRequested, Sandbox
from services.runner.execution import Executor, Failed, Limits, SandboxRefused, Tested
from services.runner.execution.sandboxes import Plan, at_least
from tests.integration.execution_workbench import GOOD, Workbench, open_files, two_classes, workbench

LIMITS = Limits(hard_seconds=6, memory_mib=1024)
SLOW = """
import numpy as np, time
class Classifier:
    def fit(self, X, y): time.sleep(1000)
"""


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Workbench]:
    """An executor of a test's own."""
    with workbench(tmp_path, LIMITS) as bench:
        yield bench


def programs(name: str) -> list[psutil.Process]:
    """Our running programs of that name: the loader, or the zygote's two processes with their children."""
    found = []
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):  # it has just ended
            if f"isolated.{name} import" in " ".join(process.cmdline()):
                found.append(process)
    return found


def assert_runs(bench: Workbench, dataset: Dataset) -> None:
    """A good submission runs."""
    outcome = bench.run(dataset, {"classifier.py": GOOD}, range(60))
    assert isinstance(outcome, Tested), outcome


DRAWING = """
import random
import numpy as np
class Classifier:
    def fit(self, X, y): pass
    def predict_proba(self, X):
        return np.array([[random.random(), np.random.rand()] for _ in range(len(X))])
"""


def test_the_same_submission_draws_the_same_numbers(bench: Workbench) -> None:
    """Both random states are the same in every process, so that a fold can be repeated bit by bit."""
    data = two_classes(bench)
    first, second = (bench.run(data, {"classifier.py": DRAWING}, range(60)) for _ in range(2))
    assert isinstance(first, Tested)
    assert isinstance(second, Tested)
    assert (first.full_train, first.test) == (second.full_train, second.test)
    assert len({first.full_train.content[start : start + 8] for start in range(0, 1200, 8)}) == 150


class Running(threading.Thread):
    """A fold in a thread, with what came of it."""

    def __init__(self, executor: Executor, request: FoldRequested) -> None:
        super().__init__()
        self._executor, self._request = executor, request
        self.outcome: object = None

    def run(self) -> None:
        """Run the fold."""
        try:
            self.outcome = self._executor.run(self._request, on_trained=lambda _: None)
        except Retryable as error:
            self.outcome = error


@pytest.mark.parametrize("which", ["launcher", "first process"])
def test_a_killed_zygote_costs_the_running_fold_only(bench: Workbench, which: str) -> None:
    """The fold that ran may be tried again; its process is gone; the next fold has a new zygote."""
    dataset = two_classes(bench)
    fold = Running(bench.executor, bench.request(dataset, {"classifier.py": SLOW}, range(60)))
    fold.start()
    time.sleep(0.7)
    before = programs("entry")
    launcher = min(before, key=lambda process: process.create_time())
    victim = launcher if which == "launcher" else launcher.children()[0]
    victim.kill()
    fold.join(LIMITS.hard_seconds)
    assert isinstance(fold.outcome, Retryable), fold.outcome
    _, alive = psutil.wait_procs(before, timeout=3)
    assert not alive
    assert_runs(bench, dataset)


def test_the_work_folder_may_be_relative(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`--dir .datarun` is one: the isolation is the same as in a folder with its whole name."""
    with workbench(tmp_path / "whole", LIMITS) as bench:
        whole = bench.sandbox
    monkeypatch.chdir(tmp_path)
    with workbench(Path("relative"), LIMITS) as bench:
        assert bench.sandbox == whole


def test_a_zygote_that_stands_still_is_replaced(bench: Workbench, monkeypatch: pytest.MonkeyPatch) -> None:
    """It would never fork again, and every fold after it would be called lost."""
    monkeypatch.setattr("services.runner.execution.box.START_SECONDS", 1.0)
    dataset = two_classes(bench)
    stopped = [process for process in programs("entry") if process.name() == "datarun-zygote"]
    for process in stopped:
        process.suspend()
    assert_runs(bench, dataset)
    assert_runs(bench, dataset)
    assert_runs(bench, dataset)
    assert stopped
    assert not any(process.is_running() for process in stopped)


def test_a_zygote_killed_between_folds_costs_nothing(bench: Workbench) -> None:
    """Nobody notices a zygote that dies while nothing runs."""
    dataset = two_classes(bench)
    for process in programs("entry"):
        process.kill()
    assert_runs(bench, dataset)


def test_a_killed_loader_is_replaced(bench: Workbench) -> None:
    """The loader is started again, and knows the data again, when the next fold needs it."""
    dataset = two_classes(bench)
    assert_runs(bench, dataset)
    (loader,) = programs("loader")
    loader.kill()
    psutil.wait_procs([loader], timeout=3)
    try:
        assert_runs(bench, dataset)
    except Retryable:
        assert_runs(bench, dataset)
    assert programs("loader") != [loader]


def test_a_loader_that_dies_over_a_request_is_the_platforms_fault(bench: Workbench) -> None:
    """A fold whose loader is killed while it is asked may be tried again."""
    dataset = two_classes(bench)
    (loader,) = programs("loader")
    loader.send_signal(signal.SIGSTOP)
    fold = Running(bench.executor, bench.request(dataset, {"classifier.py": GOOD}, range(60)))
    fold.start()
    time.sleep(0.3)
    loader.kill()
    fold.join(LIMITS.hard_seconds)
    assert isinstance(fold.outcome, Retryable)
    assert_runs(bench, dataset)


def test_closing_leaves_nothing(tmp_path: Path) -> None:
    """After close() there is no process and no open file more than before, though a fold was running."""
    files = open_files()
    before = psutil.Process().children(recursive=True)
    with workbench(tmp_path, LIMITS) as bench:
        request = bench.request(two_classes(bench), {"classifier.py": SLOW}, range(60))
        fold = Running(bench.executor, request)
        fold.start()
        time.sleep(0.5)
        started = [child for child in psutil.Process().children(recursive=True) if child not in before]
        assert len(started) >= 4
    fold.join(5)
    assert isinstance(fold.outcome, Retryable | Failed)
    _, alive = psutil.wait_procs(started, timeout=3)
    assert not alive
    assert open_files() == files


def test_a_runner_killed_outright_leaves_no_process(tmp_path: Path) -> None:
    """When the runner itself dies, its zygote, loader and children end by themselves."""
    import subprocess
    import sys

    program = f"""
import time
from pathlib import Path
from datarun.blobs import LocalBlobs
from services.runner.execution import Executor, Limits
folder = Path({str(tmp_path)!r})
executor = Executor(blobs=LocalBlobs(folder), limits=Limits(), slots=2, work_folder=folder / "work")
executor.start()
print("ready", flush=True)
time.sleep(1000)
"""
    root = Path(__file__).parents[2]
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, cwd=root) as runner:
        try:
            assert runner.stdout is not None
            assert any(line == b"ready\n" for line in runner.stdout)
            time.sleep(0.3)
            started = psutil.Process(runner.pid).children(recursive=True)
        finally:
            runner.kill()
    assert len(started) >= 3
    _, alive = psutil.wait_procs(started, timeout=3)
    assert not alive


PLANS = {
    "as a user": Plan("user", None),
    "filters alone": Plan("", None),
    "no filters": Plan("user", None, filtered=False),
    "nothing but limits": Plan("", None, filtered=False),
}
DAEMON = """
import ctypes, os, time
import numpy as np
class Classifier:
    def fit(self, X, y):
        if os.fork() == 0:
            os.setsid()
            if os.fork() == 0:
                ctypes.CDLL(None).prctl(15, b'NAME', 0, 0, 0)
                time.sleep(1000)
            os._exit(0)
        time.sleep(0.2)
        open('kept', 'w').close()
        raise ValueError(os.getcwd())
"""


@pytest.mark.parametrize("name", sorted(PLANS))
def test_less_isolation_still_runs_and_cleans_up(tmp_path: Path, name: str) -> None:
    """With fewer mechanisms folds run, limits hold, leftovers die, and the sandbox says what it is."""
    bench = Workbench(tmp_path, LIMITS)
    # Another run of these tests may be under way on the machine.
    name_of_daemon = f"plan{os.getpid()}"
    bench.executor = Executor(
        blobs=bench.blobs, limits=LIMITS, slots=2, work_folder=tmp_path / "work", plans=[PLANS[name]]
    )
    try:
        sandbox = bench.executor.start()
        assert sandbox.level == PLANS[name].level
        assert ("user_namespace" in sandbox.mechanisms) == (PLANS[name].namespaces == "user")
        assert "own_uid" not in sandbox.mechanisms
        dataset = two_classes(bench)
        assert_runs(bench, dataset)
        failed = bench.run(dataset, {"classifier.py": DAEMON.replace("NAME", name_of_daemon)}, range(60))
        assert isinstance(failed, Failed)
        assert "ValueError" in failed.message
        assert str(tmp_path) not in failed.message
        late = bench.run(dataset, {"classifier.py": SLOW}, range(60))
        assert isinstance(late, Failed)
        assert late.cause is Cause.HARD_TIMEOUT
        names = [process.info["name"] for process in psutil.process_iter(["name"])]
        assert name_of_daemon not in names
    finally:
        bench.executor.close()


@pytest.mark.parametrize("impossible", [Plan("user", 60_000), Plan("root", 4_294_967_295)])
def test_a_plan_that_cannot_be_had_is_not_claimed(tmp_path: Path, impossible: Plan) -> None:
    """What fails in the first child is followed by the next plan, and only that is reported."""
    bench = Workbench(tmp_path, LIMITS)
    plans = [impossible, Plan("", None)]
    bench.executor = Executor(blobs=bench.blobs, limits=LIMITS, slots=1, work_folder=tmp_path / "work", plans=plans)
    try:
        assert "own_root" not in bench.executor.start().mechanisms
        assert_runs(bench, two_classes(bench))
    finally:
        bench.executor.close()


WITHOUT_GROUPS = """
import os, sys
from services.runner.execution.isolated import kernel
try:
    kernel.unshare(kernel.CLONE_NEWNS | (kernel.CLONE_NEWUSER if os.getuid() else 0))
    kernel.mount("none", "/", None, kernel.MS_REC | kernel.MS_PRIVATE)
    kernel.mount("none", "/sys/fs/cgroup", "tmpfs", 0)
except OSError as error:
    print("this machine may have no control groups to hide:", error)
os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
"""


def test_a_runner_below_its_minimum_does_not_start(tmp_path: Path) -> None:
    """It exits as misconfigured, with one line that says why and what to do."""
    import os
    import subprocess
    import sys

    runner = ["-m", "services.runner", "--kafka", "localhost:1", "--blobs", tmp_path, "--dir", tmp_path]
    argv = [sys.executable, "-c", WITHOUT_GROUPS, *runner]
    environment = {**os.environ, "DATARUN_SANDBOX_MIN": "4"}
    root = Path(__file__).parents[2]
    ended = subprocess.run(argv, env=environment, cwd=root, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 78
    (line,) = [line for line in ended.stderr.splitlines() if line.startswith("datarun runner:")]
    assert "no sandbox of level 4" in line
    assert "--sandbox-min 3 accepts less" in line


def test_what_was_refused_is_said(tmp_path: Path) -> None:
    """The reasons of every plan that was tried are in the refusal."""
    impossible = [Plan("root", 4_294_967_295)]
    with (
        pytest.raises(SandboxRefused, match=r"mount .*Invalid argument"),
        workbench(tmp_path, LIMITS, plans=impossible),
    ):
        pass


def test_a_minimum_leaves_out_what_is_below() -> None:
    """Nothing weaker is ever tried."""
    assert {plan.level for plan in at_least(4)} == {4}
    assert {plan.level for plan in at_least(3)} == {3, 4}
    assert {plan.level for plan in at_least(2)} == {2, 3, 4}
    assert {plan.level for plan in at_least(0)} == {1, 2, 3, 4}


@pytest.mark.parametrize(("level", "loud"), [(1, True), (2, True), (3, False), (4, False)])
def test_a_low_level_is_said_loudly(level: int, *, loud: bool) -> None:
    """Whoever reads the status of a runner that isolates less sees it."""
    from services.runner.__main__ import describe_sandbox

    text = describe_sandbox(Sandbox(level=level))
    assert f"level {level}" in text.lower()
    assert ("NOT ISOLATED" in text) == loud


def test_a_submission_sees_neither_network_nor_the_host(bench: Workbench) -> None:
    """In its own root a submission finds no file, process, socket or secret of the runner."""
    if "own_root" not in bench.sandbox.mechanisms:
        pytest.skip("no namespaces here")
    secret = bench.blobs.path(bench.blobs.put(b"secret"))
    code = f"""
import os, socket
import numpy as np
class Classifier:
    def fit(self, X, y):
        for path in ({str(secret)!r}, '/etc/passwd', {datarun.__file__!r}, '/var/tmp', '/root/.bashrc'):
            assert not os.path.exists(path), path
        print([name for name in os.environ if 'DATARUN' in name or name in ('USER', 'LOGNAME', 'SSH_AUTH_SOCK')])
        print(os.getpid() < 1000 and os.getppid() == 1)
        try: print(open('/proc/1/environ').read())
        except PermissionError: print('closed')
        try: socket.create_connection(('127.0.0.1', 22), 1)
        except OSError as error: print(error.strerror)
        for path in ('/', "/usr", '/proc'):
            try: open(os.path.join(path, 'w'), 'w')
            except OSError: print('refused')
        print(os.getuid() >= 60000, os.getgroups())
        raise ValueError
"""
    failed = bench.run(two_classes(bench), {"classifier.py": code}, range(60))
    assert isinstance(failed, Failed)
    lines = failed.log.splitlines()
    assert lines[:4] == ["[]", "True", "closed", "Operation not permitted"]
    assert lines[4:7] == ["refused"] * 3, lines
