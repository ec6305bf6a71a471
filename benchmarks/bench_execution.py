"""Fresh-process folds a second beside two bare processes doing the same fit in a loop, and beside a cold start each.

Run from the checkout: `python benchmarks/bench_execution.py [rounds]`. All three are measured in the same run.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from statistics import median, quantiles

import numpy as np
from sklearn.datasets import load_iris

from datarun.blobs import LocalBlobs
from datarun.events import Dataset, FoldRequested, NamedBlob, Priority, Split, SplitRequested, StandardSplit
from services.runner.execution import Executor, Limits, Tested

SLOTS = 2
ROUND_SECONDS = 1.5
PINS = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
CLASSIFIER = """
from sklearn.base import BaseEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler


class Classifier(BaseEstimator):
    def __init__(self):
        self.clf = make_pipeline(StandardScaler(), LogisticRegression())

    def fit(self, X, y):
        self.clf.fit(X, y)

    def predict_proba(self, X):
        return self.clf.predict_proba(X)
"""
BARE = (
    CLASSIFIER
    + """
import sys, time
from sklearn.datasets import load_iris

X, y = load_iris(return_X_y=True)
half, rows = slice(0, None, 2), slice(0, 60)
seconds = float(sys.argv[1])


def fold():
    clf = Classifier()
    clf.fit(X[half][rows], y[half][rows])
    return clf.predict_proba(X[half]), clf.predict_proba(X[1::2])


fold()
for _ in sys.stdin if seconds else ():
    count, begun = 0, time.perf_counter()
    while time.perf_counter() - begun < seconds:
        fold()
        count += 1
    print(count / (time.perf_counter() - begun), flush=True)
"""
)


class Bare:
    """Two warm processes that do nothing else."""

    def __init__(self, seconds: float) -> None:
        argv = [sys.executable, "-c", BARE, str(seconds)]
        environment = {**os.environ, **PINS}
        self._processes = [
            subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)
            for _ in range(SLOTS)
        ]

    def folds_per_second(self) -> float:
        """Have both fit for the seconds given; returns their rates together."""
        for process in self._processes:
            print(file=process.stdin, flush=True)
        return sum(float(process.stdout.readline()) for process in self._processes if process.stdout)

    def close(self) -> None:
        """End them."""
        for process in self._processes:
            process.communicate()


def cold_folds_per_second(repeats: int = 3) -> float:
    """Return what two processes at a time reach that start anew for each fold."""
    argv = [sys.executable, "-c", BARE, "0"]
    begun = time.perf_counter()
    for _ in range(repeats):
        processes = [subprocess.Popen(argv, env={**os.environ, **PINS}) for _ in range(SLOTS)]
        for process in processes:
            process.wait()
    return repeats * SLOTS / (time.perf_counter() - begun)


def request_of(executor: Executor, blobs: LocalBlobs) -> FoldRequested:
    """Split iris and return the request for a fold of it."""
    raw = blobs.put(load_iris(as_frame=True).frame.to_csv(index=False).encode())
    dataset = Dataset(
        raw_data_id=1,
        name="iris",
        target_column="target",
        workflow_elements="classifier",
        files=(NamedBlob(name="iris.csv", blob=raw),),
    )
    split = executor.split(
        SplitRequested(
            raw_data_id=1,
            attempt=1,
            task_id="t",
            plan=StandardSplit(held_out_test=0.5, random_state=42),
            dataset=dataset,
            requested_by="bench",
        )
    )
    if not isinstance(split, Split):
        raise SystemExit(split.message)
    return FoldRequested(
        fold_id=1,
        attempt=1,
        submission_id=1,
        priority=Priority.LOW,
        dataset=dataset.model_copy(update={"split": split}),
        files=(NamedBlob(name="classifier.py", blob=blobs.put(CLASSIFIER.encode())),),
        train_is=blobs.put(np.arange(60, dtype="<i8").tobytes()),
        test_is=blobs.put(b""),
        task_id="t",
        requested_by="bench",
    )


def run_for(executor: Executor, request: FoldRequested, seconds: float, *, threads: int) -> tuple[float, list[float]]:
    """Run folds in threads; returns folds a second and each one's seconds."""
    taken: list[float] = []
    begun = time.perf_counter()

    def loop() -> None:
        while (at := time.perf_counter()) - begun < seconds:
            outcome = executor.run(request, on_trained=lambda _: None)
            if not isinstance(outcome, Tested):
                raise SystemExit(outcome.message)
            taken.append(time.perf_counter() - at)

    workers = [threading.Thread(target=loop) for _ in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return len(taken) / (time.perf_counter() - begun), taken


def measure(executor: Executor, request: FoldRequested, *, rounds: int) -> dict[str, float]:
    """Alternate between both, so that a noisy machine is as noisy for one as for the other."""
    bare = Bare(ROUND_SECONDS)
    bare.folds_per_second()
    rates, bare_rates, alone = [], [], []
    for _ in range(rounds):
        rates.append(run_for(executor, request, ROUND_SECONDS, threads=SLOTS)[0])
        bare_rates.append(bare.folds_per_second())
        alone += run_for(executor, request, ROUND_SECONDS, threads=1)[1]
    bare.close()
    cold = cold_folds_per_second()
    return {
        "folds_per_second": round(median(rates), 1),
        "bare_fits_per_second": round(median(bare_rates), 1),
        "cold_folds_per_second": round(cold, 2),
        "of_bare": round(sum(rates) / sum(bare_rates), 3),
        "times_cold": round(median(rates) / cold, 1),
        "alone_ms_p50": round(1000 * median(alone), 1),
        "alone_ms_p95": round(1000 * quantiles(alone, n=20)[-1], 1),
    }


def main() -> None:
    """Measure and print one JSON object."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    with tempfile.TemporaryDirectory() as folder:
        blobs = LocalBlobs(Path(folder) / "blobs")
        executor = Executor(blobs=blobs, limits=Limits(), slots=SLOTS, work_folder=Path(folder) / "work")
        begun = time.perf_counter()
        sandbox = executor.start()
        started = time.perf_counter() - begun
        try:
            request = request_of(executor, blobs)
            run_for(executor, request, ROUND_SECONDS, threads=SLOTS)
            numbers = measure(executor, request, rounds=rounds)
        finally:
            executor.close()
    print(json.dumps({"sandbox": sandbox.model_dump(), "start_seconds": round(started, 2), **numbers}, indent=1))


if __name__ == "__main__":
    main()
