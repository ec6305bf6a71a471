"""A running stack as its clients feel it: POST a fold, and submit a tiny fold until its prediction is fetchable.

Beside each figure stands the same done bare in the same run, since machines differ and are noisy:
a POST that only decodes, and the fit alone in a warm process.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from datarun import post_api
from datarun.demo import EXAMPLE, TRAIN_ROWS
from datarun.stack.connection import Connection
from datarun.stack.running import running_stack

WAIT_SECONDS = 30.0
POLL_SECONDS = 0.005
"""Between two looks; asking without a pause would take the CPU from what is measured."""


def percentile(values: Sequence[float], share: float) -> float:
    """Return the value below which the given share of the values lies."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def report(name: str, seconds: Sequence[float]) -> None:
    """Print one row: median, 95th and 99th percentile in ms."""
    marks = [percentile(seconds, share) * 1000 for share in (0.5, 0.95, 0.99)]
    print(f"{name:46s} p50 {marks[0]:7.1f}  p95 {marks[1]:7.1f}  p99 {marks[2]:7.1f} ms   n {len(seconds)}")


class Client:
    """Sends folds of one submission to a stack."""

    def __init__(self, connection: Connection) -> None:
        self.login = (connection.gateway_url, connection.user, connection.password)
        self.train_is = list(range(0, TRAIN_ROWS, 2))
        self.test_is = list(range(1, TRAIN_ROWS, 2))
        self.next_fold = 1000

    def prepare(self) -> int:
        """Upload and split iris and send the first fold; return the dataset's id when that fold is done."""
        answer = post_api.post_data(*self.login, "bench", "species", "classifier", str(EXAMPLE / "iris.csv"))
        raw_data_id = int(answer.json()["id"])
        post_api.post_split(*self.login, 0.3, raw_data_id).raise_for_status()
        fold = self.send(raw_data_id=raw_data_id, list_submission_files=[str(EXAMPLE / "classifier.py")])
        self.await_fold(fold)
        return raw_data_id

    def send(self, **options: object) -> int:
        """Post the next fold and return its id."""
        self.next_fold += 1
        answer = post_api.post_submission_fold(
            *self.login, 900, self.next_fold, self.train_is, self.test_is, priority="H", **options
        )
        answer.raise_for_status()
        return self.next_fold

    def await_fold(self, fold_id: int) -> None:
        """Poll until the fold's predictions can be fetched."""
        deadline = time.monotonic() + WAIT_SECONDS
        while time.monotonic() < deadline:
            (fold,) = post_api.get_prediction_list(*self.login, [fold_id]).json()
            if fold["state"] == "TESTED":
                return
            if fold["state"] == "ERROR":
                raise RuntimeError(fold["log_messages"])
            time.sleep(POLL_SECONDS)
        raise TimeoutError(f"fold {fold_id}")


def timed(action: Callable[[], object], count: int) -> list[float]:
    """Return the seconds each call took."""
    taken = []
    for _ in range(count):
        started = time.perf_counter()
        action()
        taken.append(time.perf_counter() - started)
    return taken


def bare_fit() -> Callable[[], object]:
    """Return the demo's fit and predictions as one call in this process."""
    import numpy as np
    from sklearn.datasets import load_iris
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    X, y = load_iris(return_X_y=True)

    def fit() -> object:
        model = make_pipeline(StandardScaler(), LogisticRegression()).fit(X[:52], y[np.arange(52) % 3 * 50])
        return model.predict_proba(X[:TRAIN_ROWS]), model.predict_proba(X[TRAIN_ROWS:])

    return fit


def main() -> None:
    """Measure a stack in a fresh folder, or the running one of --dir."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dir", type=Path, default=None, help="folder of a running `datarun up`")
    parser.add_argument("--folds", type=int, default=200)
    parser.add_argument("--burst", type=int, default=200)
    arguments = parser.parse_args()
    with (
        tempfile.TemporaryDirectory(prefix="datarun-bench-") as fresh,
        running_stack(arguments.dir or Path(fresh) / "stack", output=Path(fresh) / "stack.log") as stack,
    ):
        measure(Client(stack.connection), folds=arguments.folds, burst=arguments.burst)


def measure(client: Client, *, folds: int, burst: int) -> None:
    """Print every figure."""
    client.prepare()
    report("GET of an empty answer (what HTTP alone costs)", timed(lambda: get_healthz(client), 200))
    report("submit a tiny fold -> prediction fetchable", timed(lambda: client.await_fold(client.send()), folds))
    bare = timed(bare_fit(), 50)
    report("the same fit in a warm bare process", bare)
    started = time.perf_counter()
    posts = timed(client.send, burst)
    report("POST fold, accepted and projected", posts)
    client.await_fold(client.next_fold)
    rate = burst / (time.perf_counter() - started)
    print(
        f"{'a burst of folds, posted to fetchable':46s} {rate:7.1f} folds/s, "
        f"{rate * statistics.median(bare) / 2:.2f} of two bare processes that only fit"
    )


def get_healthz(client: Client) -> None:
    """Ask the gateway whether it is alive."""
    post_api.url_get(client.login[0], "/healthz", *client.login[1:]).raise_for_status()


if __name__ == "__main__":
    main()
