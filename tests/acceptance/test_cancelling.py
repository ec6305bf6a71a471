"""Cancelling and forcing on the real stack: who runs is killed with all it started, who waits never starts."""

import json
import os
import subprocess
import sys
import time

import psutil
import pytest
import requests

from datarun import post_api
from datarun.events import FoldCancelled, FoldFailed, FoldStarted, FoldTested
from datarun.stack.running import running_stack
from tests.acceptance.test_story import CLASSIFIER, WAIT_SECONDS, Databoard, iris_csv

KILLED_SECONDS = 2.0
STUBBORN = """
import os, signal, subprocess, sys

class Classifier:
    def fit(self, X, y):
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        subprocess.Popen([sys.executable, "-c", "while True: pass", "{mark}"], start_new_session=True)
        if os.fork() == 0:
            os.setsid()
            os.fork()
            while True:
                pass
        sum(range(10**15))
"""
FOLD = (range(50), range(50, 75))


@pytest.fixture(scope="module")
def databoard(tmp_path_factory):
    """A client of a stack of this module's own."""
    folder = tmp_path_factory.mktemp("c")
    with running_stack(folder / "d", output=folder / "stack.log") as running:
        board = Databoard(running, folder)
        board.raw_data_id = board.upload("iris", iris_csv(), target="species", elements="classifier", held_out=0.5)
        yield board


def classifier(databoard, *, before_fit="pass"):
    """Write a good submission, which does something before."""
    return [databoard.write("classifier.py", CLASSIFIER.format(c=1.0, before_fit=before_fit))]


def send(databoard, number, files, **options):
    """Send one fold of a submission of the same number."""
    databoard.send(number, {number: FOLD}, raw_data_id=databoard.raw_data_id, files=files, **options)


def cancel(databoard, number):
    """Cancel a fold and return the answer."""
    url, user, password = databoard.login
    return requests.post(
        f"{url}/v1/folds/{number}/cancel", auth=(user, password), json={"reason": "why not"}, timeout=9
    )


def events_of(databoard, number, *kinds):
    """Return a fold's events of some kinds."""
    return [event for event in databoard.events() if event.fold_id == number and isinstance(event, kinds)]


def occupy(databoard, first):
    """Fill every slot with a fold that does not end by itself, and return their numbers."""
    busy = {first + number: FOLD for number in range(os.cpu_count())}
    files = classifier(databoard, before_fit="import time; time.sleep(600)")
    databoard.send(first, busy, raw_data_id=databoard.raw_data_id, files=files)
    deadline = time.monotonic() + WAIT_SECONDS
    while not all(events_of(databoard, number, FoldStarted) for number in busy):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return list(busy)


def vacate(databoard, busy):
    """End what fills the slots."""
    assert [cancel(databoard, number).status_code for number in busy] == [200] * len(busy)


def stubborn(databoard, number):
    """Have a stubborn submission run; return all its processes."""
    mark = f"stubborn-{number}-"
    send(databoard, number, [databoard.write("classifier.py", STUBBORN.format(mark=mark))])
    deadline = time.monotonic() + WAIT_SECONDS
    while time.monotonic() < deadline:
        time.sleep(0.05)
        for process in psutil.process_iter(["cmdline"]):
            if mark in (process.info["cmdline"] or []):
                fold = process.parent()
                found = [fold, *fold.children(recursive=True)]
                if len(found) == 4:
                    return found
    pytest.fail("it never had all its processes")


def assert_killed(processes):
    """Check that processes are gone within the limit."""
    _, alive = psutil.wait_procs(processes, timeout=KILLED_SECONDS)
    assert alive == []


def test_a_running_fold_is_killed_with_all_it_started(databoard):
    """Within two seconds of the answer, whatever it ignores; the next fold runs, and no result follows."""
    processes = stubborn(databoard, 11)
    answer = cancel(databoard, 11)
    answered = time.monotonic()
    assert_killed(processes)
    print(f"killed {time.monotonic() - answered:.3f} s after the answer")  # noqa: T201 - shown with -s
    assert (answer.status_code, answer.json()["state"]) == (200, "ERROR")
    fold = databoard.wait([11])[11]
    assert (fold["state"], fold["log_messages"]) == (
        "ERROR",
        f"\nCancelled by {databoard.login[1]}: why not - ERROR(train)\n",
    )
    send(databoard, 12, classifier(databoard))
    assert databoard.wait([12])[12]["state"] == "TESTED"
    assert len(events_of(databoard, 11, FoldCancelled, FoldFailed, FoldTested)) == 1


def test_a_queued_fold_never_starts(databoard):
    """Its request is passed over when it comes up, the one behind it runs, and its next attempt does."""
    busy = occupy(databoard, 20)
    send(databoard, 41, classifier(databoard))
    send(databoard, 42, classifier(databoard))
    done = subprocess.run(
        [sys.executable, "-m", "datarun.cli", "fold", "cancel", "41", "--dir", str(databoard.stack.folder.path)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, f"fold 41, attempt 1: cancelled by {databoard.login[1]}\n")
    vacate(databoard, busy)
    ended = databoard.wait([41, 42])
    assert [ended[number]["state"] for number in (41, 42)] == ["ERROR", "TESTED"]
    assert events_of(databoard, 41, FoldStarted) == []
    databoard.send(41, {41: FOLD}, force="submission_fold")
    assert databoard.wait([41])[41]["state"] == "TESTED"
    assert [event.attempt for event in events_of(databoard, 41, FoldStarted)] == [2]


def test_a_fold_cancelled_before_its_data_is_split_never_starts(databoard):
    """Its request is sent when the split is there, and passed over; another fold of the dataset runs."""
    busy = occupy(databoard, 70)
    late = databoard.upload("late", iris_csv(), target="species", elements="classifier", held_out=0.5)
    databoard.send(91, {91: FOLD, 92: FOLD}, raw_data_id=late, files=classifier(databoard))
    assert cancel(databoard, 91).status_code == 200
    assert events_of(databoard, 92, FoldStarted) == []
    vacate(databoard, busy)
    ended = databoard.wait([91, 92])
    assert [ended[number]["state"] for number in (91, 92)] == ["ERROR", "TESTED"]
    assert [events_of(databoard, number, FoldStarted) == [] for number in (91, 92)] == [True, False]


def test_forcing_a_running_fold_kills_it_and_the_new_result_wins(databoard):
    """The old attempt makes room for the new one, which is of a new version, and leaves nothing behind."""
    processes = stubborn(databoard, 51)
    send(databoard, 51, classifier(databoard), force="submission, submission_fold")
    assert_killed(processes)
    assert databoard.wait([51])[51]["state"] == "TESTED"
    ends = events_of(databoard, 51, FoldCancelled, FoldFailed, FoldTested)
    assert [(type(event), event.attempt) for event in ends] == [(FoldTested, 2)]


def test_a_fold_that_has_ended_cannot_be_cancelled(databoard):
    """It stays as it is."""
    send(databoard, 61, classifier(databoard))
    assert databoard.wait([61])[61]["state"] == "TESTED"
    refused = cancel(databoard, 61)
    assert (refused.status_code, refused.json()["state"]) == (409, "TESTED")
    shown = post_api.get_submission_fold_detail(*databoard.login, 61)
    assert json.loads(shown.content)["state"] == "TESTED"
