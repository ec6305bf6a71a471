"""The peers' side of bench_peers: one fold over data in memory, as a task of RQ and of Celery.

Run by the peers' own interpreter; what it imports of theirs is installed there alone.
"""

from __future__ import annotations

import os
import sys

from sklearn.datasets import load_iris
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

REDIS_PORT = int(os.environ.get("BENCH_REDIS_PORT", "0"))
REHEARSALS = 5
X, y = load_iris(return_X_y=True)
half, rows = slice(0, None, 2), slice(0, 60)


def fold(trees: int) -> int:
    """Fit and predict both parts; returns how many bytes were predicted."""
    model = RandomForestClassifier(trees, random_state=0) if trees else LogisticRegression()
    pipeline = make_pipeline(StandardScaler(), model).fit(X[half][rows], y[half][rows])
    return len(pipeline.predict_proba(X[half]).tobytes() + pipeline.predict_proba(X[1::2]).tobytes())


def work_rq(kind: str) -> None:
    """Serve as an RQ worker that forks for every job, or one that does not."""
    import redis  # type: ignore[import-not-found]
    from rq import Queue, SimpleWorker, Worker  # type: ignore[import-not-found]

    connection = redis.Redis(port=REDIS_PORT)
    worker = (SimpleWorker if kind == "pool" else Worker)([Queue(kind, connection=connection)], connection=connection)
    worker.work(logging_level="ERROR")


def celery_app() -> object:
    """Return the application as the 2016 service configured it: acknowledged late, one task at a time, gzip."""
    from celery import Celery  # type: ignore[import-not-found]

    url = f"redis://127.0.0.1:{REDIS_PORT}"
    app = Celery("peers", broker=f"{url}/1", backend=f"{url}/2")
    app.conf.update(task_acks_late=True, worker_prefetch_multiplier=1, task_compression="gzip")
    app.task(fold, name="fold")
    return app


if __name__ == "__main__":
    for _ in range(REHEARSALS):
        fold(0)
    if sys.argv[1] == "celery":
        celery_app().worker_main(["worker", "--loglevel=ERROR", *sys.argv[2:]])  # type: ignore[attr-defined]
    else:
        work_rq(sys.argv[1])
