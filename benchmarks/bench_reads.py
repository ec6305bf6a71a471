"""What reading costs with a thousand and with a million folds stored: predictions by list, new ones, one fold.

Run from the checkout: `python -m benchmarks.bench_reads [folds]`. A real gateway on a real Kafka and a real Postgres;
one fold is posted and tested, the others are copies of its rows, all fetched but those that are to be new.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from contextlib import closing
from http.client import OK, HTTPConnection
from pathlib import Path
from urllib.parse import urlsplit

import orjson
import requests
from psycopg2.extensions import cursor as Cursor

from benchmarks.bench_gateway import fold, packed, process
from benchmarks.local_servers import servers
from datarun import tokens
from datarun.blobs import open_blobs
from datarun.db import connect, upgrade
from datarun.envelope import Context, decode, encode, now
from datarun.events import FoldRequested, FoldTested, Metrics, Sandbox
from datarun.log.admin import create_topics
from datarun.log.kafka import KafkaLog
from datarun.projection.apply import apply
from datarun.topics import PROJECTED, Catalogue

CATALOGUE = Catalogue("bench.")
SHAPE = (105, 3)
ASKED = 10
"""Folds in a list, and new ones at a time."""
ROUNDS = 200
FEW = 1000
GOAL_MS = 5.0


class Session:
    """A client with one connection, of the standard library: others take as long as the answers."""

    def __init__(self, url: str, token: str) -> None:
        self._connection = HTTPConnection(urlsplit(url).netloc, timeout=60)
        self._headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}

    def post(self, path: str, body: object, *, items: int) -> float:
        """Return the milliseconds of a request that must bring so many items."""
        taken, content = self._ask("POST", path, orjson.dumps(body))
        if len(orjson.loads(content)) != items:
            raise RuntimeError(f"{path} of {body} did not bring {items} items")
        return taken

    def get(self, path: str) -> float:
        """Return the milliseconds of a request that must succeed."""
        return self._ask("GET", path, None)[0]

    def _ask(self, method: str, path: str, body: bytes | None) -> tuple[float, bytes]:
        begun = time.perf_counter()
        self._connection.request(method, path, body, self._headers)
        answer = self._connection.getresponse()
        content = answer.read()
        taken = (time.perf_counter() - begun) * 1000
        if answer.status != OK:
            raise RuntimeError(f"{path}: {answer.status} {content.decode()}")
        return taken, content


def first_fold(url: str, token: str, kafka: str, postgres: str, blobs: str) -> None:
    """Post a dataset and fold 1 with its files, say that it was tested, and project what the log has."""
    session = requests.Session()
    session.headers["Authorization"] = f"Bearer {token}"
    data = {"name": "iris", "target_column": "species", "workflow_elements": "classifier"}
    made = session.post(f"{url}/runapp/rawdata/", json=data | {"files": {"a.csv": packed(b"a,species\n1,x\n")}})
    files = {"classifier.py": packed(b"class Classifier: ...\n")}
    body = fold(1, raw_data=made.json()["id"], files=files)
    headers = {"Content-Type": "application/json"}
    session.post(f"{url}/runapp/submissionfold/", data=body, headers=headers).raise_for_status()
    predictions = open_blobs(blobs).put(b"\0" * 8 * SHAPE[0] * SHAPE[1])
    with closing(KafkaLog(kafka)) as event_log, closing(connect(postgres)) as connection:
        ends = event_log.end_offsets([CATALOGUE.full_name(topic) for topic in PROJECTED])
        records = [record for batch in event_log.read(dict.fromkeys(ends, 0), until_end=True) for record in batch]
        events = (decode(record.value, record.headers) for record in records)
        requested = next(event for event in events if isinstance(event, FoldRequested))
        tested = FoldTested(
            fold_id=1,
            attempt=1,
            delivery=1,
            submission_id=requested.submission_id,
            raw_data_id=requested.dataset.raw_data_id,
            runner_id="host-1-a",
            metrics=Metrics(train_time=0.1, train_cpu_time=0.1, train_memory=10, validation_time=0.1, test_time=0.1),
            full_train_predictions=predictions,
            full_train_shape=SHAPE,
            test_predictions=predictions,
            test_shape=SHAPE,
            sandbox=Sandbox(level=3, mechanisms=("landlock",)),
        )
        event_log.append(encode(tested, catalogue=CATALOGUE, context=Context("benchmark", now()))).result(30)
        for batch in filter(None, event_log.read(dict.fromkeys(ends, 0), until_end=True)):
            apply(batch, connection, catalogue=CATALOGUE)


def multiply(cursor: Cursor, count: int) -> None:
    """Have so many folds in both models, a hundred to a submission, all fetched."""
    for table in ("intake.submission", "rm.submission"):
        cursor.execute(
            f"""
            insert into {table}
            select (jsonb_populate_record(one, jsonb_build_object('submission_id', n))).*
            from {table} one, generate_series(2, %s / 100 + 1) n
            where one.submission_id = 1 on conflict do nothing""",  # noqa: S608 - our own tables
            (count,),
        )
    for table in ("intake.fold", "rm.fold"):
        cursor.execute(
            f"""
            insert into {table}
            select (jsonb_populate_record(one, jsonb_build_object('fold_id', n, 'submission_id', n / 100 + 1))).*
            from {table} one, generate_series(2, %s) n
            where one.fold_id = 1 on conflict do nothing""",  # noqa: S608 - our own tables
            (count,),
        )
    cursor.execute("update rm.fold set fetched_attempt = 1 where fetched_attempt < 1")


def measure(session: Session, postgres: str, count: int) -> dict[str, float]:
    """Return the median milliseconds of each way to read."""
    with closing(connect(postgres)) as connection:
        with connection, connection.cursor() as cursor:
            multiply(cursor, count)
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute("vacuum analyze")
            taken: dict[str, list[float]] = {name: [] for name in ("list", "none new", "new", "one fold")}
            for number in range(ROUNDS):
                ids = [(number * 7919 + place * 104_729) % count + 1 for place in range(ASKED)]
                listed = {"list_submission_fold": ids}
                taken["list"].append(session.post("/runapp/testpredictions/list/", listed, items=ASKED))
                taken["none new"].append(session.post("/runapp/testpredictions/new/", {}, items=0))
                cursor.execute("delete from intake.fetch_claim")
                cursor.execute("update rm.fold set fetched_attempt = 0 where fold_id = any (%s)", (ids,))
                taken["new"].append(session.post("/runapp/testpredictions/new/", {}, items=ASKED))
                cursor.execute("update rm.fold set fetched_attempt = 1 where fold_id = any (%s)", (ids,))
                taken["one fold"].append(session.get(f"/runapp/submissionfold/{ids[0]}/"))
    return {name: statistics.median(times) for name, times in taken.items()}


def main() -> None:
    """Measure with few folds, with many, and tell how much more the many cost."""
    many = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
    with servers() as (kafka, postgres), tempfile.TemporaryDirectory() as folder:
        create_topics(kafka, prefix=CATALOGUE.prefix)
        upgrade(postgres)
        token = tokens.make()
        tokens.add(postgres, token, "bench", role="admin")
        blobs = Path(folder) / "blobs"
        blobs.mkdir()
        options = ["--dir", folder, "--port", "28919", "--kafka", kafka, "--postgres", postgres]
        options += ["--blobs", blobs.as_uri(), "--topic-prefix", CATALOGUE.prefix]
        with process("services.ingest", *options, port=28919) as url:
            first_fold(url, token, kafka, postgres, blobs.as_uri())
            session = Session(url, token)
            few, much = measure(session, postgres, FEW), measure(session, postgres, many)
    print(f"{'p50, 10 folds an answer':24s} {FEW:>9} folds {many:>9} folds  ratio")
    for name, milliseconds in few.items():
        print(f"{name:24s} {milliseconds:12.1f} ms {much[name]:12.1f} ms {much[name] / milliseconds:6.2f}")
    print(f"goal, new within {GOAL_MS:.0f} ms: {'reached' if much['new'] <= GOAL_MS else 'missed'}")


if __name__ == "__main__":
    main()
