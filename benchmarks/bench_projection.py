"""The projection on a real Kafka and a real Postgres: live, rebuilt, and beside raw COPY of the same rows in one run.

Run from the checkout: `python -m benchmarks.bench_projection [folds ...]`; without any, 10^4 and 10^6 events.
"""

from __future__ import annotations

import io
import os
import sys
import time
from functools import partial

from benchmarks.costs import Cost, measured, report
from benchmarks.local_servers import projected, projector, servers
from benchmarks.made_up_folds import fill
from datarun.db import connect
from datarun.log.admin import create_topics
from datarun.log.kafka import KafkaLog
from datarun.projection.rebuild import Rebuild
from datarun.projection.share import Ground
from datarun.projection.verify import verify
from datarun.projection.whole import FOLD_COLUMNS
from datarun.readmodel.schema import create_read_model, drop_read_model
from datarun.topics import Catalogue

PATIENCE_SECONDS = 600.0
FOLDS_MADE = (2_000, 200_000)


def live_rate(kafka: str, url: str, prefix: str, *, count: int) -> float:
    """Return events a second of the live projector, from its first batch to its last."""
    database = connect(url)
    with database:
        drop_read_model(database, schema="rm")
    with projector(kafka, url, prefix):
        deadline = time.monotonic() + PATIENCE_SECONDS
        first, started = 0, time.perf_counter()
        while (now := projected(database)) < count and time.monotonic() < deadline:
            if first == 0:
                first, started = now, time.perf_counter()
            time.sleep(0.01)
        return (now - first) / (time.perf_counter() - started)


def rebuild_cost(kafka: str, url: str, prefix: str) -> tuple[Cost, bool]:
    """Return what a rebuild took, and whether it equals the live read model."""
    ground = Ground(partial(KafkaLog, kafka), partial(connect, url), Catalogue(prefix), "rm_next")
    work = Rebuild(ground, progress=lambda *_: None)
    costs: list[Cost] = []
    with measured(costs):
        work.build(fresh=True)
    return costs[0], verify(work).equal


def copy_cost(url: str) -> Cost:
    """Return what a raw COPY of the same folds into an empty table with the same indexes took."""
    columns = ", ".join(FOLD_COLUMNS)
    database, rows, costs = connect(url), io.BytesIO(), list[Cost]()
    with database, database.cursor() as cursor:
        cursor.copy_expert(f"copy rm.fold ({columns}) to stdout (format binary)", rows)
        create_read_model(database, schema="rm_copy")
    rows.seek(0)
    with measured(costs), database, database.cursor() as cursor:
        cursor.copy_expert(f"copy rm_copy.fold ({columns}) from stdin (format binary)", rows)
    with database:
        drop_read_model(database, schema="rm_copy")
    database.close()
    return costs[0]


def compare(kafka: str, url: str, prefix: str, *, folds: int) -> None:
    """Fill a log with so many folds, and print what each way to its rows takes."""
    create_topics(kafka, prefix=prefix)
    log = KafkaLog(kafka)
    count = fill(log, Catalogue(prefix), folds)
    log.close()
    print(f"{count:,} events of {folds:,} folds", flush=True)
    print(f"live projector              {live_rate(kafka, url, prefix, count=count):10,.0f} events/s", flush=True)
    copied = copy_cost(url)
    report("raw COPY of the fold rows", copied, count)
    cost, equal = rebuild_cost(kafka, url, prefix)
    report("rebuild", cost, count, f"{copied.seconds / cost.seconds:.2f} of COPY   {'equal' if equal else 'DIFFERENT'}")


def main() -> None:
    """Measure and print."""
    sizes = [int(folds) for folds in sys.argv[1:]] or FOLDS_MADE
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    with servers() as (kafka, url):
        for folds in sizes:
            compare(kafka, url, f"bench{folds}.", folds=folds)


if __name__ == "__main__":
    main()
