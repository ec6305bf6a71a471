"""A broker that stood still for longer than its session: it is fenced, leads again, and answers as before."""

from __future__ import annotations

import signal
import time
from contextlib import closing
from pathlib import Path

from datarun.envelope import Context, encode, now
from datarun.events import FoldTested
from datarun.log import Position
from datarun.log.admin import create_topics
from datarun.log.kafka import KafkaLog
from datarun.published.examples import EXAMPLES
from datarun.topics import TOPICS, Catalogue
from tests.brokers import running_broker

SESSION_SECONDS = 2.0
"""The local broker's `broker.session.timeout.ms`."""
ASKED_SECONDS = 1.5


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
