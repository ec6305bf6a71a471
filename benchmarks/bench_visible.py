"""How soon an event is a row, with a live projector on a real Kafka and a real Postgres that have little else to do.

Run from the checkout: `python -m benchmarks.bench_visible`.
"""

from __future__ import annotations

import random
import select
import time

from psycopg2 import Error
from psycopg2.extensions import connection as Database

from benchmarks.local_servers import projector, servers
from benchmarks.made_up_folds import CONTEXT, events_of
from datarun.db import connect
from datarun.envelope import encode
from datarun.log.admin import create_topics
from datarun.log.kafka import KafkaLog
from datarun.readmodel.schema import drop_read_model
from datarun.topics import Catalogue

WATCHED = 220
WARMING = 20
"""The first ones waited for the projector to start."""


def visible_seconds(kafka: str, url: str, prefix: str) -> list[float]:
    """Return how long after its acknowledgement each of some scattered events was a row."""
    database, log, catalogue = connect(url), KafkaLog(kafka), Catalogue(prefix)
    create_topics(kafka, prefix=prefix)
    with database:
        drop_read_model(database, schema="rm")
    database.autocommit = True
    waited = []
    with projector(kafka, url, prefix), database.cursor() as cursor:
        cursor.execute("listen datarun_projected")
        for number in range(1, WATCHED + 1):
            event = list(events_of(number))[number % 5]
            position = log.append(encode(event, catalogue=catalogue, context=CONTEXT)).result(60)
            started = time.perf_counter()
            while not _is_projected(database, position):
                select.select([database], [], [], 0.05)
                database.poll()
            waited.append(time.perf_counter() - started)
            time.sleep(random.uniform(0.0, 0.05))
    log.close()
    return sorted(waited[WARMING:])


def _is_projected(database: Database, position: tuple[str, int, int]) -> bool:
    question = "select 1 from rm.projection_offset where topic = %s and partition = %s and next_offset > %s"
    try:
        with database.cursor() as cursor:
            cursor.execute(question, position)
            return cursor.fetchone() is not None
    except Error:
        return False


def main() -> None:
    """Measure and print."""
    with servers() as (kafka, url):
        waited = visible_seconds(kafka, url, "visible.")
    marks = [waited[int(len(waited) * share)] * 1000 for share in (0.5, 0.95, 0.99)]
    print(
        f"acknowledged -> row visible  p50 {marks[0]:.1f}  p95 {marks[1]:.1f}  p99 {marks[2]:.1f} ms   n {len(waited)}"
    )


if __name__ == "__main__":
    main()
