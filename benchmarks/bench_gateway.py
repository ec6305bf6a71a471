"""The gateway on a real Kafka and a real Postgres, beside a handler that only produces and one that only decodes.

Run from the checkout: `python -m benchmarks.bench_gateway [folds]`. Nothing is projected, so an answer waits for the
claim and the log alone. Clients, servers and gateway share the machine.
"""

from __future__ import annotations

import asyncio
import base64
import itertools
import json
import random
import statistics
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

import requests
import uvloop

from benchmarks.local_servers import servers
from datarun import tokens
from datarun.db import connect, upgrade
from datarun.log.admin import create_topics
from datarun.topics import FOLD_EVENTS, PROJECTED, Catalogue

CONNECTIONS = 32
RATE = 200
RATE_SECONDS = 10.0
UPLOAD_MIB = 40
SPECIFIC = "".join(
    f"def {name}(*args): ...\n"
    for name in ("prepare_data", "get_train_data", "get_test_data", "train_submission", "test_submission")
)


def packed(content: bytes) -> str:
    """Return base64(zlib(content))."""
    return base64.b64encode(zlib.compress(content)).decode()


class Client:
    """One connection that sends requests as they are and waits for each answer."""

    def __init__(self, url: str, path: str, token: str) -> None:
        parts = urlsplit(url)
        self._address = (parts.hostname, parts.port)
        self._head = f"POST {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n".encode()

    async def __aenter__(self) -> Self:
        self._reader, self._writer = await asyncio.open_connection(*self._address)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._writer.close()

    async def post(self, body: bytes) -> None:
        """Send a body and wait until it is accepted; raises RuntimeError if it is not."""
        self._writer.write(
            self._head + b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)
        )
        head = await self._reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0])
        answer = await self._reader.readexactly(length)
        if not head.startswith(b"HTTP/1.1 201"):
            raise RuntimeError(answer.decode())


def fold(number: int, **fields: Any) -> bytes:
    """Return a fold's body; a hundred belong to a submission, each on a part of the data of its own."""
    train_is, test_is = indices(number % 100)
    body = {"databoard_sf_id": number, "databoard_s_id": number // 100 + 1, "train_is": train_is, "test_is": test_is}
    return json.dumps(body | fields).encode()


@cache
def indices(part: int) -> tuple[str, str]:
    """Return the indices of one of the folds that all submissions are trained and tested on."""
    chosen = [random.Random(f"{part} {which}").sample(range(1000), 80) for which in ("train", "test")]
    train_is, test_is = (packed(b"".join(value.to_bytes(8, "little") for value in values)) for values in chosen)
    return train_is, test_is


async def flood(url: str, path: str, token: str, bodies: Iterator[bytes]) -> float:
    """Return answers a second over some connections that never rest."""

    async def work() -> int:
        async with Client(url, path, token) as client:
            count = 0
            for body in bodies:
                await client.post(body)
                count += 1
            return count

    started = time.perf_counter()
    counts = await asyncio.gather(*(work() for _ in range(CONNECTIONS)))
    return sum(counts) / (time.perf_counter() - started)


async def paced(url: str, path: str, token: str, bodies: Iterator[bytes]) -> list[float]:
    """Return milliseconds from when each request was due, at a steady rate."""
    started = time.perf_counter()
    due = itertools.count()
    taken: list[float] = []

    async def work() -> None:
        async with Client(url, path, token) as client:
            for number in due:
                at = started + number / RATE
                if number >= RATE * RATE_SECONDS:
                    return
                await asyncio.sleep(max(0.0, at - time.perf_counter()))
                await client.post(next(bodies))
                taken.append((time.perf_counter() - at) * 1000)

    await asyncio.gather(*(work() for _ in range(CONNECTIONS)))
    return taken


def report(name: str, rate: float, times: list[float]) -> None:
    """Print a line."""
    marks = statistics.quantiles(times, n=100)
    print(
        f"{name:34s} {rate:8.0f}/s   at {RATE}/s: p50 {marks[49]:6.1f}  p95 {marks[94]:6.1f}  p99 {marks[98]:6.1f} ms"
    )


def upload(url: str, path: str, token: str, body: bytes) -> float:
    """Return MiB of content a second."""
    started = time.perf_counter()
    answer = requests.post(
        url + path,
        data=body,
        headers={"Authorization": f"Bearer {token}", "Content-Type": "application/json"},
        timeout=300,
    )
    answer.raise_for_status()
    return UPLOAD_MIB / (time.perf_counter() - started)


@contextmanager
def process(*arguments: str, port: int | None = None) -> Iterator[str]:
    """Run a server and yield its URL; without a port it prints it."""
    log = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the process
    with subprocess.Popen([sys.executable, "-m", *arguments], stdout=subprocess.PIPE, stderr=log) as running:
        try:
            if port is None and running.stdout is not None:
                port = int(running.stdout.readline())
            url = f"http://127.0.0.1:{port}"
            for _ in range(300):
                try:
                    requests.get(f"{url}/healthz", timeout=5)
                    break
                except requests.ConnectionError:
                    time.sleep(0.05)
            yield url
        finally:
            running.terminate()


def prepare(kafka: str, postgres: str, prefix: str) -> str:
    """Make topics, tables and a token; the read model claims to know all there will be."""
    create_topics(kafka, prefix=prefix)
    upgrade(postgres)
    token = tokens.make()
    tokens.add(postgres, token, "bench", role="admin")
    with connect(postgres) as connection, connection.cursor() as cursor:
        for topic in PROJECTED:
            cursor.execute(
                "insert into rm.projection_offset select %s, generate_series(0, %s), 1000000000",
                (Catalogue(prefix).full_name(topic), topic.partitions - 1),
            )
    return token


def main() -> None:
    """Measure both, one after the other, twice."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 5000
    uvloop.install()
    with servers() as (kafka, postgres), tempfile.TemporaryDirectory() as folder:
        token = prepare(kafka, postgres, "bench.")
        topic = Catalogue("bench.").full_name(FOLD_EVENTS)
        blobs = Path(folder) / "blobs"
        blobs.mkdir()
        options = ["--dir", folder, "--port", "28917", "--kafka", kafka, "--postgres", postgres]
        options += ["--blobs", blobs.as_uri(), "--topic-prefix", "bench."]
        with (
            process("benchmarks.bare_gateway", kafka, topic) as bare,
            process("services.ingest", *options, port=28917) as ours,
        ):
            measure(bare, ours, token, count)


def measure(bare: str, ours: str, token: str, count: int) -> None:
    """Print what both do with folds and with an upload."""
    chance = random.Random(1)
    table = "a,b,species\n" + "".join(f"{chance.random():.4f},{n},x\n" for n in range(10_000))
    data = {"name": "iris", "target_column": "species", "workflow_elements": "classifier"}
    made = requests.post(
        f"{ours}/runapp/rawdata/",
        json=data | {"files": {"a.csv": packed(table.encode())}},
        headers={"Authorization": f"Bearer {token}"},
        timeout=30,
    ).json()["id"]
    first = {"raw_data": made, "files": {"classifier.py": packed(b"class Classifier: ...\n")}}
    total = (4 * count + 4 * int(RATE * RATE_SECONDS)) * 100 // 99 + 200
    # A submission's first fold brings its files.
    asyncio.run(flood(ours, "/runapp/submissionfold/", token, iter([fold(n, **first) for n in range(1, total, 100)])))
    waiting = (fold(n) for n in range(1, total) if n % 100 != 1)
    for _ in range(2):
        for name, url, path in (
            ("a handler that only produces", bare, "/produce"),
            ("POST fold, claimed and logged", ours, "/runapp/submissionfold/"),
        ):
            rate = asyncio.run(flood(url, path, token, itertools.islice(waiting, count)))
            report(name, rate, asyncio.run(paced(url, path, token, waiting)))
    content = [chance.randbytes(UPLOAD_MIB << 18) for _ in range(4)]
    files = {"specific.py": packed(SPECIFIC.encode())} | {f"{n}.bin": packed(part) for n, part in enumerate(content)}
    for number in range(2):
        body = json.dumps(data | {"name": f"large {number}", "files": files | {"n": packed(b"%d" % number)}}).encode()
        print(f"{'a handler that only decodes':34s} {upload(bare, '/decode', token, body):8.0f} MiB/s of {UPLOAD_MIB}")
        print(f"{'POST rawdata, checked and stored':34s} {upload(ours, '/runapp/rawdata/', token, body):8.0f} MiB/s")


if __name__ == "__main__":
    main()
