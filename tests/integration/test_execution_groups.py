"""Control groups: what all processes of a fold use together is limited, counted, ended, and nothing is left of it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import psutil
import pytest

from datarun.errors import Retryable
from datarun.events import Cause, Dataset, Fault, Stage
from services.runner.execution import Failed, Limits, SandboxRefused, Tested
from services.runner.execution.cgroups import Group, Groups, sweep
from services.runner.execution.hierarchies import INTERFACES, PREFIX, own_folders
from services.runner.execution.sandboxes import ACCOUNTED, Plan, at_least
from tests.integration.execution_workbench import GOOD, Workbench, workbench

LIMITS = Limits(hard_seconds=20, memory_mib=320, disk_mib=500, output_mib=8, processes=24)
ROWS = 75
ROOT = Path(__file__).parents[2]


def groups_of(version: str) -> Groups:
    """Groups in this version of the interface, where it has its controllers here."""
    try:
        return Groups(version, memory_mib=64, processes=8)
    except OSError as error:
        pytest.skip(str(error))


@pytest.fixture(params=INTERFACES)
def version(request: pytest.FixtureRequest) -> str:
    """Both versions of the interface."""
    return request.param


@pytest.fixture
def groups(version: str) -> Iterator[Groups]:
    """A runner's groups."""
    groups = groups_of(version)
    yield groups
    groups.close()


@contextmanager
def start_in(group: Group, code: str) -> Iterator[subprocess.Popen[bytes]]:
    """Start a program that enters the group first, and wait for the line it says when it has done its work."""
    entrances = group.entrances()
    enter = f"import os, signal, time\nfor fd in {entrances}: os.write(fd, b'0'); os.close(fd)\n"
    argv = [sys.executable, "-S", "-c", f"{enter}{code}\nprint('done', flush=True)\ntime.sleep(100)"]
    process = subprocess.Popen(argv, stdout=subprocess.PIPE, pass_fds=entrances)
    for entrance in entrances:
        os.close(entrance)
    assert process.stdout is not None
    process.stdout.readline()
    try:
        yield process
    finally:
        process.kill()
        process.stdout.close()
        process.wait()


def folders(groups: Groups) -> list[Path]:
    """The folders of a runner's groups."""
    return list(dict.fromkeys(groups._folders.values()))


def test_what_a_group_uses_is_counted_together(groups: Groups) -> None:
    """Memory and processor time of every process, of those that are gone too."""
    group = groups.open()
    code = """
for _ in range(2):
    if os.fork() == 0:
        block = b'x' * (20 << 20)
        while time.process_time() < 0.2: pass
        os._exit(0)
os.wait(); os.wait()"""
    with start_in(group, code) as process:
        assert process.pid in group.members()
        usage = group.usage()
        assert 40 < usage.peak_mib <= 64
        assert usage.cpu_seconds > 0.4
        assert not group.is_out_of_memory()
        groups.retire(group)
        assert process.wait(5) == -signal.SIGKILL


def test_together_they_get_no_more_than_the_limit(groups: Groups) -> None:
    """Each alone is within it; the kernel ends one and says so."""
    group = groups.open()
    with start_in(group, "os.fork()\nblock = b'x' * (40 << 20)") as process:
        deadline = time.monotonic() + 5
        while not group.is_out_of_memory() and time.monotonic() < deadline:
            time.sleep(0.05)
        assert group.is_out_of_memory()
        assert group.usage().peak_mib <= 64
        groups.retire(group)
        process.wait(5)


def test_there_are_no_more_processes_than_the_limit(groups: Groups) -> None:
    """The fork that would be one too many fails, whoever the user is."""
    group = groups.open()
    code = """
made = 0
try:
    while True:
        if os.fork() == 0: time.sleep(100)
        made += 1
except BlockingIOError: assert made == 7, made"""
    with start_in(group, code) as process:
        assert len(group.members()) == 8
        groups.retire(group)
        process.wait(5)


def test_killing_a_group_ends_all_in_it(groups: Groups) -> None:
    """Stopped, in sessions of their own, forgotten by their parents or forking: none is left, and nor is the group."""
    group = groups.open()
    code = """
if os.fork() == 0: os.setsid(); os.kill(os.getpid(), signal.SIGSTOP)
if os.fork() == 0:
    if os.fork() == 0: time.sleep(100)
    os._exit(0)
os.wait()  # what forks next leaves room for nobody
if os.fork() == 0:
    while True:
        try: os.fork() or os._exit(0)
        except OSError: pass
time.sleep(0.3)"""
    with start_in(group, code) as process:
        assert len(group.members()) > 3
        begun = time.monotonic()
        group.kill()
        process.wait(5)
        while group.members() and time.monotonic() < begun + 1:
            time.sleep(0.01)
        assert group.members() == []
        groups.retire(group)
    groups.close()
    assert not any(folder.exists() for folder in folders(groups))


def test_folders_that_somebody_removed_are_made_again(groups: Groups) -> None:
    """The next group has a place all the same."""
    for folder in folders(groups):
        for entry in folder.iterdir():
            if entry.is_dir():
                entry.rmdir()
        folder.rmdir()
    group = groups.open()
    assert group.members() == []
    groups.retire(group)


KILLED = """
import os, sys, time
from services.runner.execution.cgroups import Groups
groups = Groups({version!r}, memory_mib=64, processes=8)
entrances = groups.open().entrances()
if os.fork() == 0:
    for entrance in entrances: os.write(entrance, b"0")
    print(os.getpid(), *dict.fromkeys(groups._folders.values()), flush=True)
    os.setsid()
    os.closerange(1, 100)
time.sleep(100)
"""


def test_what_a_killed_runner_left_is_swept_and_nothing_of_a_living_one(groups: Groups, version: str) -> None:
    """Its groups go with what is still in them; those that are locked stay as they are."""
    living = groups.open()
    argv = [sys.executable, "-c", KILLED.format(version=version)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, cwd=ROOT) as runner:
        assert runner.stdout is not None
        pid, *left = runner.stdout.readline().decode().split()
        sweep(Path(left[0]).parent)
        assert all(Path(folder).exists() for folder in left)
        runner.kill()
    assert psutil.pid_exists(int(pid))
    groups_of(version).close()
    assert not any(Path(folder).exists() for folder in left)
    assert not psutil.pid_exists(int(pid)) or psutil.Process(int(pid)).status() == psutil.STATUS_ZOMBIE
    assert living.members() == []
    groups.retire(living)


def test_version_2_ends_and_sweeps_groups_without_controllers_too() -> None:
    """Its file to kill a group with, and its locks, work wherever it is mounted and may be written."""
    own = own_folders(Path("/proc/self/cgroup").read_text(), Path("/proc/self/mountinfo").read_text()).get("")
    if own is None or not os.access(own, os.W_OK):
        pytest.skip("cgroup v2 is not mounted here, or may not be written")
    left = own / f"{PREFIX}test{os.getpid()}"
    group = left / "1"
    group.mkdir(parents=True)
    with subprocess.Popen([sys.executable, "-S", "-c", "import os, time; os.fork(); time.sleep(100)"]) as process:
        (group / "cgroup.procs").write_text(str(process.pid))
        sweep(own)
        assert process.wait(5) == -signal.SIGKILL
    assert not left.exists()


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workbench]:
    """An executor whose folds are accounted."""
    try:
        with workbench(tmp_path_factory.mktemp("groups"), LIMITS, plans=at_least(ACCOUNTED)) as bench:
            yield bench
    except SandboxRefused as error:
        pytest.skip(str(error))


def table(bench: Workbench) -> Dataset:
    """A table of two features and two classes, split in halves of 75 rows."""
    values = np.random.RandomState(0).rand(2 * ROWS, 2).round(6)
    lines = [f"{a},{b},{int(a > 0.5)}" for a, b in values]
    raw = ("a,b,target\n" + "\n".join(lines) + "\n").encode()
    return bench.split(bench.dataset({"raw.csv": raw}, "classifier"), held_out=0.5)


def classifier(fit: str) -> dict[str, str | bytes]:
    """A classifier whose fit may have children that use memory or the processor."""
    code = f"""
import glob, os, time
import numpy as np
def child(mib, seconds=0.0, stay=100):
    if os.fork() == 0:
        block = np.ones(mib << 17)
        begun = time.process_time()
        while time.process_time() < begun + seconds: pass
        open(f'done{{os.getpid()}}', 'w').close()
        time.sleep(stay)
        os._exit(0)
class Classifier:
    def fit(self, X, y):
        {fit}
    def predict_proba(self, X):
        return np.full((len(X), 2), 0.5)
"""
    return {"classifier.py": code}


TOGETHER = {
    "and the submission waits for them": "[child(60) for _ in range(6)]; [os.wait() for _ in range(6)]",
    "and the submission sleeps": "[child(60) for _ in range(6)]; time.sleep(100)",
    "and the submission goes on": "[child(60) for _ in range(6)]; os.wait()",
    "and the submission fails of it": "[child(60) for _ in range(6)]; os.wait(); raise ChildProcessError",
    "as files": "[open(f'f{i}', 'wb').write(bytes(40 << 20)) for i in range(10)]",
    "as memory files": "fds = [os.memfd_create('x') for _ in range(40)]; [os.write(f, bytes(10 << 20)) for f in fds]",
}


@pytest.mark.parametrize("name", TOGETHER)
def test_more_memory_than_the_limit_in_all_is_the_folds_end(bench: Workbench, name: str) -> None:
    """Though no process exceeds it; the cause is memory, and the next fold runs."""
    dataset = table(bench)
    outcome = bench.run(dataset, classifier(TOGETHER[name]), range(60))
    assert isinstance(outcome, Failed), outcome
    assert (outcome.stage, outcome.cause, outcome.fault) == (Stage.TRAIN, Cause.MEMORY, Fault.LIMIT)
    assert "memory limit 320 MiB" in outcome.message
    assert 300 < outcome.metrics.train_memory <= 330
    assert outcome.metrics.train_time < LIMITS.hard_seconds - 1
    assert isinstance(bench.run(dataset, {"classifier.py": GOOD}, range(60)), Tested)


def test_all_processes_are_in_the_metrics(bench: Workbench) -> None:
    """Those that have ended and those that live on, with what they hold at once."""
    fit = """child(20, 0.1)
        child(20, 0.1, 0)
        while len(glob.glob('done*')) < 2: time.sleep(0.01)"""
    outcome = bench.run(table(bench), classifier(fit), range(60))
    assert isinstance(outcome, Tested), outcome
    assert 0.2 < outcome.metrics.train_cpu_time < 2
    assert 60 < outcome.metrics.train_memory <= 330
    assert outcome.metrics.test_memory >= outcome.metrics.train_memory


def test_the_groups_go_with_their_folds(tmp_path: Path) -> None:
    """While the executor works there are few, after close() none."""
    try:
        with workbench(tmp_path, LIMITS, plans=at_least(ACCOUNTED)) as bench:
            assert bench.executor._nursery._groups is not None
            places = folders(bench.executor._nursery._groups)
            dataset = table(bench)
            for _ in range(20):
                assert isinstance(bench.run(dataset, {"classifier.py": GOOD}, range(60)), Tested)
            groups = [group for place in places for group in place.iterdir() if group.is_dir()]
            assert 0 < len(groups) <= 8 * len(places)
    except SandboxRefused as error:
        pytest.skip(str(error))
    assert not any(place.exists() for place in places)


def test_the_groups_go_with_an_executor_that_is_closed_in_mid_fold(tmp_path: Path) -> None:
    """The fold may be tried again; what it started and its group are gone."""
    try:
        with workbench(tmp_path, LIMITS, plans=at_least(ACCOUNTED)) as bench:
            groups = bench.executor._nursery._groups
            assert groups is not None
            request = bench.request(table(bench), classifier("child(1); print('begun'); time.sleep(100)"), range(60))
            outcomes: list[object] = []

            def run() -> None:
                try:
                    outcomes.append(bench.executor.run(request, on_trained=lambda _: None))
                except Retryable as error:
                    outcomes.append(error)

            fold = threading.Thread(target=run)
            fold.start()
            time.sleep(0.5)
    except SandboxRefused as error:
        pytest.skip(str(error))
    fold.join(5)
    assert isinstance(outcomes[0], Retryable | Failed)
    assert not any(folder.exists() for folder in folders(groups))


def test_a_fold_without_its_group_is_not_run(bench: Workbench, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may be tried again, elsewhere or when there are groups again; it never runs with less."""
    dataset = table(bench)

    def refuse(*_: object, **__: object) -> None:
        raise OSError(28, "no space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Group, "limit", refuse)
        outcomes = []
        for _ in range(6):
            try:
                outcomes.append(bench.run(dataset, {"classifier.py": GOOD}, range(60)))
            except Retryable as error:
                outcomes.append(error)
        assert isinstance(outcomes[-1], Retryable)
        assert "no control group" in str(outcomes[-1])
    assert isinstance(bench.run(dataset, {"classifier.py": GOOD}, range(60)), Tested)


def test_a_group_that_limits_nothing_is_no_level(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A probe that is not killed and may fork proves nothing, whatever the files say."""
    groups_of("v1").close()
    monkeypatch.setattr(Group, "limit", lambda *_, **__: None)
    with (
        pytest.raises(SandboxRefused, match="not in force: cgroup_v1, group_memory, group_processes"),
        workbench(tmp_path, LIMITS, plans=[Plan("user", None, accounted="v1")]),
    ):
        pass
