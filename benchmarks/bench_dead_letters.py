"""How soon a record that nobody can apply or run is a dead letter in /v1, of every kind, on a running stack.

Beside it stands, from the same rounds, how soon a good request of the same stranger is a fold in /v1, and what asking
alone costs. Run from the checkout: `python -m benchmarks.bench_dead_letters`.
"""

from __future__ import annotations

import argparse
import os
import random
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from functools import partial
from itertools import count
from pathlib import Path
from urllib.parse import urlsplit

import requests
from prometheus_client.parser import text_string_to_metric_families

from benchmarks.bench_end_to_end import POLL_SECONDS, Client
from datarun import post_api
from datarun.blobs import LocalBlobs
from datarun.db import connect
from datarun.dead_letters.letters import PROJECTOR
from datarun.demo import EXAMPLE
from datarun.envelope import decode, encode
from datarun.events import FoldRequested
from datarun.log import Position
from datarun.log.kafka import KafkaLog
from datarun.signing_keys import ROLES, load_keys, new_file
from datarun.stack.connection import Connection
from datarun.stack.running import running_stack
from datarun.topics import DEFAULT_PREFIX, FOLD_REQUESTS_HIGH, Catalogue
from tests.projecting import CONTEXT
from tests.spoiled import Known, Spoiled, Stranger, fold, spoiled

WAIT_SECONDS = 30.0
_ROW = 'select 1 from rm.dead_letter where (topic, partition, "offset") = (%s, %s, %s)'


class Stack:
    """A stack whose answers are looked at."""

    def __init__(self, connection: Connection, keys: Path) -> None:
        self.client = Client(connection)
        self.connection = connection
        self.catalogue = Catalogue(DEFAULT_PREFIX, load_keys(keys))
        self.session = requests.Session()
        self.session.auth = (connection.user, connection.password)
        self.database = connect(connection.postgres_url)
        self.database.autocommit = True
        self.datasets = count(1)

    def get(self, path: str) -> requests.Response:
        """GET something."""
        return self.session.get(f"{self.connection.gateway_url}{path}", timeout=30)

    def finders(self, place: Position) -> set[str]:
        """Return who has found that a record is dead, as /v1 tells it."""
        after = f"limit=1&after={place.topic}:{place.partition}:{place.offset - 1}" if place.offset else "limit=1000"
        answer = self.get(f"/v1/dead-letters?{after}")
        answer.raise_for_status()
        items = answer.json()["items"]
        wanted = f"{place.topic}:{place.partition}:{place.offset}"
        return {name for one in items if one["position"] == wanted for name in one["found_by"]}

    def is_fold(self, fold_id: int) -> bool:
        """Tell whether /v1 knows a fold."""
        return self.get(f"/v1/folds/{fold_id}").ok

    def is_row(self, place: Position) -> bool:
        """Tell whether the read model has a dead letter."""
        with self.database.cursor() as cursor:
            cursor.execute(_ROW, place)
            return cursor.fetchone() is not None

    def unread(self) -> float:
        """Return how many records projector and gateway have not looked at."""
        families = text_string_to_metric_families(self.get("/metrics").text)
        lags = ("datarun_projection_lag_records", "datarun_claims_lag_records")
        return sum(one.value for family in families for one in family.samples if one.name in lags)

    def accepted(self) -> FoldRequested:
        """Return the request of the one fold that was posted."""
        log = KafkaLog(self.connection.kafka)
        ends = log.end_offsets([self.catalogue.full_name(FOLD_REQUESTS_HIGH)])
        events = [
            decode(one.value, one.headers) for some in log.read(dict.fromkeys(ends, 0), until_end=True) for one in some
        ]
        log.close()
        return next(one for one in events if isinstance(one, FoldRequested))

    def known(self, accepted: FoldRequested) -> Known:
        """Return what the kinds are made from, with a dataset of their own."""
        answer = post_api.post_data(
            *self.client.login, f"unsplit{next(self.datasets)}", "species", "classifier", str(EXAMPLE / "iris.csv")
        )
        blobs = LocalBlobs(Path(urlsplit(self.connection.blobs).path))
        return Known(self.catalogue, blobs, accepted, int(answer.json()["id"]))


def until(condition: Callable[[], bool], since: float, *, name: str = "a good request") -> float:
    """Return how long after a moment a condition came to hold."""
    while not condition():
        if time.perf_counter() - since > WAIT_SECONDS:
            raise TimeoutError(f"{name}: {WAIT_SECONDS:.0f} s")
        time.sleep(POLL_SECONDS)
    return time.perf_counter() - since


class Taken:
    """The seconds that were measured."""

    def __init__(self) -> None:
        self.kinds: dict[str, Spoiled] = {}
        self.listed: dict[str, list[float]] = defaultdict(list)
        self.by_all: dict[str, list[float]] = defaultdict(list)
        self.rows: dict[str, list[float]] = defaultdict(list)
        self.good: list[float] = []
        self.asking: list[float] = []
        self.unread: list[float] = []

    def report(self) -> None:
        """Print median and greatest of each in ms."""
        print(f"{'ms, median and greatest':33s}{'reason':17s}{'listed':>15s}  {'by all':>15s}  {'a row':>15s}")
        for name, one in self.kinds.items():
            times = "  ".join(_marks(of_kind[name]) for of_kind in (self.listed, self.by_all, self.rows))
            print(f"{name:33s}{one.reason:17s}{times}")
        print(f"{'a good request is a fold':50s}{_marks(self.good)}")
        print(f"{'asking for one letter':50s}{_marks(self.asking)}")
        print(f"{'after a round: nothing is unread':50s}{_marks(self.unread)}")
        print(f"n {len(self.unread)} of each, load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")


def _marks(seconds: Sequence[float]) -> str:
    if not seconds:
        return f"{'-':>7} {'-':>7}"
    ordered = sorted(seconds)
    return f"{ordered[len(ordered) // 2] * 1000:7.0f} {ordered[-1] * 1000:7.0f}"


def measure(stack: Stack, *, rounds: int) -> Taken:
    """Return how soon each kind was listed, by all who find it, and a row."""
    stack.client.prepare()
    accepted, stranger, taken = stack.accepted(), Stranger(stack.connection.kafka), Taken()
    for number in range(rounds + 1):
        # The first round finds everything cold.
        taken = Taken() if number <= 1 else taken
        first = 1_500_000_000 + number * 100
        known = stack.known(accepted)
        kinds = [*spoiled(known, first), *(fold(known, first + step) for step in (10, 11, 12))]
        random.shuffle(kinds)
        for one in kinds:
            if isinstance(one, Spoiled):
                _measure_letter(stack, stranger, one, taken)
            else:
                stranger.append(encode(one, catalogue=stack.catalogue, context=CONTEXT))
                taken.good.append(until(partial(stack.is_fold, one.fold_id), time.perf_counter()))
        taken.unread.append(until(lambda: stack.unread() == 0, time.perf_counter()))
    return taken


def _measure_letter(stack: Stack, stranger: Stranger, one: Spoiled, taken: Taken) -> None:
    place = stranger.append(one.record, partition=one.partition)
    began = time.perf_counter()
    taken.kinds[one.name] = one
    taken.listed[one.name].append(until(lambda: bool(stack.finders(place)), began, name=one.name))
    if PROJECTOR in one.found_by:
        taken.rows[one.name].append(until(lambda: stack.is_row(place), began))
    taken.by_all[one.name].append(until(lambda: stack.finders(place) >= set(one.found_by), began, name=one.name))
    asking = time.perf_counter()
    stack.finders(place)
    taken.asking.append(time.perf_counter() - asking)


def main() -> None:
    """Measure a stack in a fresh folder whose events are signed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=20)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="datarun-bench-") as fresh:
        keys = Path(fresh) / "keys.json"
        keys.write_text(new_file("datarun", ROLES))
        os.environ["DATARUN_SIGNING_KEYS"] = str(keys)
        with running_stack(Path(fresh) / "stack", output=Path(fresh) / "stack.log") as stack:
            measure(Stack(stack.connection, keys), rounds=arguments.rounds).report()


if __name__ == "__main__":
    main()
