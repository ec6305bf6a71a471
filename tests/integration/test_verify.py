"""`datarun verify` on a real log: a real runner tests folds, then they are run again and compared bit for bit."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from sklearn.datasets import load_iris

from datarun.envelope import decode, encode
from datarun.events import Blob, Event, FoldFailed, FoldReproduced, FoldRequested, FoldTested
from datarun.log import StoredRecord
from datarun.log.admin import create_topics
from datarun.log.kafka import KafkaLog
from datarun.topics import FOLD_EVENTS, Catalogue
from services.runner.execution import Limits
from tests.histories import CONTEXT
from tests.integration.execution_workbench import Workbench, workbench

WAIT_SECONDS = 120
SUBMISSION = """
    import time, os
    import numpy as np
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.linear_model import LogisticRegression

    class Classifier:
        def fit(self, X, y):
            self.model = {model}.fit(X, y)

        def predict_proba(self, X):
            return self.model.predict_proba(X)
"""
LOGISTIC = SUBMISSION.format(model="LogisticRegression(max_iter=500)")
FOREST = SUBMISSION.format(model="RandomForestClassifier(20, random_state=1)")
UNSEEDED = SUBMISSION.format(
    model="RandomForestClassifier(20, random_state=int.from_bytes(os.urandom(4), 'big') ^ time.time_ns() % 2**32)"
)
BROKEN = SUBMISSION.format(model="nothing")
PRIVATE = "known-to-this-machine-alone"
LABEL = "versicolor"


@dataclass
class Installation:
    """One prefix on the broker and one blob folder, with whatever programs a test runs there."""

    kafka: str
    folder: Path
    log: KafkaLog
    bench: Workbench
    catalogue: Catalogue
    requests: dict[int, FoldRequested] = field(default_factory=dict)

    def program(self, module: str, *arguments: str) -> subprocess.Popen[str]:
        """Start one of the services with this installation's settings and a secret in its environment."""
        command = [sys.executable, "-m", module, *arguments, "--kafka", self.kafka, "--blobs"]
        command += [str(self.folder / "blobs"), "--topic-prefix", self.catalogue.prefix]
        command += ["--dir", str(self.folder / "dir"), "--sandbox-min", "1", "--hard-limit", "60"]
        environment = os.environ | {"DATARUN_TEST_SECRET": PRIVATE}
        pipe = subprocess.PIPE
        return subprocess.Popen(command, env=environment, stdout=pipe, stderr=subprocess.STDOUT, text=True)

    def verify(self, *arguments: str) -> tuple[int, str]:
        """Run `datarun verify` and return its exit code and what it printed."""
        process = self.program("services.runner.verify", *arguments)
        output, _ = process.communicate(timeout=WAIT_SECONDS)
        return process.returncode, output

    def append(self, *events: Event) -> None:
        """Append events to the log."""
        for event in events:
            self.log.append(encode(event, catalogue=self.catalogue, context=CONTEXT)).result(30)

    def request(self, fold_id: int, code: str) -> FoldRequested:
        """Return a request for a fold of the iris, as the gateway would append it."""
        if not self.requests:
            iris = load_iris(as_frame=True)
            frame = iris.frame.assign(target=iris.target_names[iris.target])
            dataset = self.bench.dataset({"iris.csv": frame.to_csv(index=False)}, "classifier")
            self.dataset = self.bench.split(dataset, held_out=0.3)
        rows = np.random.RandomState(fold_id).permutation(105)[:80]
        request = self.bench.request(self.dataset, {"classifier.py": code}, rows)
        self.requests[fold_id] = request.model_copy(update={"fold_id": fold_id, "submission_id": fold_id % 10})
        return self.requests[fold_id]

    def events(self, *kinds: type[Event]) -> list[tuple[Event, StoredRecord]]:
        """Return the fold events of some kinds."""
        ends = self.log.end_offsets([self.catalogue.full_name(FOLD_EVENTS)])
        records = [record for batch in self.log.read(dict.fromkeys(ends, 0), until_end=True) for record in batch]
        decoded = [(decode(record.value, record.headers), record) for record in records]
        return [pair for pair in decoded if isinstance(pair[0], kinds)]

    def tested(self, fold_id: int) -> FoldTested:
        """Return a fold's result."""
        (event,) = [event for event, _ in self.events(FoldTested) if event.key == str(fold_id)]
        assert isinstance(event, FoldTested)
        return event

    def reproduced(self, fold_id: int) -> list[FoldReproduced]:
        """Return what was found when a fold was run again."""
        found = [event for event, _ in self.events(FoldReproduced)]
        return [event for event in found if isinstance(event, FoldReproduced) and event.fold_id == fold_id]

    def newest(self, fold_id: int) -> FoldReproduced:
        """Return what was found last: tests come in any order and verify the same folds."""
        return self.reproduced(fold_id)[-1]

    @contextmanager
    def runner(self) -> Iterator[None]:
        """Have a real runner while the block runs."""
        process = self.program("services.runner", "--slots", "2")
        try:
            yield
        finally:
            process.send_signal(signal.SIGTERM)
            output, _ = process.communicate(timeout=30)
            assert process.returncode == 0, output


@pytest.fixture(scope="module")
def installation(kafka: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """An installation in which a runner has tested three folds and failed one; nobody runs there any more.

    Folds 11 and 12 can be reproduced, fold 23 draws random numbers, fold 14 failed, fold 15 waits. Folds 36 and 37 say
    that they were tested elsewhere, fold 38 before there was any provenance; a file of fold 39 was lost.
    """
    folder, catalogue = tmp_path_factory.mktemp("verify"), Catalogue(f"t{uuid.uuid4().hex[:8]}.")
    create_topics(kafka, prefix=catalogue.prefix)
    log = KafkaLog(kafka)
    with workbench(folder, Limits(hard_seconds=60), slots=1) as bench:
        made = Installation(kafka, folder, log, bench, catalogue)
        for fold_id, code in {11: LOGISTIC, 12: FOREST, 23: UNSEEDED, 14: BROKEN}.items():
            made.append(made.request(fold_id, code))
        with made.runner():
            deadline = time.monotonic() + WAIT_SECONDS
            while len(made.events(FoldTested, FoldFailed)) < 4:
                assert time.monotonic() < deadline, "the folds were not run"
                time.sleep(0.2)
        made.append(made.request(15, LOGISTIC))
        _say_they_were_tested(made)
        yield made
    log.close()


def _say_they_were_tested(made: Installation) -> None:
    """Append results for folds that are fold 11 once more, each altered in its own way."""
    tested = made.tested(11)
    provenance = tested.provenance
    assert provenance is not None
    altered = {
        36: provenance.model_copy(update={"environment": "0" * 64}),
        37: provenance.model_copy(update={"threads": 2, "blas": ("openblas 0.3.1 Haswell pthreads x.so",)}),
        38: None,
        39: provenance,
    }
    for fold_id, recorded in altered.items():
        request = made.requests[11].model_copy(update={"fold_id": fold_id, "submission_id": 6})
        if fold_id == 39:
            lost = Blob(sha256="f" * 64, size=7)
            request = request.model_copy(
                update={"files": tuple(file.model_copy(update={"blob": lost}) for file in request.files)}
            )
        result = tested.model_copy(update={"fold_id": fold_id, "submission_id": 6, "provenance": recorded})
        made.append(request, result)


def test_seeded_folds_are_reproduced_bit_for_bit(installation: Installation) -> None:
    """A logistic regression and a seeded forest give every bit again, of the same provenance, and the log keeps it."""
    code, output = installation.verify("11", "12")
    assert code == 0, output
    assert "fold 11  submission 1  reproduced\n" in output
    assert "2 reproduced, 0 different, 0 not verified" in output
    event = installation.newest(12)
    tested = installation.tested(12)
    assert (event.reproduced, event.differing, event.cause) == (True, (), None)
    assert event.provenance == tested.provenance
    assert (event.attempt, event.delivery, event.tested_by) == (tested.attempt, tested.delivery, tested.runner_id)
    assert event.runner_id != tested.runner_id


def test_random_predictions_are_named_and_the_provenance_is_equal(installation: Installation) -> None:
    """Who draws from the system's entropy and the clock gets other bits from the very same provenance."""
    code, output = installation.verify("--submission", "3")
    assert code == 1, output
    assert "DIFFERENT: full_train_predictions, test_predictions; the provenance is the same" in output
    event = installation.newest(23)
    assert (event.reproduced, event.differing) == (False, ("full_train_predictions", "test_predictions"))
    assert event.provenance == installation.tested(23).provenance


@pytest.mark.parametrize(
    ("fold_id", "differing"), [(36, ("environment",)), (37, ("threads", "blas"))], ids=["package", "threads"]
)
def test_what_differs_from_the_recorded_provenance_is_named(
    installation: Installation, fold_id: int, differing: tuple[str, ...]
) -> None:
    """A result recorded under other packages or threads says so, with both values, even when the bits are equal."""
    code, output = installation.verify(str(fold_id))
    assert code == 0, output
    assert f"reproduced; of its provenance differ: {', '.join(differing)}" in output
    assert {36: f"    environment: {'0' * 64} then, ", 37: "    threads: 2 then, 1 now"}[fold_id] in output
    event = installation.newest(fold_id)
    assert (event.reproduced, event.differing) == (True, differing)


def test_a_result_without_provenance_is_compared_by_its_bits(installation: Installation) -> None:
    """Results from before there was any are verified all the same."""
    code, output = installation.verify("38")
    assert (code, "fold 38  submission 6  reproduced; its provenance was not recorded" in output) == (0, True), output


def test_what_cannot_be_verified_says_why(installation: Installation) -> None:
    """A fold that is unknown, waits, failed or lost a file is named with the reason; the others are verified."""
    code, output = installation.verify("11", "14", "15", "39", "999")
    assert code == 2, output
    assert "fold 999  NOT VERIFIED: it is not in the log" in output
    assert "fold 15  NOT VERIFIED: it has no result yet" in output
    assert "fold 14  NOT VERIFIED: it failed: there are no test predictions to reproduce" in output
    assert f"fold 39  NOT VERIFIED: blob {'f' * 64} is not in " in output
    assert "1 reproduced, 0 different, 4 not verified" in output
    assert installation.reproduced(39) == []


def test_a_sample_is_as_large_as_asked(installation: Installation) -> None:
    """A sample of a dataset's folds runs as many of them as were asked for."""
    number = str(installation.dataset.raw_data_id)
    code, output = installation.verify("--dataset", number, "--sample", "2")
    assert code in (0, 1, 2), output
    assert output.count("fold ") == 2
    code, output = installation.verify("--dataset", "77")
    assert (code, output) == (2, "there is no tested fold to run again\n")


def test_the_command_must_be_told_what_to_verify(installation: Installation) -> None:
    """Running everything again is never an accident."""
    code, output = installation.verify()
    assert (code, "--all" in output) == (2, True), output


def test_a_provenance_holds_digests_and_no_content(installation: Installation) -> None:
    """No label, no secret of the machine and no path of it is in what every client may read."""
    provenance = installation.tested(11).provenance
    assert provenance is not None
    text = provenance.model_dump_json()
    assert not [word for word in (PRIVATE, LABEL, str(installation.folder), sys.prefix) if word in text]
    assert (provenance.threads, provenance.sandbox_level) == (1, installation.bench.sandbox.level)
    assert "openblas" in provenance.blas[0]
    assert provenance.cpu


def capsule(installation: Installation, fold_id: int) -> Path:
    """Write a fold's capsule by the command, and return it."""
    file = installation.folder / f"fold-{fold_id}.tar"
    options = ["--kafka", installation.kafka, "--blobs", str(installation.folder / "blobs")]
    command = [sys.executable, "-m", "datarun.cli", "fold", "export", str(fold_id), str(file), *options]
    command += ["--topic-prefix", installation.catalogue.prefix, "--dir", str(installation.folder / "dir")]
    subprocess.run(command, check=True, timeout=WAIT_SECONDS)
    return file


def run_capsule(file: Path, *options: str) -> tuple[int, str]:
    """Run a capsule's fold where no server is known, and return the exit code and what was printed."""
    command = [sys.executable, "-m", "datarun.cli", "fold", "run", str(file), "--sandbox-min", "1", *options]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("DATARUN_")}
    done = subprocess.run(
        command, capture_output=True, text=True, env=environment, timeout=WAIT_SECONDS, check=False, cwd=file.parent
    )
    return done.returncode, done.stdout + done.stderr


def test_a_capsule_gives_every_bit_again_without_a_server(installation: Installation) -> None:
    """A fold in a file, with nothing else, is run in the sandbox and gives the bits that were recorded."""
    file = capsule(installation, 12)
    found = installation.reproduced(12)
    code, output = run_capsule(file, "--provenance")
    assert code == 0, output
    assert "fold 12  submission 2  reproduced\n" in output
    assert f"    data {installation.tested(12).provenance.data}\n" in output
    assert installation.reproduced(12) == found
    again = capsule(installation, 12)
    assert again.read_bytes() == file.read_bytes()


def test_a_capsule_of_a_fold_that_draws_is_told_from_it(installation: Installation) -> None:
    """What gives other bits says so with the exit code, and a fold that failed cannot be compared."""
    code, output = run_capsule(capsule(installation, 23))
    assert (code, "DIFFERENT: full_train_predictions" in output) == (1, True), output
    code, output = run_capsule(capsule(installation, 14))
    assert (code, "it failed: there are no test predictions" in output) == (2, True), output


def test_the_log_away_is_told_by_the_exit_code(installation: Installation) -> None:
    """Without a broker the exit code is 3, as that of the other commands."""
    away = Installation("127.0.0.1:1", installation.folder, installation.log, installation.bench, Catalogue("x."))
    code, output = away.verify("11")
    assert code == 3, output
