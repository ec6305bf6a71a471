"""Packages asked for by the command, on a real Kafka and runners in processes of their own."""

from __future__ import annotations

import base64
import hashlib
import itertools
import os
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import numpy as np
import pytest

from datarun import envelope
from datarun.blobs import LocalBlobs
from datarun.events import (
    Cause,
    Dataset,
    Event,
    Fault,
    FoldFailed,
    FoldReproduced,
    FoldRequested,
    FoldTested,
    NamedBlob,
    PackageFailed,
    PackageInstalled,
    PackageRequested,
    Priority,
    RunnerHeartbeat,
    Split,
)
from datarun.log.admin import create_topics
from datarun.log.kafka import KafkaLog
from datarun.topics import ENVIRONMENTS, FOLD_EVENTS, RUNNER_STATUS, Catalogue, Topic

WAIT_SECONDS = 60
E = TypeVar("E", bound=Event)
CONTEXT = envelope.Context(source="test", time=envelope.now())
CLASSIFIER = """
import {module}
import numpy as np

class Classifier:
    def fit(self, X, y):
        print("version", getattr({module}, "VERSION", "none"))

    def predict_proba(self, X):
        return np.full((len(X), 2), 0.5)
"""


def wheel(index: Path, name: str, version: str, files: dict[str, str]) -> None:
    """Put a pure wheel of these files into a folder."""
    metadata = f"{name}-{version}.dist-info"
    contents = files | {
        f"{metadata}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        f"{metadata}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = [f"{path},{_record_hash(text)},{len(text.encode())}" for path, text in contents.items()]
    with zipfile.ZipFile(index / f"{name}-{version}-py3-none-any.whl", "w") as archive:
        for path, text in contents.items():
            archive.writestr(path, text)
        archive.writestr(f"{metadata}/RECORD", "\n".join([*record, f"{metadata}/RECORD,,"]) + "\n")


def _record_hash(text: str) -> str:
    digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=")
    return f"sha256={digest.decode()}"


class System:
    """A log, blobs, an index of wheels in a folder, and runners."""

    def __init__(self, bootstrap: str, prefix: str, folder: Path) -> None:
        self.bootstrap, self.prefix, self.folder = bootstrap, prefix, folder
        self.index = folder / "index"
        self.index.mkdir()
        (folder / "blobs").mkdir()
        self.blobs = LocalBlobs(folder / "blobs")
        self.catalogue = Catalogue(prefix)
        create_topics(bootstrap, prefix=prefix)
        self.log = KafkaLog(bootstrap)
        self._ids = itertools.count(1)

    @contextmanager
    def runner(
        self, *, name: str = "one", index: Path | None = None, crash_at: str = ""
    ) -> Iterator[subprocess.Popen[bytes]]:
        """Run a runner with a folder of its own name; at the end it is killed as by pulling its plug."""
        argv = [sys.executable, "-m", "services.runner", *self._how(name, index or self.index), *self._where()]
        environment = os.environ | {"DATARUN_CRASH_AT": crash_at}
        with (
            (self.folder / f"{name}.log").open("ab") as log,
            subprocess.Popen(argv, stdout=log, stderr=log, env=environment) as process,
        ):
            try:
                yield process
            finally:
                process.send_signal(signal.SIGKILL)

    def command(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run `datarun runner` with these arguments."""
        argv = [sys.executable, "-m", "datarun.cli", "runner", *arguments, *self._where()]
        return subprocess.run(argv, capture_output=True, text=True, timeout=WAIT_SECONDS * 2, check=False)

    def verify(self, fold_id: int) -> subprocess.CompletedProcess[str]:
        """Run `datarun verify` for a fold."""
        options = [*self._how("one", self.index), *self._where()]
        argv = [sys.executable, "-m", "datarun.cli", "verify", str(fold_id), *options]
        return subprocess.run(argv, capture_output=True, text=True, timeout=WAIT_SECONDS * 2, check=False)

    def _how(self, name: str, index: Path) -> list[str]:
        options = ["--dir", str(self.folder / name), "--blobs", (self.folder / "blobs").as_uri(), "--slots", "2"]
        return [*options, "--package-index", str(index), "--sandbox-min", "2"]

    def _where(self) -> list[str]:
        return ["--kafka", self.bootstrap, "--topic-prefix", self.prefix]

    def fold(self, module: str, *, raw_data_id: int = 1, code: str = "") -> FoldTested | FoldFailed:
        """Run a fold whose submission imports a module, and runs some more code, and return its end."""
        request = self.request(module, raw_data_id=raw_data_id, code=code)
        for event in self._tail(FOLD_EVENTS):
            if isinstance(event, FoldTested | FoldFailed) and event.fold_id == request.fold_id:
                return event
        pytest.fail(f"fold {request.fold_id} has no end after {WAIT_SECONDS} s")

    def request(self, module: str, *, raw_data_id: int = 1, code: str = "") -> FoldRequested:
        """Ask for a fold whose submission imports a module."""
        request = self._request(CLASSIFIER.format(module=module) + code, raw_data_id)
        self.append(request)
        return request

    def append(self, event: Event) -> None:
        """Append an event, as any producer may."""
        self.log.append(envelope.encode(event, catalogue=self.catalogue, context=CONTEXT)).result(20)

    def events(self, topic: Topic) -> list[Event]:
        """Return all that a topic holds."""
        ends = self.log.end_offsets([self.catalogue.full_name(topic)])
        batches = self.log.read(dict.fromkeys(ends, 0), until_end=True)
        return [envelope.decode(record.value, record.headers) for batch in batches for record in batch]

    def _tail(self, topic: Topic) -> Iterator[Event]:
        deadline = time.monotonic() + WAIT_SECONDS
        ends = self.log.end_offsets([self.catalogue.full_name(topic)])
        for batch in self.log.read(dict.fromkeys(ends, 0)):
            yield from (envelope.decode(record.value, record.headers) for record in batch)
            if time.monotonic() > deadline:
                return

    def wait_for(self, topic: Topic, kind: type[E], wanted: Callable[[E], bool] = lambda _: True) -> E:
        """Return the first event of a kind that is wanted."""
        for event in self._tail(topic):
            if isinstance(event, kind) and wanted(event):
                return event
        pytest.fail(f"no such {kind.__name__} after {WAIT_SECONDS} s")

    def _request(self, code: str, raw_data_id: int) -> FoldRequested:
        table = "a,target\n" + "".join(f"{number},{number % 2}\n" for number in range(20))
        part = self.blobs.put(table.encode())
        dataset = Dataset(
            raw_data_id=raw_data_id,
            name="data",
            target_column="target",
            workflow_elements="classifier",
            files=(),
            split=Split(kind="standard", task_id="task", train=part, test=part),
        )
        return FoldRequested(
            fold_id=next(self._ids),
            attempt=1,
            submission_id=24,
            priority=Priority.HIGH,
            dataset=dataset,
            files=(NamedBlob(name="classifier.py", blob=self.blobs.put(code.encode())),),
            train_is=self.blobs.put(np.arange(20, dtype="<i8").tobytes()),
            test_is=self.blobs.put(b""),
            task_id="task",
            requested_by="tester",
        )


@pytest.fixture(scope="module")
def system(kafka: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """One system with one runner for the tests of this module; each test has packages of its own."""
    system = System(kafka, f"t{os.urandom(4).hex()}.", tmp_path_factory.mktemp("environments"))
    with system.runner():
        system.wait_for(RUNNER_STATUS, RunnerHeartbeat)
        yield system
    system.log.close()


def assert_lacks(outcome: FoldTested | FoldFailed, module: str) -> None:
    """The fold failed by the submission's import."""
    assert isinstance(outcome, FoldFailed), outcome.log
    assert (outcome.cause, outcome.fault) == (Cause.USER_ERROR, Fault.USER)
    assert f"No module named '{module}'" in outcome.message


def assert_has(outcome: FoldTested | FoldFailed, version: str = "1.0") -> None:
    """The fold ran with the package of this version."""
    assert isinstance(outcome, FoldTested), outcome.message
    assert f"version {version}" in outcome.log


def test_a_package_is_there_at_the_next_fold(system: System) -> None:
    """Before the command a submission cannot import it, after it it can, by the same runner process."""
    wheel(system.index, "greeting", "1.0", {"greeting/__init__.py": "VERSION = '1.0'\n"})
    before = system.fold("greeting")
    assert_lacks(before, "greeting")
    done = system.command("install", "greeting")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "installed in" in done.stdout
    assert "greeting==1.0" in done.stdout
    after = system.fold("greeting")
    assert_has(after)
    assert after.runner_id == before.runner_id
    listed = system.command("packages")
    assert "  greeting, asked for by" in listed.stdout
    assert f"    {after.runner_id}: installed in" in listed.stdout
    beats = [event for event in system.events(RUNNER_STATUS) if isinstance(event, RunnerHeartbeat)]
    assert any("environment" in beat.versions for beat in beats)


def test_another_dataset_lacks_it(system: System) -> None:
    """A package of one dataset is not importable by folds of another; the default's packages are in both."""
    wheel(system.index, "common", "1.0", {"common.py": "VERSION = '1.0'\n"})
    wheel(system.index, "special", "1.0", {"special.py": "VERSION = '1.0'\n"})
    assert system.command("install", "common").returncode == 0
    done = system.command("install", "special>=1", "--dataset", "7")
    assert done.returncode == 0, done.stdout + done.stderr
    assert_has(system.fold("special", raw_data_id=7))
    assert_has(system.fold("common", raw_data_id=7))
    assert_lacks(system.fold("special", raw_data_id=1), "special")
    assert_has(system.fold("common", raw_data_id=1))


def test_what_fails_is_told_and_what_was_there_stays(system: System) -> None:
    """An unknown package, one that cannot be imported and one that would change the runner's own: exit code 1 each."""
    wheel(system.index, "steady", "1.0", {"steady.py": "VERSION = '1.0'\n"})
    wheel(system.index, "broken", "1.0", {"broken.py": "raise ValueError('not today')\n"})
    assert system.command("install", "steady", "--dataset", "8").returncode == 0
    for requirement, reason in [
        ("no-such-package", "not found"),
        ("broken", "not today"),
        ("numpy<2", "numpy"),
    ]:
        done = system.command("install", requirement, "--dataset", "8")
        assert done.returncode == 1, done.stdout + done.stderr
        assert "FAILED" in done.stdout
        assert reason in done.stdout
    assert_has(system.fold("steady", raw_data_id=8))
    wheel(system.index, "later", "1.0", {"later.py": "VERSION = '1.0'\n"})
    done = system.command("install", "later", "--dataset", "8")
    assert done.returncode == 0, done.stdout + done.stderr
    assert_has(system.fold("later", raw_data_id=8))


def test_the_command_refuses_what_is_no_package(system: System) -> None:
    """Nothing is appended for an option, an address or a path."""
    before = len(system.events(ENVIRONMENTS))
    for text in ("-rfile", "git+https://example.org/x", "x @ file:///etc", "../x", "x --index-url=y"):
        done = system.command("install", "--", text)
        assert done.returncode in (1, 2), done.stdout + done.stderr
    assert len(system.events(ENVIRONMENTS)) == before


def test_the_runner_refuses_it_again(system: System) -> None:
    """A request that another producer wrote past the command's checks is refused by its reason."""
    asked = PackageRequested(
        environment="9", request_id="foreign", requirement="x @ file:///tmp/x.whl", requested_by="somebody"
    )
    system.append(asked)
    failed = system.wait_for(ENVIRONMENTS, PackageFailed, lambda event: event.request_id == "foreign")
    assert "names an address" in failed.reason


def test_a_package_runs_nothing_outside_the_jail(system: System) -> None:
    """Code that a wheel has run at every start of Python is run where it can reach nothing."""
    trace = system.folder / "trace"
    trace.mkdir()
    trace.chmod(0o777)
    line = f"import sys; sys.sneaked = True; open({str(trace / 'left')!r}, 'w').close()\n"
    module = "import sys\nVERSION = '1.0' if sys.sneaked else 'none'\n"
    wheel(system.index, "sneaky", "1.0", {"sneaky.py": module, "sneaky.pth": line})
    assert system.command("install", "sneaky", "--dataset", "10").returncode == 0
    assert_has(system.fold("sneaky", raw_data_id=10))
    assert list(trace.iterdir()) == []


def test_packages_of_another_dataset_cannot_be_read(system: System) -> None:
    """A submission that knows where another dataset's packages are opens nothing there, and lists no environment."""
    wheel(system.index, "private", "1.0", {"private.py": "VERSION = '1.0'\n"})
    assert system.command("install", "private", "--dataset", "11").returncode == 0
    folder = system.folder / "one" / "runner" / "environments"
    (packages,) = [path.parent for path in folder.glob("*/packages/private.py")]
    code = f"""
import pathlib
for attempt in (lambda: os.listdir({str(folder)!r}), pathlib.Path({str(packages / "private.py")!r}).read_bytes):
    try:
        print("REACHED", attempt())
    except OSError as error:
        print("refused by", type(error).__name__)
"""
    outcome = system.fold("os", code=code)
    assert outcome.log.count("refused by PermissionError") == 2, outcome.log


def test_a_later_runner_has_it_from_the_log(kafka: str, tmp_path: Path) -> None:
    """One that comes back finds its folder without the index; a new one builds the same versions, not newer ones."""
    system = System(kafka, f"t{os.urandom(4).hex()}.", tmp_path)
    wheel(system.index, "lasting", "1.0", {"lasting.py": "VERSION = '1.0'\n"})
    (tmp_path / "empty").mkdir()
    assert system.command("install", "lasting", "--no-wait").returncode == 0
    with system.runner():
        assert_has(system.fold("lasting"))
    wheel(system.index, "lasting", "2.0", {"lasting.py": "VERSION = '2.0'\n"})
    with system.runner(index=tmp_path / "empty"):
        assert_has(system.fold("lasting"))
    with system.runner(name="two"):
        assert_has(system.fold("lasting"))
        assert system.command("install", "lasting").returncode == 0
        assert_has(system.fold("lasting"), "2.0")
    system.log.close()


def test_provenance_tells_an_environment_and_verify_has_it_too(system: System) -> None:
    """A dataset's packages make another environment; a fold that needs them runs again with the same."""
    wheel(system.index, "exact", "1.0", {"exact.py": "VERSION = '1.0'\n"})
    assert system.command("install", "exact", "--dataset", "13").returncode == 0
    fold, other = system.fold("exact", raw_data_id=13), system.fold("math", raw_data_id=14)
    assert isinstance(fold, FoldTested)
    assert isinstance(other, FoldTested)
    assert fold.provenance is not None
    assert other.provenance is not None
    assert fold.provenance.environment != other.provenance.environment
    done = system.verify(fold.fold_id)
    assert done.returncode == 0, done.stdout + done.stderr
    (again,) = [event for event in system.events(FOLD_EVENTS) if isinstance(event, FoldReproduced)]
    assert (again.reproduced, again.differing) == (True, ())


def test_a_runner_without_the_package_blames_no_submission(kafka: str, tmp_path: Path) -> None:
    """Where others installed it and this one cannot, a fold that misses it has no end here; other folds have."""
    system = System(kafka, f"t{os.urandom(4).hex()}.", tmp_path)
    wheel(system.index, "rare", "1.0", {"rare.py": "VERSION = '1.0'\n"})
    assert system.command("install", "rare", "--no-wait").returncode == 0
    with system.runner():
        system.wait_for(ENVIRONMENTS, PackageInstalled)
    (tmp_path / "empty").mkdir()
    with system.runner(name="two", index=tmp_path / "empty"):
        system.wait_for(ENVIRONMENTS, PackageFailed)
        missing = system.request("rare")
        assert isinstance(system.fold("math"), FoldTested)
        deadline = time.monotonic() + WAIT_SECONDS
        while "could not be installed on this one" not in (tmp_path / "two.log").read_text():
            assert time.monotonic() < deadline
            time.sleep(0.05)
        ended = [event for event in system.events(FOLD_EVENTS) if isinstance(event, FoldTested | FoldFailed)]
        assert missing.fold_id not in {event.fold_id for event in ended}
    system.log.close()


def test_runners_of_a_host_share_what_one_of_them_built(system: System) -> None:
    """Both answer, both from the one folder, and the command waits for both."""
    wheel(system.index, "shared", "1.0", {"shared.py": "VERSION = '1.0'\n"})
    beats = {event.runner_id for event in system.events(RUNNER_STATUS) if isinstance(event, RunnerHeartbeat)}
    with system.runner():
        system.wait_for(RUNNER_STATUS, RunnerHeartbeat, lambda event: event.runner_id not in beats)
        done = system.command("install", "shared", "--dataset", "12")
        assert done.returncode == 0, done.stdout + done.stderr
        assert done.stdout.count("installed in") == 2, done.stdout
    folders = list((system.folder / "one" / "runner" / "environments").glob("*/packages/shared.py"))
    assert len(folders) == 1


@pytest.mark.parametrize("point", ["before_environment", "after_environment", "environment_in_force"])
def test_a_runner_killed_while_it_builds_leaves_nothing_half_done(kafka: str, tmp_path: Path, point: str) -> None:
    """The next one, on the same folder, builds what is not complete, and its folds have the package."""
    system = System(kafka, f"t{os.urandom(4).hex()}.", tmp_path)
    wheel(system.index, "whole", "1.0", {"whole.py": "VERSION = '1.0'\n"})
    system.append(
        PackageRequested(environment="default", request_id="one", requirement="whole", requested_by="somebody")
    )
    with system.runner(crash_at=f"runner.{point}") as doomed:
        assert doomed.wait(WAIT_SECONDS) == -signal.SIGKILL
    with system.runner():
        assert_has(system.fold("whole"))
    assert not list((tmp_path / "one" / "runner" / "environments").glob(".building-*"))
    system.log.close()
