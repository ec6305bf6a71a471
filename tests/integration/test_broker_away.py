"""A broker of the test's own that stands still for longer than its session, or is killed under a gateway's load."""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from itertools import count
from pathlib import Path

import structlog

from datarun.envelope import Context, encode, header, now
from datarun.events import FoldRequested, FoldTested
from datarun.log import Position
from datarun.log.admin import create_topics
from datarun.log.kafka import KafkaLog
from datarun.published.examples import EXAMPLES
from datarun.topics import TOPICS, Catalogue
from tests.brokers import running_broker
from tests.gateways import fold_body, pretend_projected, read_log, running_gateway, wait_until

SESSION_SECONDS = 2.0
"""The local broker's `broker.session.timeout.ms`."""
ASKED_SECONDS = 1.5
AWAY_SECONDS = float(os.environ.get("DATARUN_TEST_AWAY_SECONDS", "3"))
"""How long the killed broker stays away; sixty, say, for a drill."""
CLIENTS = 4
OWED = "select count(*) from intake.outbox where sent_at is null"

log = structlog.get_logger(__name__)


def test_a_log_whose_broker_stood_still_answers_at_once(cache: Path, tmp_path: Path) -> None:
    """Every question gets its answer, though for minutes a client would ask in the name of the leader before."""
    catalogue = Catalogue("stopped.")
    topics = [catalogue.full_name(topic) for topic in TOPICS]
    record = encode(EXAMPLES[FoldTested], catalogue=catalogue, context=Context("test", now()))
    with running_broker(cache, tmp_path / "kafka") as broker:
        create_topics(broker.kafka.bootstrap, prefix=catalogue.prefix)
        with closing(KafkaLog(broker.kafka.bootstrap)) as log:
            written = [log.append(record).result(30)]
            assert _known(log, topics, record.topic) == written
            for _ in range(2):
                broker.send(signal.SIGSTOP)
                time.sleep(SESSION_SECONDS + 0.6)
                broker.send(signal.SIGCONT)
                until = time.monotonic() + ASKED_SECONDS
                while time.monotonic() < until:
                    assert _known(log, topics, record.topic) == written
                written.append(log.append(record).result(30))


def _known(log: KafkaLog, topics: list[str], topic: str) -> list[Position]:
    """Return the positions of what a topic has, asked for in every way there is."""
    starts, ends = log.start_offsets(topics), log.end_offsets(topics)
    partitions = [tp for tp in ends if tp.topic == topic]
    assert log.offsets_at(ends, 0) == starts
    found = [each.position for batch in log.read(dict.fromkeys(partitions, 0), until_end=True) for each in batch]
    assert len(found) == sum(ends[tp] for tp in partitions)
    return found


def test_a_broker_killed_under_posts_refuses_and_loses_nothing(
    cache: Path, tmp_path: Path, postgres_url: str, blobs_url: str
) -> None:
    """Each fold posted before, meanwhile and after has its 201, and its event is in the log; no other one is."""
    prefix = "away."
    with running_broker(cache, tmp_path / "kafka") as broker:
        create_topics(broker.kafka.bootstrap, prefix=prefix)
        pretend_projected(postgres_url, prefix)
        places = {"kafka": broker.kafka.bootstrap, "postgres_url": postgres_url, "blobs_url": blobs_url}
        with running_gateway(tmp_path / "gateway", **places, prefix=prefix) as gateway:
            first = gateway.post("submissionfold/", fold_body(1, 1, gateway.upload()))
            numbers, statuses = count(2), Counter({first.status_code: 1})
            until = time.monotonic() + AWAY_SECONDS + 2

            def post() -> Counter[int]:
                """Post one fold after the other."""
                found: Counter[int] = Counter()
                while time.monotonic() < until:
                    found[gateway.post("submissionfold/", fold_body(next(numbers), 1)).status_code] += 1
                return found

            with ThreadPoolExecutor(CLIENTS) as pool:
                clients = [pool.submit(post) for _ in range(CLIENTS)]
                time.sleep(1)
                broker.kill()
                time.sleep(AWAY_SECONDS)
                broker.start()
                for client in clients:
                    statuses += client.result()
            log.info("broker away", seconds=AWAY_SECONDS, answers=dict(statuses))
            assert list(statuses) == [201]
            wait_until(lambda: gateway.query(OWED) == [(0,)], seconds=60)
        events = Counter(
            header(record.headers, "ce_id")
            for record in read_log(broker.kafka.bootstrap, prefix)
            if (header(record.headers, "ce_type") or "").startswith(f"datarun.{FoldRequested.__name__}.")
        )
    # What was on its way when the broker died may be there twice, as the same event.
    assert len(events) == statuses[201]
