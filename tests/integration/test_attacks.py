"""Each sandbox level holds what it announces, against submissions that attack; ordinary ones do not notice it."""

from __future__ import annotations

import os
import platform
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest

import datarun
from datarun.events import Cause, Dataset
from services.runner.execution import Failed, Limits, SandboxRefused, Tested
from services.runner.execution.sandboxes import FIRST_UID, Plan, at_least, strongest_first
from tests.integration.attacks import ACCOUNTED, ATTACKS
from tests.integration.execution_workbench import GOOD, Workbench, workbench

LIMITS = Limits(hard_seconds=30, memory_mib=1024, disk_mib=32, output_mib=32, processes=64)
PLANS = {
    "accounted": list(at_least(ACCOUNTED)),
    "own users": [Plan("root", FIRST_UID)],
    "as a user": [Plan("user", None)],
    "filters alone": [Plan("", None)],
    "limits alone": [Plan("", None, filtered=False)],
}
ROWS = 60


@pytest.fixture(scope="module", params=PLANS)
def bench(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workbench]:
    """An executor under each plan that works here."""
    try:
        with workbench(tmp_path_factory.mktemp("attacks"), LIMITS, plans=PLANS[request.param]) as bench:
            yield bench
    except SandboxRefused as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def dataset(bench: Workbench) -> Dataset:
    """A table of ten features and two classes, split in halves."""
    values = np.random.RandomState(0).rand(2 * ROWS, 10).round(6)
    lines = [",".join(map(str, [*row, int(row[0] > 0.5)])) for row in values]
    header = ",".join([*"abcdefghij", "target"])
    raw = "\n".join([header, *lines, ""]).encode()
    return bench.split(bench.dataset({"raw.csv": raw}, "classifier"), held_out=0.5)


@pytest.fixture(scope="module")
def targets(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, object]]:
    """What there is to attack: files, servers, processes."""
    folder = tmp_path_factory.mktemp("targets")
    for name in ("connection.json", "blob", "victim"):
        (folder / name).write_text("secret")
    abstract = f"\0datarun-{os.getpid()}"
    with ExitStack() as stack:
        tcp = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        for address in (str(folder / "unix"), abstract):
            server = stack.enter_context(socket.socket(socket.AF_UNIX))
            server.bind(address)
            server.listen()
        datagrams = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM))
        datagrams.bind(str(folder / "datagrams"))
        yield {
            "runner": os.getpid(),
            "folder": str(folder),
            "connection": str(folder / "connection.json"),
            "blob": str(folder / "blob"),
            "victim": str(folder / "victim"),
            "code": datarun.__file__,
            "tcp": tcp.getsockname()[1],
            "unix": str(folder / "unix"),
            "abstract": abstract,
            "datagrams": str(folder / "datagrams"),
        }
        assert (folder / "victim").read_text() == "secret"


def test_the_level_is_that_of_the_plan(bench: Workbench) -> None:
    """With Landlock and seccomp it is filtered; with namespaces as well isolated, with a group as well accounted."""
    mechanisms = bench.sandbox.mechanisms
    is_filtered = "seccomp" in mechanisms
    assert any(mechanism.startswith("landlock_abi_") for mechanism in mechanisms) == is_filtered
    assert bench.sandbox.level == 1 + is_filtered + ("own_root" in mechanisms) + ("group_memory" in mechanisms)


def test_at_least_forty_attacks_are_held(bench: Workbench) -> None:
    """So many are announced to be held at each level, and more at a higher one."""
    announced = [attack for attack in ATTACKS.values() if attack.level <= bench.sandbox.level]
    assert len(announced) >= 40
    assert (len(announced) == len(ATTACKS)) == (bench.sandbox.level == ACCOUNTED)


@pytest.mark.parametrize("name", ATTACKS)
def test_an_attack_is_held(bench: Workbench, dataset: Dataset, targets: dict[str, object], name: str) -> None:
    """Where the level announces it, the attack gets nothing; everywhere the next fold runs."""
    attack = ATTACKS[name]
    if attack.level > bench.sandbox.level:
        pytest.skip("not announced at this level")
    if attack.needs and attack.needs not in (*bench.sandbox.mechanisms, platform.machine()):
        pytest.skip(f"needs {attack.needs}")
    outcome = bench.run(dataset, {"classifier.py": attack.code(targets)}, range(ROWS // 2))
    if attack.starves:
        assert isinstance(outcome, Failed), outcome
        assert outcome.cause is Cause.MEMORY
    elif attack.kills:
        assert isinstance(outcome, Failed)
        assert (outcome.cause, "SIGSYS" in outcome.message) == (Cause.SIGNAL, True)
    else:
        assert isinstance(outcome, Tested), outcome
        assert outcome.log.splitlines()[-1].startswith("held"), outcome.log
    assert isinstance(bench.run(dataset, {"classifier.py": GOOD}, range(ROWS // 2)), Tested)


def test_signals_to_everybody_reach_nobody_else(bench: Workbench, dataset: Dataset) -> None:
    """A submission that kills whatever it can leaves the zygote and the waiting children alone."""
    if "pid_namespace" not in bench.sandbox.mechanisms:
        pytest.skip("only where nothing but the fold can be hit")
    code = GOOD.replace("def fit(self, X, y):", "def fit(self, X, y):\n            import os; self.kill(os)")
    code += (
        "\n        def kill(self, os):\n            try: os.kill(-1, 9)\n            except OSError: print('held')\n"
    )
    for _ in range(3):
        assert isinstance(bench.run(dataset, {"classifier.py": code}, range(ROWS // 2)), Tested)


WORKLOADS = {
    "a forest in two jobs": "RandomForestClassifier(20, n_jobs=2)",
    "gradient boosting": "HistGradientBoostingClassifier(max_iter=10)",
    "nearest neighbours in two jobs": "KNeighborsClassifier(n_jobs=2)",
    "a support vector machine": "SVC(probability=True)",
    "a grid search in two jobs": "GridSearchCV(LogisticRegression(), {'C': [0.1, 1]}, n_jobs=2, cv=3)",
    "components first": "make_pipeline(TruncatedSVD(3), LogisticRegression())",
    "clusters first": "make_pipeline(KMeans(4, n_init=2), LogisticRegression())",
    "a network": "MLPClassifier(max_iter=20)",
}
WORKLOAD = """
import os, subprocess, sys, tempfile, threading, warnings
from pathlib import Path
import numpy as np, pandas as pd
from sklearn.cluster import KMeans
from sklearn.decomposition import TruncatedSVD
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.neighbors import KNeighborsClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.svm import SVC
warnings.simplefilter("ignore")

class Classifier:
    def fit(self, X, y):
        {first}
        self.model = {model}.fit(X, y)
    def predict_proba(self, X):
        return self.model.predict_proba(X)
"""
HABITS = {
    "a side file": "assert len(pd.read_csv(Path(__file__).with_name('side.csv'))) == 2",
    "temporary files": "f = tempfile.NamedTemporaryFile(); f.write(b'x'); tempfile.mkdtemp()",
    "saved arrays": "np.save('a.npy', X); assert (np.load('a.npy', mmap_mode='r') == X).all(); os.rename('a.npy', 'b')",
    "a program": "assert subprocess.run([sys.executable, '-c', 'import numpy; print(7)'], stdout=-1).stdout == b'7\\n'",
    "threads": "t = threading.Thread(target=np.ones, args=(9,)); t.start(); t.join()",
    "the processors": "import joblib; assert joblib.cpu_count() >= 1 and os.cpu_count() >= 1",
    "output to nowhere": "open(os.devnull, 'w').write('x'); np.random.default_rng(); os.urandom(4)",
}


@pytest.mark.parametrize("name", [*WORKLOADS, *HABITS])
def test_ordinary_work_goes_on(bench: Workbench, dataset: Dataset, name: str) -> None:
    """What submissions usually do is not hindered at any level."""
    model, first = WORKLOADS.get(name, "LogisticRegression()"), HABITS.get(name, "pass")
    files: dict[str, str | bytes] = {
        "classifier.py": WORKLOAD.format(model=model, first=first),
        "side.csv": "a,b\n1,2\n3,4\n",
    }
    outcome = bench.run(dataset, files, range(ROWS))
    assert isinstance(outcome, Tested), outcome


def test_the_strongest_comes_first() -> None:
    """Plans are tried from the highest level down, so that none is passed over."""
    levels = [plan.level for plan in strongest_first()]
    assert levels == sorted(levels, reverse=True)
    assert levels[0] == ACCOUNTED


def test_a_mechanism_that_fails_is_no_level(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A plan of which one attempt is not refused is not used, and there is no other."""
    from services.runner.execution import proofs

    monkeypatch.setattr(proofs, "_BY_SECCOMP", {"socket", "something the filter lets pass"})
    with (
        pytest.raises(SandboxRefused, match="not in force: seccomp"),
        workbench(tmp_path, LIMITS, plans=[Plan("", None)]),
    ):
        pass
