"""How well runners share a load: real runners over a real Kafka, whose folds sleep; each load beside its ideal.

The ideal starts each fold, in the order it came, on the first slot that is free, and costs nothing itself.
"""

from __future__ import annotations

import argparse
import heapq
import random
import signal
import subprocess
import tempfile
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from datarun.cli.environment import cache_folder, trust_system_certificates
from datarun.events import FoldFailed, FoldHandedBack, FoldStarted, Priority
from datarun.log.admin import create_topics
from datarun.stack.kafka import local_kafka
from datarun.stack.prepare import ensure_kafka
from datarun.topics import FOLD_EVENTS, FOLD_REQUESTS_LOW, Catalogue
from tests.sleeping import Ground, Runner, ground, sleeping

PATIENCE_SECONDS = 120.0
SETTLING_SECONDS = 3.0
"""So that every runner is a member of every share group when the clock starts."""
GOAL = 1.05
RUNNERS = 3
WARM = 1_000_000
"""The numbers of the folds that are not measured begin here."""

LOADS: dict[str, list[float]] = {
    "skewed: 9 of 2 s": [2.0] * 9,
    "long: 6 of 4 s": [4.0] * 6,
    "short: 90 of 0.2 s": [0.2] * 90,
    "mixed: 6 of 2 s among 120 of 0.1 s": random.Random(4).sample([2.0] * 6 + [0.1] * 120, 126),
    "tiny, without a goal: 180 of 0.05 s": [0.05] * 180,
}


def ideal(seconds: Sequence[float], slots: int) -> float:
    """Return how long the folds take on so many slots when nothing but the folds takes time."""
    free = [0.0] * slots
    for each in seconds:
        heapq.heapreplace(free, free[0] + each)
    return max(free)


@contextmanager
def broker(folder: Path) -> Iterator[str]:
    """Run a broker of our own."""
    trust_system_certificates()
    program, template = ensure_kafka(cache_folder())
    kafka = local_kafka(program, folder / "kafka")
    kafka.folder.mkdir()
    kafka.prepare(template)
    command = kafka.command()
    with (
        (folder / "kafka.log").open("wb") as log,
        subprocess.Popen(command.argv, stdout=log, stderr=log, **command.popen_options()) as process,
    ):
        try:
            while not kafka.is_ready():
                time.sleep(0.02)
            yield kafka.bootstrap
        finally:
            process.send_signal(signal.SIGTERM)


@contextmanager
def fresh(
    kafka: str, folder: Path, *, runners: int, options: Sequence[str] = ()
) -> Iterator[tuple[Ground, list[Runner]]]:
    """Make an installation with runners that wait for work."""
    prefix = f"b{uuid.uuid4().hex[:8]}."
    create_topics(kafka, prefix=prefix)
    own = folder / prefix
    own.mkdir()
    with ground(kafka, Catalogue(prefix), own) as made:
        started = made.start_ready(*options, count=runners)
        # The first record of all makes Kafka's topic for the state of share groups, which takes a second or more.
        made.append(sleeping(WARM + place, 0, priority) for place, priority in enumerate(Priority))
        wait_for(lambda: finished(made) == len(Priority))
        time.sleep(SETTLING_SECONDS)
        yield made, started


def wait_for(condition: Callable[[], bool]) -> None:
    """Wait until something is so."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError
        time.sleep(0.5)


def finished(made: Ground) -> int:
    """Return how many folds have ended."""
    return len(ends(made))


def ends(made: Ground) -> list[tuple[int, int]]:
    """Return the folds that have ended, each with the broker's time in ms."""
    return [(e.fold_id, r.timestamp_ms) for r, e in made.stored(FOLD_EVENTS) if isinstance(e, FoldFailed)]


def makespan(made: Ground) -> float:
    """Return the seconds from the first request to the last end, by the broker's clock."""
    begun = min(record.timestamp_ms for record, request in made.stored(FOLD_REQUESTS_LOW) if request.fold_id < WARM)
    return (max(at for fold_id, at in ends(made) if fold_id < WARM) - begun) / 1000


def bare(seconds: Sequence[float]) -> float:
    """Return how long a pool of bare processes takes on this machine, as it is now."""
    with ProcessPoolExecutor(RUNNERS) as pool:
        list(pool.map(time.sleep, [0.01] * RUNNERS))
        begun = time.perf_counter()
        list(pool.map(time.sleep, seconds))
        return time.perf_counter() - begun


def measure(kafka: str, folder: Path, name: str, seconds: Sequence[float]) -> float:
    """Print one load's time and return how much longer than the ideal it took."""
    with fresh(kafka, folder, runners=RUNNERS) as (made, _):
        made.append(sleeping(number, each) for number, each in enumerate(seconds, 1))
        best = ideal(seconds, RUNNERS)
        time.sleep(best)  # to look on would take the CPU from what is measured
        wait_for(lambda: finished(made) >= len(seconds) + len(Priority))
        taken = makespan(made)
        complaints = [line for runner in made.runners for line in runner.complaints()]
    ratio, pool = taken / best, bare(seconds)
    print(
        f"{name:36s} {taken:6.2f} s  ideal {best:6.2f}: {100 * (ratio - 1):+5.1f} %  "
        f"a bare pool {100 * (pool / best - 1):+5.1f} %",
        flush=True,
    )
    for line in complaints:
        print(f"  {line}")
    return ratio


def come_and_go(kafka: str, folder: Path) -> bool:
    """Add and remove runners under load, in order and at once; return whether every fold ended exactly once."""
    folds = range(1, 241)
    with fresh(kafka, folder, runners=2, options=("--grace", "0")) as (made, crowd):
        made.append(sleeping(number, 0.25) for number in folds)
        for _ in range(4):
            crowd += [*made.start_ready("--grace", "0"), *made.start_ready("--grace", "5", "--slots", "2")]
            crowd.pop(0).signal()
            time.sleep(1)
        wait_for(lambda: finished(made) >= len(folds) + len(Priority))
        time.sleep(1)
        events = [event for _, event in made.stored(FOLD_EVENTS) if event.fold_id < WARM]
    ended = Counter(event.fold_id for event in events if isinstance(event, FoldFailed))
    started = Counter((e.fold_id, e.delivery) for e in events if isinstance(e, FoldStarted))
    handed = sum(isinstance(event, FoldHandedBack) for event in events)
    once = ended == Counter(folds) and set(started.values()) == {1}
    print(
        f"{'runners come and go':36s} {len(folds)} folds: "
        f"{len(ended)} ended, {sum(ended.values()) - len(ended)} twice; "
        f"{sum(started.values())} deliveries, {sum(started.values()) - len(started)} started twice, "
        f"{handed} handed over",
        flush=True,
    )
    return once


def high_waits(kafka: str, folder: Path) -> None:
    """Print how long new high folds wait while low ones of 1 s fill every slot."""
    waits = []
    with fresh(kafka, folder, runners=RUNNERS) as (made, _):
        made.append(sleeping(number, 1.0) for number in range(1, 61))
        for number in range(101, 116):
            time.sleep(random.uniform(0.7, 1.3))
            sent = time.time()
            made.append([sleeping(number, 0.1, Priority.HIGH)])
            waits.append((number, sent))
        time.sleep(2)
        started = {e.fold_id: r.timestamp_ms / 1000 for r, e in made.stored(FOLD_EVENTS) if isinstance(e, FoldStarted)}
    seconds = sorted(started[number] - sent for number, sent in waits)
    print(
        f"{'a new high fold, low ones of 1 s run':36s} "
        f"waits {seconds[len(seconds) // 2]:.2f} s, at most {seconds[-1]:.2f}"
    )


def main() -> None:
    """Measure every load, or those whose name starts as told."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="start of a load's name")
    only = parser.parse_args().only
    with tempfile.TemporaryDirectory(prefix="datarun-bench-") as name, broker(Path(name)) as kafka:
        ratios = {load: measure(kafka, Path(name), load, s) for load, s in LOADS.items() if load.startswith(only)}
        if not only:
            high_waits(kafka, Path(name))
            once = come_and_go(kafka, Path(name))
            print("nothing ran twice and nothing was lost" if once else "SOMETHING RAN TWICE OR WAS LOST")
    missed = [load for load, ratio in ratios.items() if ratio > GOAL and not load.startswith("tiny")]
    print(f"goal, 5 % above the ideal: {'missed by ' + ', '.join(missed) if missed else 'reached by all'}")


if __name__ == "__main__":
    main()
