"""The soft time limit interrupts, the hard one ends: what code makes of the time between is its own affair."""

from __future__ import annotations

import time
from collections.abc import Iterator

import psutil
import pytest

from datarun.errors import DatarunError
from datarun.events import Cause, Dataset, Fault, Stage
from services.runner.execution import Failed, Limits, Tested
from tests.integration.execution_workbench import GOOD, Workbench, classifier, two_classes, workbench

LIMITS = Limits(soft_seconds=1, hard_seconds=3, memory_mib=768, disk_mib=16)
LATE_SECONDS = 1.0


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workbench]:
    """One executor with both limits for all folds of this module."""
    with workbench(tmp_path_factory.mktemp("time"), LIMITS) as bench:
        yield bench


@pytest.fixture(scope="module")
def dataset(bench: Workbench) -> Dataset:
    """A table of two features and two classes, split in halves."""
    return two_classes(bench)


@pytest.fixture(autouse=True)
def _the_next_fold_runs(bench: Workbench, dataset: Dataset) -> Iterator[None]:
    """After each test a good submission runs as if nothing had been."""
    yield
    outcome = bench.run(dataset, {"classifier.py": GOOD}, range(60))
    assert isinstance(outcome, Tested), outcome


def run(bench: Workbench, dataset: Dataset, code: str) -> tuple[Tested | Failed, float]:
    """Run a submission and tell how long it took."""
    begun = time.monotonic()
    return bench.run(dataset, {"classifier.py": code}, range(60)), time.monotonic() - begun


INTERRUPTED = {
    "a loop": "while True: pass",
    "a sleep": "time.sleep(1000)",
    "a deadlock": "lock = threading.Lock(); lock.acquire(); lock.acquire()",
    "a wait for threads": "t = threading.Thread(target=time.sleep, args=(99,), daemon=True); t.start(); t.join()",
    "a loop of products": "a = np.ones((300, 300))\n        while True: a @ a",
    "what swallows errors": "while True:\n            try: time.sleep(1)\n            except Exception: pass",
    "what raises another error": "try: time.sleep(99)\n        finally: raise ValueError('late')",
    "what exits": "try: time.sleep(99)\n        except KeyboardInterrupt: os._exit(0)",
    "what dies of the signal": "signal.signal(2, signal.SIG_DFL); time.sleep(99)",
}


@pytest.mark.parametrize("name", INTERRUPTED)
def test_the_soft_limit_interrupts(bench: Workbench, dataset: Dataset, name: str) -> None:
    """Python code gets an exception at the soft limit; dying of it has its own cause and the legacy text."""
    outcome, seconds = run(bench, dataset, classifier(fit="print('begun')\n        " + INTERRUPTED[name]))
    assert isinstance(outcome, Failed), outcome
    assert (outcome.stage, outcome.cause, outcome.fault) == (Stage.TRAIN, Cause.SOFT_TIMEOUT, Fault.LIMIT)
    assert outcome.message.startswith("\n Soft Time Limit Exceeded - ERROR(train)\nsoft time limit of 1 s reached\n")
    assert outcome.log == "begun\n"
    # The limit counts from the fold's beginning, the metric from the training's.
    assert 0.5 < outcome.metrics.train_time < LIMITS.hard_seconds
    assert LIMITS.soft_seconds <= seconds < LIMITS.hard_seconds


def test_the_interrupted_line_is_shown(bench: Workbench, dataset: Dataset) -> None:
    """The traceback ends where the submission was, without a frame of the platform."""
    outcome, _ = run(bench, dataset, classifier(top="def f():\n    time.sleep(99)", fit="f()"))
    assert isinstance(outcome, Failed)
    trace = outcome.message.partition("Traceback")[2]
    assert trace.count("File ") == trace.count('File "classifier.py"') == 2
    assert trace.endswith("SoftTimeLimitExceeded\n")


@pytest.mark.parametrize(("calls", "stage"), [(1, Stage.VALIDATION), (2, Stage.TEST)])
def test_the_limit_is_on_the_whole_fold(bench: Workbench, dataset: Dataset, calls: int, stage: Stage) -> None:
    """The stage of the failure is the one that was interrupted."""
    code = classifier(predict=f"return np.ones((len(X), 2)) if self.calls != {calls} else time.sleep(99)")
    outcome, _ = run(bench, dataset, code)
    assert isinstance(outcome, Failed)
    assert (outcome.stage, outcome.cause) == (stage, Cause.SOFT_TIMEOUT)
    assert (outcome.full_train is not None) == (stage is Stage.TEST)


def test_interrupted_code_may_finish(bench: Workbench, dataset: Dataset) -> None:
    """A training loop that stops early is as good as any, as long as the hard limit is not reached."""
    fit = "try: time.sleep(99)\n        except KeyboardInterrupt: print('stopped early')"
    outcome, seconds = run(bench, dataset, classifier(fit=fit))
    assert isinstance(outcome, Tested), outcome
    assert outcome.log == "stopped early\n"
    assert seconds < LIMITS.hard_seconds


MINE = f"soft{psutil.Process().pid}"
STUBBORN = {
    "a loop in C": "sum(range(10 ** 18))",
    "a product of matrices": "a = np.ones((8_000, 8_000), dtype=np.float32); a @ a",
    "an ignored signal": "signal.signal(2, signal.SIG_IGN); time.sleep(1000)",
    "what swallows everything": "while True:\n            try: time.sleep(1)\n            except BaseException: pass",
    "stopped": "os.kill(os.getpid(), signal.SIGSTOP)",
    "a stopped child": "spawn(lambda: os.kill(os.getpid(), signal.SIGSTOP)); sum(range(10 ** 18))",
    "a child in a session of its own": "spawn(os.setsid); sum(range(10 ** 18))",
    "a child of a child": "spawn(lambda: os.fork() and os._exit(0)); sum(range(10 ** 18))",
    "children that ignore signals": "[spawn(lambda: None) for _ in range(5)]; sum(range(10 ** 18))",
}
SPAWN = f"""
def spawn(become):
    if os.fork() == 0:
        for s in (1, 2, 15): signal.signal(s, signal.SIG_IGN)
        ctypes.CDLL(None).prctl(15, b'{MINE}', 0, 0, 0)
        become()
        while True: time.sleep(100)
"""


@pytest.mark.parametrize("name", STUBBORN)
def test_the_hard_limit_ends_what_cannot_be_interrupted(bench: Workbench, dataset: Dataset, name: str) -> None:
    """Killed with all descendants at most a second late, and the text is that of the hard limit."""
    outcome, seconds = run(bench, dataset, classifier(top=SPAWN, fit=STUBBORN[name]))
    assert isinstance(outcome, Failed), outcome
    assert (outcome.stage, outcome.cause, outcome.fault) == (Stage.TRAIN, Cause.HARD_TIMEOUT, Fault.LIMIT)
    assert outcome.message == "\nhard time limit of 3 s reached - ERROR(train)\n"
    assert LIMITS.hard_seconds <= seconds < LIMITS.hard_seconds + LATE_SECONDS
    assert not [process for process in psutil.process_iter(["name"]) if process.info["name"] == MINE]


SPECIFIC = """
import time
import numpy as np
def prepare_data(raw_data_path): {prepare}
def get_train_data(path): {train}
def get_test_data(path): return np.ones((3, 2)), np.ones(3)
def train_submission(module_path, X, y, train_is): {fit}
def test_submission(model, X, test_is): return np.ones(len(X))
"""


def custom(bench: Workbench, *, prepare: str = "pass", train: str = "pass", fit: str = "pass") -> Dataset:
    """A dataset with its own code."""
    train = f"{train}; return np.ones((9, 2)), np.ones(9)"
    return bench.dataset({"specific.py": SPECIFIC.format(prepare=prepare, train=train, fit=fit)}, "classifier")


def test_preparing_data_has_the_same_limit(bench: Workbench) -> None:
    """An organiser's code that takes too long ends its split with the legacy text."""
    outcome = bench.executor.split(bench.split_request(custom(bench, prepare="time.sleep(99)")))
    assert isinstance(outcome, Failed)
    assert (outcome.stage, outcome.cause, outcome.fault) == (Stage.SPLIT, Cause.SOFT_TIMEOUT, Fault.LIMIT)
    assert " Soft Time Limit Exceeded" in outcome.message
    assert "ERROR(split data)" in outcome.message


@pytest.mark.parametrize(("where", "stage"), [("train", Stage.SPLIT), ("fit", Stage.TRAIN)])
def test_a_custom_fold_has_one_limit_for_all_its_processes(bench: Workbench, where: str, stage: Stage) -> None:
    """Cutting the rows and training on them are interrupted alike."""
    outcome = bench.run(bench.split(custom(bench, **{where: "time.sleep(99)"})), {"classifier.py": GOOD}, range(5))
    assert isinstance(outcome, Failed)
    assert (outcome.stage, outcome.cause) == (stage, Cause.SOFT_TIMEOUT)


@pytest.mark.parametrize(("soft", "hard"), [(3, 3), (4, 3), (0, 3), (-1, 3)])
def test_a_soft_limit_that_is_none_is_refused(soft: float, hard: float) -> None:
    """It comes before the hard one, or it is a mistake that is said."""
    with pytest.raises(DatarunError, match=f"soft limit of {soft} s must be shorter than the hard limit of {hard} s"):
        Limits(soft_seconds=soft, hard_seconds=hard)
