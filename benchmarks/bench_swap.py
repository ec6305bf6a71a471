"""Read models swapped while readers ask a gateway and events go on coming: how long, and whether anybody noticed.

Run from the checkout: `python -m benchmarks.bench_swap [folds] [swaps]`.
"""

from __future__ import annotations

import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import requests

from benchmarks.local_servers import projected, projector, servers
from benchmarks.made_up_folds import CONTEXT, events_of, fill
from datarun import accounts, db
from datarun.db import connect
from datarun.envelope import encode
from datarun.log.admin import create_topics
from datarun.log.kafka import KafkaLog
from datarun.projection.rebuild import Rebuild
from datarun.projection.share import Ground
from datarun.projection.swap import Swapped, roll_back, swap
from datarun.readmodel import NEXT, OLD
from datarun.topics import Catalogue

READERS = 4
PREFIX = "swap."
USER = ("reader", "a benchmark's password")
READY_SECONDS = 60.0


@contextmanager
def gateway(kafka: str, url: str) -> Iterator[str]:
    """Run a gateway and yield its URL."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with tempfile.TemporaryDirectory(prefix="datarun-bench-") as blobs:
        servers_of = ["--kafka", kafka, "--postgres", url, "--blobs", blobs, "--topic-prefix", PREFIX]
        command = [sys.executable, "-m", "services.ingest", "--port", str(port), *servers_of]
        process = subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + READY_SECONDS
        while time.monotonic() < deadline:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.05)
        try:
            yield f"http://127.0.0.1:{port}/runapp/submissionfold"
        finally:
            process.terminate()
            process.wait(30)


class Readers:
    """Ask for one fold after the other until stopped; count the answers, keep how long each took."""

    def __init__(self, url: str, folds: int) -> None:
        self._url = url
        self._folds = folds
        self._stopping = threading.Event()
        self._threads = [threading.Thread(target=self._read, args=(number,)) for number in range(READERS)]
        self.seconds: list[float] = []
        self.failed = 0

    def start(self) -> None:
        """Start reading."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Stop reading."""
        self._stopping.set()
        for thread in self._threads:
            thread.join()

    def _read(self, number: int) -> None:
        with requests.Session() as session:
            while not self._stopping.is_set():
                number = number % self._folds + 1
                started = time.perf_counter()
                try:
                    answer = session.get(f"{self._url}/{number}/", auth=USER, timeout=30)
                    self.failed += answer.status_code != requests.codes.ok
                except requests.RequestException:
                    self.failed += 1
                self.seconds.append(time.perf_counter() - started)


def append_for_ever(log: KafkaLog, folds: int, stopping: threading.Event) -> None:
    """Append the lives of new folds, some a second."""
    number = folds
    while not stopping.wait(0.02):
        number += 1
        for event in events_of(number):
            log.append(encode(event, catalogue=Catalogue(PREFIX), context=CONTEXT)).result(60)


def swap_often(kafka: str, url: str, swaps: int) -> list[Swapped]:
    """Swap and roll back in turn."""
    done = []
    for number in range(swaps):
        schema = OLD if number % 2 else NEXT
        ground = Ground(partial(KafkaLog, kafka), partial(connect, url), Catalogue(PREFIX), schema)
        work = Rebuild(ground, progress=lambda *_: None)
        done.append(roll_back(work) if number % 2 else swap(work))
        time.sleep(0.5)
    return done


def main() -> None:
    """Measure and print."""
    folds = int(sys.argv[1]) if len(sys.argv) > 1 else 4_000
    swaps = int(sys.argv[2]) if len(sys.argv) > 2 else 10
    with servers() as (kafka, url):
        create_topics(kafka, prefix=PREFIX)
        db.upgrade(url)
        accounts.add(url, *USER)
        log, stopping = KafkaLog(kafka), threading.Event()
        count = fill(log, Catalogue(PREFIX), folds)
        with projector(kafka, url, PREFIX), gateway(kafka, url) as address:
            while projected(connect(url)) < count:
                time.sleep(0.5)
            ground = Ground(partial(KafkaLog, kafka), partial(connect, url), Catalogue(PREFIX), NEXT)
            Rebuild(ground, progress=lambda *_: None).build()
            readers = Readers(address, folds)
            writer = threading.Thread(target=append_for_ever, args=(log, folds, stopping))
            readers.start()
            writer.start()
            done = swap_often(kafka, url, swaps)
            stopping.set()
            writer.join()
            readers.stop()
        log.close()
    held, renaming = sorted(one.held_seconds for one in done), sorted(one.renaming_seconds for one in done)
    asked = sorted(readers.seconds)
    print(f"{swaps} swaps of {folds:,} folds under {READERS} readers: {len(asked):,} requests, {readers.failed} failed")
    print(f"projection held  p50 {held[len(held) // 2] * 1000:.0f}  max {held[-1] * 1000:.0f} ms")
    print(f"renaming         p50 {renaming[len(renaming) // 2] * 1000:.1f}  max {renaming[-1] * 1000:.1f} ms")
    print(f"answers          p50 {asked[len(asked) // 2] * 1000:.0f}  max {asked[-1] * 1000:.0f} ms")


if __name__ == "__main__":
    main()
