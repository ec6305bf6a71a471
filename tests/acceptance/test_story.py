"""The README's story on the real stack in processes of its own: databoard's order of calls, and then with kills."""

import io
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from itertools import count
from pathlib import Path

import numpy as np
import pytest
import requests
from sklearn.datasets import load_diabetes, load_digits, load_iris
from sklearn.model_selection import ShuffleSplit

from datarun import envelope, post_api
from datarun.events import FoldFailed, FoldTested
from datarun.lifecycle import FIRST_TERMINAL
from datarun.stack.running import running_stack
from datarun.topics import FOLD_EVENTS, FOLD_REQUESTS_HIGH, FOLD_REQUESTS_LOW, Catalogue
from tests import oracle
from tests.scored import bagged

WAIT_SECONDS = 60
CLASSIFIER = """
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

class Classifier:
    def __init__(self):
        self.model = make_pipeline(StandardScaler(), LogisticRegression(C={c}))
    def fit(self, X, y):
        {before_fit}
        self.model.fit(X, y)
    def predict_proba(self, X):
        return self.model.predict_proba(X)
"""
REGRESSOR = """
from sklearn.linear_model import RidgeCV

class Regressor:
    def __init__(self):
        self.model = RidgeCV()
    def fit(self, X, y):
        self.model.fit(X, y)
    def predict(self, X):
        return self.model.predict(X).astype('float32')
"""
numbers = count(1)


def iris_csv():
    """Return iris as a user would upload it."""
    bunch = load_iris(as_frame=True)
    frame = bunch.data.assign(species=bunch.target.map(dict(enumerate(bunch.target_names))))
    return frame.to_csv(index=False)


def diabetes_csv():
    """Return diabetes as a user would upload it."""
    return load_diabetes(as_frame=True).frame.to_csv(index=False)


class Databoard:
    """A client that calls post_api in the order databoard does, on a stack that it may also hurt."""

    def __init__(self, stack, folder):
        self.stack = stack
        self.folder = folder
        connection = stack.connection
        self.login = (connection.gateway_url, connection.user, connection.password)

    def write(self, name, text):
        """Write a file and return its path."""
        path = self.folder / f"{next(numbers)}" / name
        path.parent.mkdir(parents=True)
        path.write_text(text)
        return str(path)

    def upload(self, name, csv_text, *, target, elements, held_out):
        """Upload and split a dataset; return its id."""
        path = self.write(f"{name}.csv", csv_text)
        answer = post_api.post_data(*self.login, name, target, elements, path)
        assert answer.status_code == 201, answer.text
        raw_data_id = json.loads(answer.content)["id"]
        split = post_api.post_split(*self.login, held_out, raw_data_id)
        assert split.ok, split.text
        assert json.loads(split.content)["task_id"]
        return raw_data_id

    def send(self, submission_id, folds, **options):
        """Send folds, the files with the first; return the answers."""
        raw_data_id, files = options.pop("raw_data_id", None), options.pop("files", None)
        answers = []
        for index, (fold_id, (train_is, test_is)) in enumerate(folds.items()):
            first = {"raw_data_id": raw_data_id, "list_submission_files": files} if index == 0 else {}
            answer = post_api.post_submission_fold(
                *self.login, submission_id, fold_id, train_is, test_is, **first, **options
            )
            assert answer.status_code == 201, answer.text
            assert json.loads(answer.content)["task_id"]
            answers.append(answer)
        return answers

    def wait(self, fold_ids, *, patient=False):
        """Poll the list, as databoard does, until no state is todo; return the folds by id."""
        deadline = time.monotonic() + WAIT_SECONDS
        while time.monotonic() < deadline:
            try:
                answer = post_api.get_prediction_list(*self.login, list(fold_ids))
            except OSError:
                if not patient:
                    raise
                time.sleep(0.2)
                continue
            folds = {fold["databoard_sf_id"]: fold for fold in json.loads(answer.content)} if answer.ok else {}
            if len(folds) == len(fold_ids) and all(fold["state"].lower() != "todo" for fold in folds.values()):
                return folds
            time.sleep(0.05)
        pytest.fail(f"folds not final after {WAIT_SECONDS} s: {folds}")

    def pid(self, name):
        """Return the process id of a part of the stack."""
        return self.stack.state().processes[name].pid

    def kill(self, name):
        """End a part of the stack as by pulling its plug."""
        pid = self.pid(name)
        os.kill(pid, signal.SIGKILL)
        return pid

    def events(self):
        """Return every fold event of the log."""
        from datarun.log.kafka import KafkaLog

        log, catalogue = KafkaLog(self.stack.connection.kafka), Catalogue()
        try:
            ends = log.end_offsets([catalogue.full_name(FOLD_EVENTS)])
            batches = log.read(dict.fromkeys(ends, 0), until_end=True)
            return [envelope.decode(record.value, record.headers) for batch in batches for record in batch]
        finally:
            log.close()

    def ask(self, path):
        """GET below /v1, again as long as the answer is being computed."""
        url, *login = self.login
        deadline = time.monotonic() + WAIT_SECONDS
        while True:
            answer = requests.get(f"{url}/v1/{path}", auth=tuple(login), timeout=30)
            if answer.status_code != 503 or time.monotonic() > deadline:
                break
        assert answer.ok, answer.text
        return answer

    def predictions(self, fold_id, part):
        """Return a fold's predictions."""
        return np.load(io.BytesIO(self.ask(f"folds/{fold_id}/predictions/{part}?format=npy").content))

    def rescore(self, *arguments):
        """Return the bagged scores that `datarun rescore` finds, by submission, part and scoring function."""
        command = [sys.executable, "-m", "datarun.cli", "rescore", *arguments, "--format", "jsonl"]
        command += ["--dir", str(self.stack.folder.path)]
        lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
        found = {}
        for row in map(json.loads, lines):
            if row["kind"] == "bagged":
                found.setdefault((row["submission_id"], row["part"], row["metric"]), []).append(row["value"])
        return found

    def requests_end(self):
        """Return where the queues of folds end."""
        from datarun.log.kafka import KafkaLog

        log, catalogue = KafkaLog(self.stack.connection.kafka), Catalogue()
        try:
            return log.end_offsets([catalogue.full_name(topic) for topic in (FOLD_REQUESTS_HIGH, FOLD_REQUESTS_LOW)])
        finally:
            log.close()

    def assert_terminal_once(self, fold_ids):
        """Each fold has one terminal event in the log and one terminal row in the read model."""
        from datarun.db import connect

        terminal = Counter(event.fold_id for event in self.events() if isinstance(event, FoldTested | FoldFailed))
        assert {fold_id: terminal[fold_id] for fold_id in fold_ids} == dict.fromkeys(fold_ids, 1)
        database = connect(self.stack.connection.postgres_url)
        with database, database.cursor() as cursor:
            cursor.execute("select fold_id, run_rank from rm.fold where fold_id = any(%s)", (list(fold_ids),))
            ranks = dict(cursor.fetchall())
        database.close()
        assert all(ranks[fold_id] >= FIRST_TERMINAL for fold_id in fold_ids)


def expected(csv_text, held_out, *, target, elements, files, train_is):
    """Return what the oracle predicts, in a fresh process, as base64 of zlib like the interface."""
    asked = {
        "csv_text": csv_text,
        "held_out_test": held_out,
        "target": target,
        "elements": elements,
        "folder": str(Path(files[0]).parent),
        "train_is": list(train_is),
    }
    ran = subprocess.run(
        [sys.executable, "-m", "tests.oracle"],
        input=json.dumps(asked),
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
    )
    return [oracle.decode(text) for text in json.loads(ran.stdout)]


def two_folds(first_id, rows):
    """Return two folds of the train part: even rows against odd ones, and the other way round."""
    even, odd = list(range(0, rows, 2)), list(range(1, rows, 2))
    return {first_id: (even, odd), first_id + 1: (odd, even)}


@pytest.fixture(scope="module")
def stack(tmp_path_factory):
    """One real stack for the module."""
    folder = tmp_path_factory.mktemp("s")
    with running_stack(folder / "d", output=folder / "stack.log") as running:
        yield running


@pytest.fixture
def databoard(stack, tmp_path):
    """A client of the module's stack."""
    return Databoard(stack, tmp_path)


def test_iris_and_diabetes_are_predicted_bit_for_bit(databoard):
    """Both datasets go the whole way, and every bit of the predictions is the oracle's."""
    iris = databoard.upload("iris", iris_csv(), target="species", elements="classifier", held_out=0.5)
    classifier = [databoard.write("classifier.py", CLASSIFIER.format(c=1.0, before_fit="pass"))]
    iris_folds = two_folds(11, 75)
    databoard.send(1, iris_folds, raw_data_id=iris, files=classifier, priority="H")
    diabetes = databoard.upload("diabetes", diabetes_csv(), target="target", elements="regressor", held_out=0.2)
    regressor = [databoard.write("regressor.py", REGRESSOR)]
    diabetes_folds = two_folds(21, 353)
    databoard.send(2, diabetes_folds, raw_data_id=diabetes, files=regressor)

    done = databoard.wait([*iris_folds, *diabetes_folds])
    assert {fold["state"] for fold in done.values()} == {"TESTED"}, done
    cases = [
        (iris_folds, iris_csv(), 0.5, {"target": "species", "elements": ["classifier"], "files": classifier}),
        (diabetes_folds, diabetes_csv(), 0.2, {"target": "target", "elements": ["regressor"], "files": regressor}),
    ]
    for folds, csv_text, held_out, case in cases:
        for fold_id, (train_is, _) in folds.items():
            full_train, test = expected(csv_text, held_out, train_is=train_is, **case)
            assert oracle.decode(done[fold_id]["full_train_predictions"]) == full_train
            assert oracle.decode(done[fold_id]["test_predictions"]) == test
            assert done[fold_id]["log_messages"] == "\n\n"
            assert done[fold_id]["train_time"] > 0
    databoard.assert_terminal_once([*iris_folds, *diabetes_folds])


MODELS = (
    "from sklearn.naive_bayes import GaussianNB as Model",
    "from sklearn.neighbors import KNeighborsClassifier as Model",
    "from sklearn.tree import ExtraTreeClassifier as Model",
)
ANY_CLASSIFIER = """
{model}

class Classifier:
    def fit(self, X, y):
        self.model = Model().fit(X, y)
    def predict_proba(self, X):
        return self.model.predict_proba(X)
"""


def test_bagged_scores_of_digits_are_those_of_their_predictions(databoard):
    """Three submissions on ten folds: after each fold as worked out here, at the gateway and from the log alone."""
    csv_text = load_digits(as_frame=True).frame[:600].to_csv(index=False)
    raw_data_id = databoard.upload("digits", csv_text, target="target", elements="classifier", held_out=0.3)
    truth = dict(
        zip(("valid", "test"), (part["target"].to_numpy() for part in oracle.split(csv_text, 0.3)), strict=True)
    )
    cuts = [
        (one.tolist(), two.tolist())
        for one, two in ShuffleSplit(10, test_size=0.3, random_state=42).split(truth["valid"])
    ]
    sent = {
        submission: {10 * submission + number: cut for number, cut in enumerate(cuts)} for submission in (401, 402, 403)
    }
    for model, (submission, folds) in zip(MODELS, sent.items(), strict=True):
        files = [databoard.write("classifier.py", ANY_CLASSIFIER.format(model=model))]
        databoard.send(submission, folds, raw_data_id=raw_data_id, files=files)
    done = databoard.wait([fold_id for folds in sent.values() for fold_id in folds])
    assert {fold["state"] for fold in done.values()} == {"TESTED"}, done
    requested = databoard.requests_end()
    rescored = databoard.rescore("accuracy", "log_loss", "--dataset", str(raw_data_id))
    assert databoard.requests_end() == requested
    for submission, folds in sent.items():
        told = databoard.ask(f"submissions/{submission}/scores?metric=accuracy,log_loss").json()["scores"]
        for part, predicted in (("valid", "full-train"), ("test", "test")):
            rows = [test_is if part == "valid" else None for _, test_is in cuts]
            expected = bagged(truth[part], [databoard.predictions(fold_id, predicted) for fold_id in folds], rows)
            for name in ("accuracy", "log_loss"):
                [found] = [one["folds"] for one in told if (one["part"], one["metric"]) == (part, name)]
                assert [one["fold_id"] for one in found] == list(folds)
                assert [one["bagged"] for one in found] == pytest.approx([one[name] for one in expected], rel=1e-9)
                assert rescored[submission, part, name] == [one["bagged"] for one in found]
    board = databoard.ask(f"datasets/{raw_data_id}/leaderboard").json()["items"]
    assert {one["submission_id"] for one in board} == set(sent)
    assert [one["value"] for one in board] == sorted((one["value"] for one in board), reverse=True)


def test_new_predictions_are_handed_out_once_and_again_after_a_forced_run(databoard):
    """`new` gives each fold once; a forced resend with other code gives it again, with other predictions."""
    raw_data_id = databoard.upload("iris-new", iris_csv(), target="species", elements="classifier", held_out=0.5)
    folds = two_folds(31, 75)
    files = [databoard.write("classifier.py", CLASSIFIER.format(c=1.0, before_fit="pass"))]
    databoard.send(3, folds, raw_data_id=raw_data_id, files=files)
    # The folds' end is awaited without fetching, which would count as seen.
    deadline = time.monotonic() + WAIT_SECONDS
    first = []
    while len(first) < 2 and time.monotonic() < deadline:
        first += post_api.get_prediction_new(*databoard.login, raw_data_id).json()
        time.sleep(0.05)
    assert sorted(fold["databoard_sf_id"] for fold in first) == [31, 32]
    assert post_api.get_prediction_new(*databoard.login, raw_data_id).json() == []

    other = [databoard.write("classifier.py", CLASSIFIER.format(c=0.01, before_fit="pass"))]
    forced = {31: folds[31]}
    databoard.send(3, forced, raw_data_id=raw_data_id, files=other, force="submission, submission_fold")
    again = []
    while not again and time.monotonic() < deadline:
        again = post_api.get_prediction_new(*databoard.login, raw_data_id).json()
        time.sleep(0.05)
    assert [fold["databoard_sf_id"] for fold in again] == [31]
    before = next(fold for fold in first if fold["databoard_sf_id"] == 31)
    assert again[0]["test_predictions"] != before["test_predictions"]


def test_a_submission_that_raises_ends_as_error_while_the_next_runs(databoard):
    """Each broken submission ends with its tag and its own traceback; a good fold behind it is tested."""
    raw_data_id = databoard.upload("iris-bad", iris_csv(), target="species", elements="classifier", held_out=0.5)
    broken = {
        41: ("raise ValueError('no luck')", "ERROR(train)"),
        42: ("import os; os._exit(0)", "ERROR(train)"),
        43: ("import sys; sys.exit(3)", "ERROR(train)"),
        44: ("print('\\x00garbage\\xff' * 1000)", None),
    }
    for fold_id, (line, _) in broken.items():
        files = [databoard.write("classifier.py", CLASSIFIER.format(c=1.0, before_fit=line))]
        databoard.send(fold_id, {fold_id: (range(50), range(50, 75))}, raw_data_id=raw_data_id, files=files)
    done = databoard.wait(list(broken))
    for fold_id, (_, tag) in broken.items():
        assert done[fold_id]["state"] == ("ERROR" if tag else "TESTED"), done[fold_id]["log_messages"]
        assert (tag or "") in done[fold_id]["log_messages"]
    assert "no luck" in done[41]["log_messages"]
    assert "classifier.py" in done[41]["log_messages"]
    assert str(Path(__file__).parents[2]) not in done[41]["log_messages"]


def test_the_status_tells_how_submissions_are_isolated(databoard):
    """Level and mechanisms of the runner are in `datarun status`, for people and as JSON."""
    command = [sys.executable, "-m", "datarun.cli", "status", "--dir", str(databoard.stack.folder.path)]
    shown, told = (
        subprocess.run([*command, *more], capture_output=True, text=True, check=True).stdout
        for more in ((), ("-o", "json"))
    )
    runner = json.loads(told)["processes"]["runner"]
    assert "sandbox level" in runner["url"].lower()
    assert "no_new_privs" in runner["detail"]
    assert runner["detail"] in shown


def test_a_killed_runner_costs_no_fold(databoard):
    """After a kill -9 of the runner in mid-fold folds run again, within 20 s, and end once."""
    raw_data_id = databoard.upload("iris-kill", iris_csv(), target="species", elements="classifier", held_out=0.5)
    files = [databoard.write("classifier.py", CLASSIFIER.format(c=1.0, before_fit="import time; time.sleep(3)"))]
    folds = two_folds(51, 75)
    databoard.send(51, folds, raw_data_id=raw_data_id, files=files)
    await_events(databoard, "FoldStarted", folds)
    killed = databoard.kill("runner")
    at = time.monotonic()
    await_events(databoard, "FoldStarted", folds, delivery=2)
    assert time.monotonic() - at <= 20
    done = databoard.wait(folds)
    assert {fold["state"] for fold in done.values()} == {"TESTED"}
    assert databoard.pid("runner") != killed
    databoard.assert_terminal_once(folds)


def test_a_runner_started_by_hand_takes_its_share(databoard):
    """A second runner joins the same system with nothing but the folder, and leaves when it is told."""
    command = [sys.executable, "-m", "datarun.cli", "runner", "--dir", str(databoard.stack.folder.path), "--slots", "1"]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as second:
        raw_data_id = databoard.upload("iris-two", iris_csv(), target="species", elements="classifier", held_out=0.5)
        files = [databoard.write("classifier.py", CLASSIFIER.format(c=1.0, before_fit="import time; time.sleep(1)"))]
        first, folds = 91, {}
        deadline = time.monotonic() + WAIT_SECONDS
        while (
            len(
                {
                    event.runner_id
                    for event in databoard.events()
                    if getattr(event, "runner_id", None) and event.fold_id in folds
                }
            )
            < 2
        ):
            assert time.monotonic() < deadline, "the second runner took nothing"
            some = {first + number: (range(50), range(50, 75)) for number in range(4)}
            databoard.send(91, some, raw_data_id=raw_data_id, files=files)
            databoard.wait(some)
            first, folds = first + 4, folds | some
        second.send_signal(signal.SIGTERM)
        assert second.wait(20) == 0
    databoard.assert_terminal_once(folds)


@pytest.mark.parametrize(("part", "first_id"), [("projector", 61), ("kafka", 71), ("postgres", 81)])
def test_killing_a_server_under_load_loses_nothing(databoard, part, first_id):
    """After a kill -9 of projector, broker or database while folds run the story still ends right."""
    raw_data_id = databoard.upload(f"iris-{part}", iris_csv(), target="species", elements="classifier", held_out=0.5)
    files = [databoard.write("classifier.py", CLASSIFIER.format(c=1.0, before_fit="import time; time.sleep(0.3)"))]
    folds = {first_id + number: (range(50), range(50, 75)) for number in range(8)}
    databoard.send(first_id, folds, raw_data_id=raw_data_id, files=files)
    databoard.kill(part)
    done = databoard.wait(folds, patient=True)
    assert {fold["state"] for fold in done.values()} == {"TESTED"}, done
    databoard.assert_terminal_once(folds)


def test_a_gateway_killed_after_its_commit_still_sends_the_fold(tmp_path_factory):
    """The client sees a cut connection, the claim is there, and the relay of the next gateway appends it once."""
    folder = tmp_path_factory.mktemp("g")
    os.environ["DATARUN_CRASH_AT"] = "gateway.after_commit:4"
    try:
        with running_stack(folder / "d", output=folder / "stack.log") as running:
            board = Databoard(running, folder)
            raw_data_id = board.upload("iris", iris_csv(), target="species", elements="classifier", held_out=0.5)
            files = [board.write("classifier.py", CLASSIFIER.format(c=1.0, before_fit="pass"))]
            board.send(1, {11: (range(50), range(50, 75))}, raw_data_id=raw_data_id, files=files)
            killed = board.pid("gateway")
            with pytest.raises(OSError, match=r"(?i)connection|remote"):
                post_api.post_submission_fold(*board.login, 1, 12, range(50), range(50, 75))
            done = board.wait([11, 12], patient=True)
            assert {fold["state"] for fold in done.values()} == {"TESTED"}
            assert board.pid("gateway") != killed
            board.assert_terminal_once([11, 12])
    finally:
        del os.environ["DATARUN_CRASH_AT"]


def await_events(databoard, kind, fold_ids, *, delivery=1):
    """Wait until the log has an event of a kind for each fold and delivery."""
    deadline = time.monotonic() + WAIT_SECONDS
    while time.monotonic() < deadline:
        events = [event for event in databoard.events() if type(event).__name__ == kind]
        seen = {event.fold_id for event in events if event.delivery == delivery}
        if seen.issuperset(fold_ids):
            return
        time.sleep(0.1)
    pytest.fail(f"no {kind} of delivery {delivery} for {sorted(fold_ids)}")
