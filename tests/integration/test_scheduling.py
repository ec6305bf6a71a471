"""Runners that come, go, stop and die under load, on a real Kafka: what starts next, how often, and what is left."""

from __future__ import annotations

import signal
import time
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from datarun.events import (
    Event,
    FoldFailed,
    FoldHandedBack,
    FoldStarted,
    Priority,
    RunnerHeartbeat,
)
from datarun.log.admin import create_topics
from datarun.topics import FOLD_EVENTS, FOLD_REQUESTS_LOW, RUNNER_STATUS, Catalogue
from services.runner.turns import ASKED, SHARE
from tests.projecting import Installation, wait_until
from tests.sleeping import Ground, ground, sleeping

SECONDS = 60
GRACE, BEYOND = 1, 2


@pytest.fixture
def system(kafka: str, topic_prefix: str, tmp_path: Path) -> Iterator[Ground]:
    """Make the topics of a fresh installation."""
    create_topics(kafka, prefix=topic_prefix)
    with ground(kafka, Catalogue(topic_prefix), tmp_path) as made:
        yield made


def told(system: Ground, kind: type[Event]) -> list[int]:
    """Return the folds of which something was told, in that order."""
    return [event.fold_id for _, event in system.stored(FOLD_EVENTS) if isinstance(event, kind)]


def runs(system: Ground, fold_id: int) -> list[tuple[str, int]]:
    """Return what happened to a fold, with its deliveries."""
    events = [event for _, event in system.stored(FOLD_EVENTS) if event.fold_id == fold_id]
    return [(type(event).__name__, event.delivery) for event in events]


def wait_started(system: Ground, count: int) -> None:
    """Wait until so many folds have started."""
    wait_until(lambda: len(told(system, FoldStarted)) >= count, SECONDS)


def test_runners_come_and_go_and_every_fold_runs_once(system: Ground) -> None:
    """Two stop in order and two join while others work: nothing is started twice, nothing is left."""
    first, second = system.start_ready(count=2)
    folds = range(1, 61)
    system.append(sleeping(fold_id, 0.2) for fold_id in folds)
    wait_started(system, 5)
    system.start()
    wait_started(system, 15)
    first.signal()
    system.start("--slots", "2")
    wait_started(system, 30)
    second.signal()
    wait_until(lambda: set(told(system, FoldFailed)) == set(folds), SECONDS)
    assert (first.wait(), second.wait()) == (0, 0)
    assert Counter(told(system, FoldStarted)) == Counter(folds)
    assert Counter(told(system, FoldFailed)) == Counter(folds)


def test_a_new_high_fold_is_the_next_to_start(system: Ground) -> None:
    """It waits for the one that runs, not for the low ones that came before it."""
    system.start_ready()
    system.append(sleeping(fold_id, 1) for fold_id in range(1, 6))
    wait_started(system, 2)
    system.append([sleeping(100, 0.1, Priority.HIGH)])
    wait_started(system, 6)
    assert told(system, FoldStarted).index(100) == 2


def test_low_gets_its_share_of_endless_high(system: Ground) -> None:
    """One start in eight, however many high folds wait."""
    system.start_ready()
    system.append([sleeping(1, 0.5, Priority.HIGH)])
    wait_started(system, 1)
    system.append(sleeping(fold_id, 0.05, Priority.HIGH) for fold_id in range(2, 42))
    system.append(sleeping(fold_id, 0.05) for fold_id in (101, 102, 103))
    wait_started(system, 44)
    order = told(system, FoldStarted)
    places = [order.index(fold_id) for fold_id in (101, 102, 103)]
    gaps = [later - earlier for earlier, later in pairwise([0, *places])]
    # What arrives late keeps its turn for so many more starts.
    assert max(gaps) <= SHARE + ASKED - 1, gaps


@pytest.mark.parametrize("grace", [0, GRACE])
def test_a_stopping_runner_hands_its_fold_to_another_at_once(system: Ground, grace: int) -> None:
    """No reaper is there: the next delivery comes from the runner itself, which ends in time and with 0."""
    (stopped,) = system.start_ready("--grace", str(grace), "--slots", "2")
    system.append([sleeping(1, 30), sleeping(2, 0.2)])
    wait_started(system, 2)
    asked = time.monotonic()
    stopped.signal()
    assert stopped.wait(grace + BEYOND + 1) == 0
    assert time.monotonic() - asked <= grace + BEYOND
    assert (FoldHandedBack.__name__, 1) in runs(system, 1)
    last = [event for _, event in system.stored(RUNNER_STATUS) if isinstance(event, RunnerHeartbeat)][-1]
    assert (last.stopping, last.running) == (True, ())
    system.start_ready("--grace", "0")
    wait_until(lambda: (FoldStarted.__name__, 2) in runs(system, 1), SECONDS)
    requests = [event for _, event in system.stored(FOLD_REQUESTS_LOW) if event.fold_id == 1]
    assert [(request.delivery, request.handed_back) for request in requests] == [(1, 0), (2, 1)]
    assert requests[1].model_copy(update={"delivery": 1, "handed_back": 0}) == requests[0]


def test_the_second_signal_ends_a_runner_at_once(system: Ground) -> None:
    """Whoever asks twice does not want to wait; the lease says the rest."""
    (runner,) = system.start_ready("--grace", "60")
    system.append([sleeping(1, 60)])
    wait_started(system, 1)
    runner.signal()
    wait_until(lambda: "runner.stopping" in runner.output.read_text(), SECONDS)
    assert runner.process.poll() is None
    runner.signal(signal.SIGINT)
    assert runner.wait(BEYOND) == -signal.SIGINT


@pytest.mark.parametrize("point", ["runner.after_claim", "runner.after_requested_again"])
def test_a_runner_killed_while_it_hands_over_leaves_nothing_half_done(
    system: Ground, postgres_url: str, point: str
) -> None:
    """Requested already or not: the fold runs once more, as delivery 2, and its loss is told."""
    installation = Installation(system.kafka, postgres_url, system.catalogue, system.folder)
    with installation.projector() as projector:
        dying = system.start("--grace", "0", crash_at=point)
        dying.wait_ready()
        projector.wait_ready()
        system.append([sleeping(1, 12)])
        wait_started(system, 1)
        system.start()
        dying.signal()
        assert dying.wait() == -signal.SIGKILL
        wait_until(lambda: ("FoldFailed", 2) in runs(system, 1), SECONDS)
    happened = set(runs(system, 1))
    # Who is not quick to start the next delivery hears of the loss first.
    if point == "runner.after_claim":
        assert ("FoldLost", 1) in happened
    assert happened - {("FoldLost", 1)} == {("FoldStarted", 1), ("FoldStarted", 2), ("FoldFailed", 2)}
    requests = [event.delivery for _, event in system.stored(FOLD_REQUESTS_LOW)]
    assert requests == [1, 2]
