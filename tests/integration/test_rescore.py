"""`datarun rescore` over a real log: every attempt that was ever tested, under functions nobody had thought of then."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.naive_bayes import GaussianNB
from sklearn.tree import DecisionTreeClassifier
from typer.testing import CliRunner

from datarun.cli import app
from datarun.errors import DatarunError
from datarun.events import FoldFailed, FoldTested
from datarun.topics import FOLD_REQUESTS_HIGH, FOLD_REQUESTS_LOW, TOPICS
from tests.histories import run_event
from tests.scored import Contest, contest, patiently
from tests.sites import Site, running_site

OWN = """
def top_two(truth, predicted):
    import numpy as np
    classes = np.unique(truth)
    best = np.argsort(predicted, axis=1)[:, -2:]
    return float(np.mean([label in classes[two] for label, two in zip(truth, best)]))
top_two.takes = "probabilities"
"""


@dataclass
class History:
    """A site with attempts of all kinds, and what they predicted."""

    site: Site
    contest: Contest
    submission: int
    folds: list[int]
    superseded: int
    replaced: int
    replaced_by: int
    gone: int

    def options(self) -> list[str]:
        """Return the options that name the servers."""
        installation = self.site.installation
        servers = ["--dir", str(installation.folder), "--kafka", installation.kafka]
        blobs = (installation.folder / "blobs").as_uri()
        return [*servers, "--topic-prefix", installation.catalogue.prefix, "--blobs", blobs]

    def rescore(self, *arguments: str, code: int = 0) -> str:
        """Run the command and return what it printed."""
        done = CliRunner().invoke(app, ["rescore", *arguments, *self.options()])
        assert done.exit_code == code, f"{done.output}{done.exception}"
        return done.stdout if not isinstance(done.exception, DatarunError) else str(done.exception)

    def rows(self, *arguments: str) -> list[dict[str, Any]]:
        """Return the lines of JSON."""
        return [json.loads(line) for line in self.rescore(*arguments, "--format", "jsonl").splitlines()]


@pytest.fixture(scope="module")
def history(kafka: str, module_postgres_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[History]:
    """Three folds of which one was forced, a submission that was replaced, one whose predictions are gone, failures."""
    folder = tmp_path_factory.mktemp("rescore")
    with running_site(kafka, module_postgres_url, folder, "rescore.") as site:
        made = contest(site)
        submission, folds = made.submit(GaussianNB(), folds=3)
        made.again(folds[1], submission)
        made.fit(DecisionTreeClassifier(random_state=0), folds[1], attempt=2)
        replaced, [old] = made.submit(GaussianNB(), folds=1, seed=1)
        made.again(old, replaced, is_new_version=True)
        made.fit(DecisionTreeClassifier(random_state=0), old, attempt=2)
        _, [gone] = made.submit(GaussianNB(), folds=1, seed=2)
        stored = site.blobs.put(np.ascontiguousarray(made.hidden[gone]).tobytes())
        site.blobs.path(stored).unlink()
        rows = np.arange(50), np.arange(50, 75)
        failed, unrequested = made.fold(*rows), 9_999
        site.append(run_event(FoldFailed, failed), run_event(FoldTested, failed), run_event(FoldTested, unrequested))
        yield History(site, made, submission, folds, folds[1], replaced, old, gone)


def test_every_attempt_is_scored_and_no_fold_is_asked_for(history: History) -> None:
    """Current, superseded and replaced ones, marked so; not one record is appended to any topic."""
    site, made = history.site, history.contest
    names = [site.installation.catalogue.full_name(topic) for topic in TOPICS]
    before = site.log.end_offsets(names)
    rows = history.rows("accuracy", "log_loss", "--dataset", str(made.number))
    after = site.log.end_offsets(names)
    assert after == before
    queues = [site.installation.catalogue.full_name(topic) for topic in (FOLD_REQUESTS_HIGH, FOLD_REQUESTS_LOW)]
    assert sum(end for tp, end in after.items() if tp.topic in queues) > 0
    statuses = {(one["fold_id"], one["attempt"]): one["status"] for one in rows if one["kind"] == "fold"}
    [first, forced, last] = history.folds
    assert statuses == {
        (first, 1): "current",
        (forced, 1): "superseded",
        (forced, 2): "current",
        (last, 1): "current",
        (history.replaced_by, 1): "replaced",
        (history.replaced_by, 2): "current",
        (history.gone, 1): "current",
    }
    for part in ("train", "valid", "test"):
        expected = made.bagged(history.folds, part)
        for name in ("accuracy", "log_loss"):
            bags = [one for one in rows if (one["kind"], one["part"], one["metric"]) == ("bagged", part, name)]
            mine = [one for one in bags if one["submission_id"] == history.submission]
            assert [one["value"] for one in mine] == pytest.approx([one[name] for one in expected])
            assert [(one["fold_id"], one["folds"]) for one in mine] == list(zip(history.folds, (1, 2, 3), strict=True))
            told = patiently(site, f"submissions/{history.submission}/scores?metric={name}")["scores"]
            [shown] = [one for one in told if one["part"] == part]
            assert [one["bagged"] for one in shown["folds"]] == [one["value"] for one in mine]
    versions = {one["submission_version"] for one in rows if one["submission_id"] == history.replaced}
    assert versions == {1, 2}


def test_what_is_gone_is_a_row_that_says_so(history: History) -> None:
    """The other parts of the fold have their scores."""
    rows = [one for one in history.rows("accuracy") if one["fold_id"] == history.gone and one["kind"] == "fold"]
    told = {one["part"]: (one["value"] is None, one["reason"]) for one in rows}
    assert told["valid"] == (False, None)
    assert told["test"] == (True, "a blob that it is made from is not in the store")


def test_a_function_from_a_file_needs_no_change_of_datarun(history: History, tmp_path: Path) -> None:
    """It is given the labels and the probabilities of each fold, and what it raises is told in the row."""
    file = tmp_path / "own.py"
    file.write_text(OWN + "\ndef broken(truth, predicted):\n    return 1 / 0\n")
    own, made = f"{file}:top_two", history.contest
    rows = history.rows("--function", own, "--function", f"{file}:broken", "--part", "test")
    labels = made.test["species"].to_numpy()
    best = np.argsort(made.hidden[history.folds[0]], axis=1)[:, -2:]
    expected = np.mean([label in np.unique(labels)[two] for label, two in zip(labels, best, strict=True)])
    found = [one for one in rows if one["kind"] == "fold" and one["fold_id"] == history.folds[0]]
    assert {one["metric"]: one["value"] for one in found} == {"top_two": pytest.approx(expected), "broken": None}
    assert "ZeroDivisionError" in next(one["reason"] for one in found if one["metric"] == "broken")
    assert "top_two" in history.rescore("--function", own)


def test_a_table_has_a_line_for_each_submission(history: History) -> None:
    """With mean, deviation and bagged score; other submissions are left out when one is named."""
    said = history.rescore("accuracy", "--submission", str(history.submission), "--part", "valid")
    [line] = [line for line in said.splitlines() if "accuracy" in line]
    bagged = history.contest.bagged(history.folds, "valid")[-1]["accuracy"]
    assert f"{bagged:.6g}"[:5] in line
    assert "roc_auc" in history.rescore("--list")
    for wrong in ((), ("accuracy", "--output", "x")):
        assert history.rescore(*wrong, code=2) == ""
    assert "no scoring function" in history.rescore("acuracy", code=1)


def test_a_killed_rescoring_goes_on(history: History, tmp_path: Path) -> None:
    """Given again it ends with the same file as one that nobody killed; another question does not go on with it."""
    whole, cut = tmp_path / "whole.csv", tmp_path / "cut.csv"
    history.rescore("accuracy", "--format", "csv", "--output", str(whole))
    command = [sys.executable, "-m", "datarun.cli", "rescore", "accuracy", "--format", "csv", "--output", str(cut)]
    environment = os.environ | {"DATARUN_CRASH_AT": "rescore.after_group:2"}
    killed = subprocess.run([*command, *history.options()], env=environment, check=False, capture_output=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert cut.with_name("cut.csv.state").exists()
    history.site.append(run_event(FoldTested, 9_998))
    assert "other options" in history.rescore("log_loss", "--format", "csv", "--output", str(cut), code=1)
    history.rescore("accuracy", "--format", "csv", "--output", str(cut))
    assert cut.read_bytes() == whole.read_bytes()
    assert not cut.with_name("cut.csv.state").exists()
    assert "is there already" in history.rescore("accuracy", "--format", "csv", "--output", str(cut), code=1)
    history.rescore("accuracy", "--format", "csv", "--output", str(cut), "--fresh")
    rows = list(csv.DictReader(cut.open()))
    assert [row["value"] for row in rows] == [
        "" if one["value"] is None else repr(one["value"]) for one in history.rows("accuracy")
    ]
