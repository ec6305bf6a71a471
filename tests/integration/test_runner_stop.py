"""A whole runner that is told to stop while a real submission runs: nothing of that is left, and others may run it."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

import psutil
import pytest

from datarun.envelope import Context, decode, encode, now
from datarun.events import FoldHandedBack, FoldStarted
from datarun.log.admin import create_topics
from datarun.log.kafka import KafkaLog
from datarun.topics import FOLD_EVENTS, FOLD_REQUESTS_HIGH, Catalogue, Topic
from services.runner.execution import Limits
from tests.integration.execution_workbench import Workbench, workbench
from tests.projecting import wait_until

GRACE, BEYOND = 1, 2
CSV = "a,target\n" + "".join(f"{number},{number % 2}\n" for number in range(20))
SLEEPER = """
    import os, signal, time

    class Classifier:
        def fit(self, X, y):
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            if os.fork() == 0:
                os.setsid()
            time.sleep(300)

        def predict_proba(self, X):
            return None
"""


@pytest.fixture
def bench(tmp_path: Path):
    """Start an executor, to split a dataset with."""
    with workbench(tmp_path, Limits(), slots=1) as made:
        yield made


@contextmanager
def runner(output: Path, *options: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run a runner with one slot beside the executor's blobs; it is killed at the end if it still runs."""
    blobs, own = output.parent / "blobs", output.parent / "own"
    command = [sys.executable, "-m", "services.runner", "--blobs", blobs.as_uri(), "--dir", str(own), *options]
    command += ["--slots", "1", "--sandbox-min", "0", "--grace", str(GRACE)]
    with output.open("wb") as descriptor:
        process = subprocess.Popen(command, stdout=descriptor, stderr=descriptor)
    try:
        yield process
    finally:
        process.kill()
        process.wait(10)


def stopped_in(output: str) -> float:
    """Return the seconds between a runner's hearing of its end and its last word."""
    lines = [json.loads(line) for line in output.splitlines()]
    (asked,) = (line["timestamp"] for line in lines if line["event"] == "runner.stopping")
    assert lines[-1]["event"] in {"runner.stopped", "runner.stopped_late"}
    return (datetime.fromisoformat(lines[-1]["timestamp"]) - datetime.fromisoformat(asked)).total_seconds()


def test_a_stopping_runner_leaves_nothing_of_a_submission(
    bench: Workbench, kafka: str, topic_prefix: str, tmp_path: Path
) -> None:
    """It ends within its grace and two seconds by its own clock, with 0, and every process below it is gone."""
    create_topics(kafka, prefix=topic_prefix)
    catalogue, log = Catalogue(topic_prefix), KafkaLog(kafka)

    def events(topic: Topic):
        ends = log.end_offsets([catalogue.full_name(topic)])
        batches = log.read(dict.fromkeys(ends, 0), until_end=True)
        return [decode(record.value, record.headers) for batch in batches for record in batch]

    dataset = bench.split(bench.dataset({"data.csv": CSV}, "classifier"), held_out=0.5)
    request = bench.request(dataset, {"classifier.py": SLEEPER}, range(6))
    log.append(encode(request, catalogue=catalogue, context=Context("test", now()))).result(30)
    output = tmp_path / "runner.log"
    with runner(output, "--kafka", kafka, "--topic-prefix", topic_prefix) as process:
        wait_until(lambda: any(isinstance(event, FoldStarted) for event in events(FOLD_EVENTS)), 60)
        time.sleep(1)
        below = psutil.Process(process.pid).children(recursive=True)
        process.terminate()
        assert process.wait(30) == 0, output.read_text()
        assert stopped_in(output.read_text()) <= GRACE + BEYOND, output.read_text()
        wait_until(lambda: not any(each.is_running() for each in below), 2)
    assert len(below) >= 4
    assert [type(event) for event in events(FOLD_EVENTS)] == [FoldStarted, FoldHandedBack]
    assert [event.delivery for event in events(FOLD_REQUESTS_HIGH)] == [1, 2]
    log.close()
