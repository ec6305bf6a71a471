"""What broken and hostile submissions do: each fold ends with its reason, and the next one runs."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from datarun.events import Cause, Dataset, Fault, FoldRequested, Stage
from services.runner.execution import Executor, Failed, Limits, Tested
from tests.integration.execution_workbench import GOOD, ROWS, Workbench, classifier, open_files, two_classes, workbench

LIMITS = Limits(hard_seconds=4, memory_mib=768, disk_mib=16, processes=48, open_files=128, output_mib=4, log_kib=64)
LATE_SECONDS = 2.0


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workbench]:
    """One executor with tight limits for all folds of this module, so that each is the next of another."""
    with workbench(tmp_path_factory.mktemp("hostile"), LIMITS) as bench:
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
    assert outcome.test.shape == (ROWS, 2)


def fail(bench: Workbench, dataset: Dataset, code: str) -> Failed:
    """Run a submission that must fail, in time, without a name of the server in what is said."""
    begun = time.monotonic()
    outcome = bench.run(dataset, {"classifier.py": code}, range(60))
    assert time.monotonic() - begun < LIMITS.hard_seconds + LATE_SECONDS
    assert isinstance(outcome, Failed), outcome
    for path in ("/box", "/work", "site-packages", str(Path.home())):
        assert path not in outcome.message
    return outcome


def reason(failed: Failed) -> tuple[Stage, Cause, Fault]:
    """The three words of a failure."""
    return failed.stage, failed.cause, failed.fault


USER = Fault.USER
BROKEN = {
    "syntax error": (
        "x = 1\nclass Classifier(:\n    pass\n",
        (Stage.TRAIN, Cause.USER_ERROR, USER),
        "\nSyntaxError('invalid syntax', ('classifier.py', 2, 18, 'class Classifier(:\\n', 2, 19)) - ERROR(train)\n",
    ),
    "missing class": (
        "class Clasifier:\n    pass\n",
        (Stage.TRAIN, Cause.USER_ERROR, USER),
        "\nAttributeError(\"module 'submission.sub_24.classifier' has no attribute 'Classifier'\") - ERROR(train)\n",
    ),
    "fit raises": (
        classifier(fit="raise ValueError('no')"),
        (Stage.TRAIN, Cause.USER_ERROR, USER),
        "\nValueError('no') - ERROR(train)\n",
    ),
    "predict raises on the train part": (
        classifier(predict="raise ValueError('no')"),
        (Stage.VALIDATION, Cause.USER_ERROR, USER),
        "\nValueError('no') - ERROR(validation)\n",
    ),
    "predict raises on the test part": (
        classifier(predict="return np.full((len(X), 2), 1.0) if self.calls == 1 else 1 / 0"),
        (Stage.TEST, Cause.USER_ERROR, USER),
        "\n\nZeroDivisionError('division by zero') - ERROR(test)\n",
    ),
    "wrong length on the train part": (
        classifier(predict="return np.ones((3, 2))"),
        (Stage.VALIDATION, Cause.OUTPUT_SHAPE, USER),
        "\nWrong full train prediction size: \n3 instead of 75 \n - ERROR(validation)\n",
    ),
    "wrong length on the test part": (
        classifier(predict="return np.ones((len(X) if self.calls == 1 else 3, 2))"),
        (Stage.TEST, Cause.OUTPUT_SHAPE, USER),
        "\n\nWrong test prediction size: \n3 instead of 75 \n - ERROR(test)\n",
    ),
    "other columns on the test part": (
        classifier(predict="return np.ones((len(X), self.calls))"),
        (Stage.TEST, Cause.OUTPUT_SHAPE, USER),
        "\n\nWrong test prediction shape: \n(75, 2) instead of (75, 1) \n - ERROR(test)\n",
    ),
    "a single number": (
        classifier(predict="return 0.5"),
        (Stage.VALIDATION, Cause.OUTPUT_SHAPE, USER),
        "\nWrong full train prediction shape: \n() instead of (75,) \n - ERROR(validation)\n",
    ),
    "NaN": (
        classifier(predict="p = np.ones((len(X), 2)); p[17:20, 1] = np.nan; return p"),
        (Stage.VALIDATION, Cause.OUTPUT_VALUE, USER),
        "\n3 NaN, first at row 17 - ERROR(validation)\n",
    ),
    "infinity on the test part": (
        classifier(predict="p = np.ones((len(X), 2)); p[4] = [1, np.inf][self.calls - 1]; return p"),
        (Stage.TEST, Cause.OUTPUT_VALUE, USER),
        "\n\n2 infinite, first at row 4 - ERROR(test)\n",
    ),
    "object dtype": (
        classifier(predict="return np.array([['a', 1]] * len(X), dtype=object)"),
        (Stage.VALIDATION, Cause.OUTPUT_SHAPE, USER),
        "\npredictions of type ndarray have dtype object, not real numbers - ERROR(validation)\n",
    ),
    "complex numbers": (
        classifier(predict="return np.ones((len(X), 2)) * 1j"),
        (Stage.VALIDATION, Cause.OUTPUT_SHAPE, USER),
        "\npredictions of type ndarray have dtype complex128, not real numbers - ERROR(validation)\n",
    ),
    "None": (
        classifier(predict="return None"),
        (Stage.VALIDATION, Cause.OUTPUT_SHAPE, USER),
        "\npredictions of type NoneType have dtype object, not real numbers - ERROR(validation)\n",
    ),
    "a generator": (
        classifier(predict="return (0.5 for _ in X)"),
        (Stage.VALIDATION, Cause.OUTPUT_SHAPE, USER),
        "\npredictions of type generator have dtype object, not real numbers - ERROR(validation)\n",
    ),
    "sys.exit": (
        classifier(fit="sys.exit(3)"),
        (Stage.TRAIN, Cause.USER_ERROR, USER),
        "\nSystemExit(3) - ERROR(train)\n",
    ),
    "KeyboardInterrupt": (
        classifier(fit="raise KeyboardInterrupt"),
        (Stage.TRAIN, Cause.USER_ERROR, USER),
        "\nKeyboardInterrupt() - ERROR(train)\n",
    ),
    "os._exit(0)": (
        classifier(fit="os._exit(0)"),
        (Stage.TRAIN, Cause.USER_ERROR, USER),
        "\nexited without a result (exit code 0) - ERROR(train)\n",
    ),
    "os._exit while predicting the test part": (
        classifier(predict="return np.ones((len(X), 2)) if self.calls == 1 else os._exit(9)"),
        (Stage.TEST, Cause.USER_ERROR, USER),
        "\n\nexited without a result (exit code 9) - ERROR(test)\n",
    ),
    "a repr that raises": (
        classifier(top="class Bad(Exception):\n    def __repr__(self): raise self", fit="raise Bad()"),
        (Stage.TRAIN, Cause.USER_ERROR, USER),
        "\nBad(its repr raised Bad) - ERROR(train)\n",
    ),
    "segmentation fault": (
        classifier(fit="ctypes.string_at(0)"),
        (Stage.TRAIN, Cause.SIGNAL, USER),
        "\nkilled by signal SIGSEGV - ERROR(train)\n",
    ),
    "abort": (
        classifier(fit="os.abort()"),
        (Stage.TRAIN, Cause.SIGNAL, USER),
        "\nkilled by signal SIGABRT - ERROR(train)\n",
    ),
    "kills itself": (
        classifier(fit="os.kill(os.getpid(), signal.SIGKILL)"),
        (Stage.TRAIN, Cause.SIGNAL, USER),
        "\nkilled by signal SIGKILL - ERROR(train)\n",
    ),
    "endless recursion": (
        classifier(top="def f(): return f()", fit="f()"),
        (Stage.TRAIN, Cause.USER_ERROR, USER),
        "\nRecursionError('maximum recursion depth exceeded') - ERROR(train)\n",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_submission_ends_with_its_reason(bench: Workbench, dataset: Dataset, name: str) -> None:
    """Stage, cause, fault and the legacy text are those of what went wrong."""
    code, expected, text = BROKEN[name]
    failed = fail(bench, dataset, code)
    assert reason(failed) == expected
    assert failed.message.startswith(text)


def test_the_traceback_is_the_submissions_own(bench: Workbench, dataset: Dataset) -> None:
    """From the submission's first frame on, with relative names, line numbers and the library frames below."""
    code = classifier(fit="from sklearn.svm import SVC; SVC().fit([[1]], [1, 2])")
    failed = fail(bench, dataset, code)
    trace = failed.message.partition("ERROR(train)\n")[2]
    lines = trace.splitlines()
    assert lines[0] == "Traceback (most recent call last):"
    assert lines[1] == '  File "classifier.py", line 8, in fit'
    assert any('File "sklearn/' in line for line in lines)
    assert "isolated" not in trace


def test_the_causes_of_an_exception_are_cut_too(bench: Workbench, dataset: Dataset) -> None:
    """An exception raised from another shows both, without a frame of the platform."""
    code = classifier(
        top="def f():\n    try: 1 / 0\n    except Exception as e: raise ValueError('late') from e", fit="f()"
    )
    trace = fail(bench, dataset, code).message
    assert "ZeroDivisionError: division by zero" in trace
    assert trace.count('File "classifier.py"') == 3
    assert "isolated" not in trace


def test_full_train_predictions_survive_a_failing_test(bench: Workbench, dataset: Dataset) -> None:
    """What was predicted before the failure is kept, with the metrics of its stages."""
    failed = fail(bench, dataset, BROKEN["predict raises on the test part"][0])
    assert failed.full_train is not None
    assert failed.full_train.shape == (ROWS, 2)
    assert failed.metrics.validation_time > 0


ENDLESS = {
    "loop": "while True: pass",
    "sleep": "time.sleep(1000)",
    "ignored signals": "[signal.signal(s, signal.SIG_IGN) for s in (15, 2, 1, 24)]; time.sleep(1000)",
    "loop in C": "sum(range(10 ** 18))",
    "deadlock": "lock = threading.Lock(); lock.acquire(); lock.acquire()",
    "swallows everything": "while True:\n            try: time.sleep(1)\n            except BaseException: pass",
    "stopped": "os.kill(os.getpid(), signal.SIGSTOP)",
}


@pytest.mark.parametrize("name", ENDLESS)
def test_an_endless_submission_is_stopped(bench: Workbench, dataset: Dataset, name: str) -> None:
    """The hard limit ends what ignores everything, and says which limit and stage."""
    failed = fail(bench, dataset, classifier(fit="print('begun')\n        " + ENDLESS[name]))
    assert reason(failed) == (Stage.TRAIN, Cause.HARD_TIMEOUT, Fault.LIMIT)
    assert failed.message == "\nhard time limit of 4 s reached - ERROR(train)\n"
    assert failed.log == "begun\n"
    assert failed.metrics.train_time >= 3.5


def test_an_endless_test_part_is_stopped(bench: Workbench, dataset: Dataset) -> None:
    """The limit is on the whole fold, and the stage is the one it was in."""
    code = classifier(predict="return np.ones((len(X), 2)) if self.calls == 1 else time.sleep(1000)")
    failed = fail(bench, dataset, code)
    assert reason(failed) == (Stage.TEST, Cause.HARD_TIMEOUT, Fault.LIMIT)
    assert failed.full_train is not None


MINE = os.getpid()
"""In the names of processes that must not be left: another run of these tests may be under way on the machine."""
DAEMON = """
def daemon(mark):
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            for s in (1, 2, 15): signal.signal(s, signal.SIG_IGN)
            ctypes.CDLL(None).prctl(15, mark, 0, 0, 0)
            print('daemon lives')
            time.sleep(1000)
        os._exit(0)
    time.sleep(0.5)
"""


def named(mark: str) -> list[psutil.Process]:
    """The processes of that name."""
    return [process for process in psutil.process_iter(["name"]) if process.info["name"] == mark]


@pytest.mark.parametrize(("name", "then"), [("good", "pass"), ("bad", "os._exit(1)"), ("late", "time.sleep(99)")])
def test_a_daemon_left_behind_is_gone(bench: Workbench, dataset: Dataset, name: str, then: str) -> None:
    """A process in a session of its own dies with its fold, however that ends."""
    mark = f"{name}{MINE}"
    code = classifier(top=DAEMON, fit=f"daemon(b'{mark}'); {then}")
    begun = time.monotonic()
    outcome = bench.run(dataset, {"classifier.py": code}, range(60))
    assert outcome.log == "daemon lives\n"
    deadline = begun + LIMITS.hard_seconds + LATE_SECONDS
    while named(mark) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not named(mark)


def test_a_flood_of_output_is_bounded(bench: Workbench, dataset: Dataset) -> None:
    """Of 100 MB of output the head and the tail are kept, and the fold is not held up."""
    code = classifier(fit="print('first'); os.write(1, b'x' * 100_000_000); print('last')")
    outcome = bench.run(dataset, {"classifier.py": code}, range(60))
    assert isinstance(outcome, Tested), outcome
    assert outcome.log.startswith("first\nxxx")
    assert outcome.log.endswith("xxxlast\n")
    assert "bytes left out" in outcome.log
    assert len(outcome.log) < 70_000


def test_the_last_byte_before_a_crash_is_kept(bench: Workbench, dataset: Dataset) -> None:
    """Output of Python and of C is there after a SIGKILL, and no byte is taken for text it is not."""
    fit = "print('one', end=''); sys.stderr.write('two'); ctypes.CDLL(None).puts(b'three'); "
    fit += "os.write(1, b'\\xff\\0'); os.kill(os.getpid(), 9)"
    failed = fail(bench, dataset, classifier(fit=fit))
    assert failed.log == "onetwothree\n\N{REPLACEMENT CHARACTER}\N{REPLACEMENT CHARACTER}"


CHANNEL = {
    "garbage": "os.write(3, b'garbage')",
    "a list": "os.write(3, b'[1]')",
    "deep nesting": "os.write(3, b'[' * 100_000)",
    "too much": "s = socket.socket(fileno=3); s.setsockopt(1, 7, 1 << 20); s.send(b'{}' + b' ' * 150_000)",
    "a forged result": 'os.write(3, b\'{"event": "predicted", "shape": [75, 2], "dtype": "<f8"}\')',
    "a number for an exception": 'os.write(3, b\'{"event": "raised", "text": 1}\')',
    "closed": "os.close(3); time.sleep(1000)",
}


@pytest.mark.parametrize("name", CHANNEL)
def test_meddling_with_the_channel_is_a_protocol_error(bench: Workbench, dataset: Dataset, name: str) -> None:
    """What is not the next message ends the fold as against the rules."""
    failed = fail(bench, dataset, classifier(fit=CHANNEL[name]))
    assert reason(failed) == (Stage.TRAIN, Cause.POLICY, USER)
    assert failed.message.startswith("\nprotocol_error: ")


FILE = "sent-by-a-child"


def lying(header: str, *, size: int = 1200, seal: bool = True, count: int = 1) -> str:
    """Lines that send a header of one's own beside memory files of some size."""
    sealing = "fcntl.fcntl(fd, 1033, 15)" if seal else "pass"
    return f"""
def lie():
    import array, fcntl, json
    fd = os.memfd_create('{FILE}', os.MFD_ALLOW_SEALING)
    os.ftruncate(fd, {size}); {sealing}
    fds = array.array('i', [fd] * {count})
    socket.socket(fileno=os.dup(3)).sendmsg([json.dumps(dict({header})).encode()], [(1, 1, fds)])
"""


LIES = {
    "more rows than bytes": lying("event='predicted', dtype='<f8', shape=[75, 3]"),
    "negative lengths": lying("event='predicted', dtype='<f8', shape=[-75, -2]"),
    "another type": lying("event='predicted', dtype='|O8', shape=[75, 2]"),
    "not sealed": lying("event='predicted', dtype='<f8', shape=[75, 2]", seal=False),
    "two files": lying("event='predicted', dtype='<f8', shape=[75, 2]", count=2),
    "sixty files": lying("event='predicted', dtype='<f8', shape=[75, 2]", count=60),
    "many dimensions": lying("event='predicted', dtype='<f8', shape=[1] * 1000"),
}


@pytest.mark.parametrize("name", LIES)
def test_a_lying_header_is_a_protocol_error(bench: Workbench, dataset: Dataset, name: str) -> None:
    """A header is believed only as far as its file bears it out."""
    failed = fail(bench, dataset, classifier(top=LIES[name], predict="lie(); time.sleep(1000)"))
    assert reason(failed) == (Stage.VALIDATION, Cause.POLICY, USER)


def test_a_huge_claim_costs_the_runner_nothing(bench: Workbench, dataset: Dataset) -> None:
    """Ten gigabytes of claimed predictions are refused before memory is taken for them."""
    code = classifier(
        top=lying("event='predicted', dtype='<f8', shape=[75, 20_000_000]"), predict="lie(); time.sleep(99)"
    )
    before = psutil.Process().memory_info().rss
    failed = fail(bench, dataset, code)
    assert reason(failed) == (Stage.VALIDATION, Cause.OUTPUT_SHAPE, Fault.LIMIT)
    assert psutil.Process().memory_info().rss - before < 80 << 20


def test_no_descriptor_of_a_child_stays_open(bench: Workbench, dataset: Dataset) -> None:
    """Files that hostile children send are closed again."""
    code = classifier(top=LIES["sixty files"], predict="lie(); time.sleep(1000)")
    for _ in range(2):
        fail(bench, dataset, code)
    assert [file for file in open_files() if file.startswith(f"/memfd:{FILE} ")] == []


def test_a_memory_bomb_meets_its_limit(bench: Workbench, dataset: Dataset) -> None:
    """Memory that grows without end becomes a MemoryError with the peak."""
    failed = fail(bench, dataset, classifier(fit="blocks = [np.ones(1 << 20) for _ in range(10_000)]"))
    assert reason(failed) == (Stage.TRAIN, Cause.MEMORY, Fault.LIMIT)
    assert "memory limit 768 MiB, peak " in failed.message
    assert 300 < failed.metrics.train_memory < 1100


def test_a_full_disk_is_the_folds_own(bench: Workbench, dataset: Dataset) -> None:
    """Files beyond the limit get ENOSPC, which is a limit and not the submission's error."""
    failed = fail(bench, dataset, classifier(fit="[open(f'f{i}', 'wb').write(bytes(1 << 21)) for i in range(20)]"))
    if "disk_quota" not in bench.sandbox.mechanisms:
        pytest.skip("no file system of its own here")
    assert reason(failed) == (Stage.TRAIN, Cause.DISK, Fault.LIMIT)
    assert "disk limit 16 MiB" in failed.message


def test_a_fork_bomb_stays_in_its_fold(bench: Workbench, dataset: Dataset) -> None:
    """Forking without end hits a limit; nothing of it is left and the neighbours run."""
    fit = f"ctypes.CDLL(None).prctl(15, b'bomb{MINE}', 0, 0, 0)\n        while True: os.fork()"
    failed = fail(bench, dataset, classifier(fit=fit))
    assert failed.stage is Stage.TRAIN
    deadline = time.monotonic() + LATE_SECONDS
    while named(f"bomb{MINE}") and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not named(f"bomb{MINE}")


def test_too_many_files_are_refused_inside(bench: Workbench, dataset: Dataset) -> None:
    """The limit of open files is the fold's own."""
    failed = fail(bench, dataset, classifier(fit="files = [open('/dev/null') for _ in range(1000)]"))
    assert reason(failed) == (Stage.TRAIN, Cause.USER_ERROR, USER)
    assert "Too many open files" in failed.message


LIMIT = Fault.LIMIT
GREEDY = {
    "8 GiB at once": ("np.ones(1 << 30)", Cause.MEMORY, LIMIT),
    "8 GiB of shared memory": ("import mmap; mmap.mmap(-1, 8 << 30)", Cause.MEMORY, LIMIT),
    "a list that grows": ("x = [0]\n        while True: x += x", Cause.MEMORY, LIMIT),
    "memory in every thread": (
        "from concurrent.futures import ThreadPoolExecutor as P; list(P(4).map(np.ones, [1 << 22] * 40))",
        Cause.MEMORY,
        LIMIT,
    ),
    "one large file": ("open('f', 'wb').write(bytes(64 << 20))", Cause.DISK, LIMIT),
    "a file that is mostly hole": ("os.truncate(os.open('f', 65), 1 << 40)", Cause.DISK, LIMIT),
    "a file without end": ("f = open('f', 'wb')\n        while True: f.write(bytes(1 << 16))", Cause.DISK, LIMIT),
    "30,000 files": ("[os.close(os.open(f'f{n}', 65)) for n in range(30_000)]", Cause.DISK, LIMIT),
    "a million open files": ("x = [os.open('/dev/null', 0) for _ in range(1_000_000)]", Cause.USER_ERROR, USER),
    "a million duplicates": ("x = [os.dup(0) for _ in range(1_000_000)]", Cause.USER_ERROR, USER),
    "10,000 threads": (
        "[threading.Thread(target=time.sleep, args=(9,), daemon=True).start() for _ in range(10_000)]",
        Cause.USER_ERROR,
        USER,
    ),
    "10,000 programs": (
        "x = [subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(9)']) for _ in range(10_000)]",
        Cause.USER_ERROR,
        USER,
    ),
    "the stack of C": (
        "f = ctypes.CFUNCTYPE(None)(lambda: f()); sys.setrecursionlimit(10 ** 9); f()",
        Cause.SIGNAL,
        USER,
    ),
}


@pytest.mark.parametrize("name", GREEDY)
def test_what_takes_too_much_meets_its_limit(bench: Workbench, dataset: Dataset, name: str) -> None:
    """It fails inside, or is ended, with the cause that it has, and what it printed before is kept."""
    fit, cause, fault = GREEDY[name]
    if cause is Cause.DISK and "disk_quota" not in bench.sandbox.mechanisms:
        pytest.skip("no file system of its own here")
    failed = fail(bench, dataset, classifier(fit=f"print('begun', flush=True)\n        {fit}"))
    assert reason(failed) == (Stage.TRAIN, cause, fault), failed
    assert failed.log.startswith("begun\n")


def test_predictions_over_the_limit_are_refused(bench: Workbench, dataset: Dataset) -> None:
    """Real ones too, not claims alone."""
    failed = fail(bench, dataset, classifier(predict="return np.ones((len(X), 10_000))"))
    assert reason(failed) == (Stage.VALIDATION, Cause.OUTPUT_SHAPE, LIMIT)
    assert "predictions of 5 MiB exceed the limit of 4 MiB" in failed.message


def test_output_without_end_ends_with_the_fold(bench: Workbench, dataset: Dataset) -> None:
    """Its head is kept, and what came last before the kill."""
    fit = "print('first', flush=True)\n        for n in range(10 ** 9): os.write(1, b'%d\\n' % n)"
    failed = fail(bench, dataset, classifier(fit=fit))
    assert reason(failed) == (Stage.TRAIN, Cause.HARD_TIMEOUT, LIMIT)
    head, _, tail = failed.log.partition("bytes left out ...]\n")
    assert head.startswith("first\n0\n1\n")
    last = [int(line) for line in tail.splitlines()[1:] if line]
    assert last[-1] > 10_000
    assert last == list(range(last[0], last[0] + len(last)))


REACHES = {
    "the zygote": "os.kill(os.getppid(), 9)",
    "the first process": "os.kill(1, 9)",
    "the environment of the first process": "open('/proc/1/environ').read()",
    "the network": "socket.create_connection(('127.0.0.1', 22), 1)",
    "a library": "open(np.__file__, 'a')",
}


@pytest.mark.parametrize("name", REACHES)
def test_what_reaches_for_others_is_refused(bench: Workbench, dataset: Dataset, name: str) -> None:
    """It is an error of the submission's own, which says so."""
    failed = fail(bench, dataset, classifier(fit=REACHES[name]))
    assert reason(failed) == (Stage.TRAIN, Cause.USER_ERROR, USER)
    assert failed.message.startswith(("\nPermissionError", "\nProcessLookupError", "\nOSError(30, "))


def test_a_file_that_is_missing_is_named(bench: Workbench, dataset: Dataset) -> None:
    """A submission without its module ends with the import that failed."""
    outcome = bench.run(dataset, {"other.py": "x = 1"}, range(60))
    assert isinstance(outcome, Failed)
    assert reason(outcome) == (Stage.TRAIN, Cause.USER_ERROR, USER)
    assert outcome.message.startswith("\nModuleNotFoundError(\"No module named 'submission.sub_24.classifier'\")")


def test_a_list_is_as_good_as_an_array(bench: Workbench, dataset: Dataset) -> None:
    """Numbers in lists are predictions."""
    outcome = bench.run(dataset, {"classifier.py": classifier(predict="return [[0.5, 0.5] for _ in X]")}, range(60))
    assert isinstance(outcome, Tested), outcome
    assert outcome.test.shape == (ROWS, 2)


def test_every_library_has_one_thread(bench: Workbench, dataset: Dataset) -> None:
    """Those that are loaded, and by the environment those that a submission loads itself or in its programs."""
    fit = """
        import threadpoolctl, scipy.linalg, sklearn.ensemble
        print(*{(pool['user_api'], pool['num_threads']) for pool in threadpoolctl.threadpool_info()})
        print(*sorted(name for name, value in os.environ.items() if name.endswith('_THREADS') and value == '1'))
        print(len(os.listdir('/proc/self/task')))
        np.ones((500, 500)) @ np.ones((500, 500))
        print(len(os.listdir('/proc/self/task')))"""
    outcome = bench.run(dataset, {"classifier.py": classifier(fit=fit)}, range(60))
    assert isinstance(outcome, Tested), outcome
    pools, names, *threads = outcome.log.splitlines()
    assert {"('blas', 1)", "('openmp', 1)"} == set(pools.replace(") (", ")|(").split("|"))
    assert names.split() == [
        "BLIS_NUM_THREADS",
        "MKL_NUM_THREADS",
        "NUMEXPR_NUM_THREADS",
        "OMP_NUM_THREADS",
        "OPENBLAS_NUM_THREADS",
        "VECLIB_MAXIMUM_THREADS",
    ]
    assert threads == ["1", "1"]


def test_children_are_in_the_metrics(bench: Workbench, dataset: Dataset) -> None:
    """The processor time of those that were waited for and of those that live on."""
    fit = """
        for stay in (0, 100):
            reading, writing = os.pipe()
            if os.fork() == 0:
                while time.process_time() < 0.1: pass
                os.write(writing, b'x')
                time.sleep(stay)
                os._exit(0)
            os.read(reading, 1)
            if not stay: os.wait()"""
    outcome = bench.run(dataset, {"classifier.py": classifier(fit=fit)}, range(60))
    assert isinstance(outcome, Tested), outcome
    assert outcome.metrics.train_cpu_time > 0.18


def test_a_cancelled_fold_ends_at_once(bench: Workbench, dataset: Dataset) -> None:
    """cancel() kills the running fold, and no other."""
    import threading

    request = bench.request(dataset, {"classifier.py": classifier(fit="time.sleep(1000)")}, range(60))
    timer = threading.Timer(0.5, bench.executor.cancel, [request.fold_id, 1])
    timer.start()
    outcome = bench.executor.run(request, on_trained=lambda _: None)
    assert isinstance(outcome, Failed)
    assert outcome.cause is Cause.CANCELLED
    bench.executor.cancel(request.fold_id, 1)


def test_cancelling_an_attempt_leaves_a_later_one_alone(bench: Workbench, dataset: Dataset) -> None:
    """A fold forced anew beside its old attempt runs to its end when that one is killed."""
    import threading

    slow = bench.request(dataset, {"classifier.py": classifier(fit="time.sleep(1000)")}, range(60))
    again = bench.request(dataset, {"classifier.py": classifier(fit="time.sleep(1.5)")}, range(60))
    again = again.model_copy(update={"fold_id": slow.fold_id, "attempt": 2})
    outcomes: dict[int, object] = {}

    def run(request: FoldRequested) -> None:
        outcomes[request.attempt] = bench.executor.run(request, on_trained=lambda _: None)

    threads = [threading.Thread(target=run, args=[request]) for request in (slow, again)]
    for thread in threads:
        thread.start()
    time.sleep(0.7)
    bench.executor.cancel(slow.fold_id, 1)
    for thread in threads:
        thread.join(20)
    assert isinstance(outcomes[1], Failed)
    assert outcomes[1].cause is Cause.CANCELLED
    assert isinstance(outcomes[2], Tested)


def test_a_fold_that_became_unwanted_before_it_had_a_child_never_begins(
    bench: Workbench, dataset: Dataset, tmp_path: Path
) -> None:
    """Nobody could kill it then, so its child is ended before it is sent anything."""
    executor = Executor(
        blobs=bench.blobs, limits=LIMITS, slots=1, work_folder=tmp_path, is_unwanted=lambda request: request.attempt < 2
    )
    request = bench.request(dataset, {"classifier.py": GOOD}, range(60))
    try:
        executor.start()
        unwanted = executor.run(request, on_trained=lambda _: None)
        wanted = executor.run(request.model_copy(update={"attempt": 2}), on_trained=lambda _: None)
    finally:
        executor.close()
    assert isinstance(unwanted, Failed)
    assert (unwanted.cause, unwanted.log) == (Cause.CANCELLED, "")
    assert isinstance(wanted, Tested)


def test_what_on_trained_raises_is_raised(bench: Workbench, dataset: Dataset) -> None:
    """An announcement that fails is not lost in its thread."""

    def refuse(_: object) -> None:
        raise ConnectionError("no broker")

    with pytest.raises(ConnectionError, match="no broker"):
        bench.run(dataset, {"classifier.py": GOOD}, range(60), on_trained=refuse)
