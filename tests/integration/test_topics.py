"""Topics are made as the catalogue says, and refused where they differ."""

import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource, NewTopic

from datarun.envelope import Context, encode, now
from datarun.errors import LogUnavailable, TopicsDiffer
from datarun.events import FoldLost
from datarun.log.admin import create_topics, probe
from datarun.log.differences import other_producers
from datarun.log.kafka import KafkaLog
from datarun.log.vigil import EXIT_DIFFERENT
from datarun.published.examples import EXAMPLES
from datarun.topics import FOLD_EVENTS, FOLD_REQUESTS_HIGH, TOPICS, Catalogue


def wait_until(condition):
    """Wait until a broker has heard of a change."""
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_many_callers_at_once_make_topics_once(kafka, topic_prefix):
    """Two services that start together do not trip over each other."""
    with ThreadPoolExecutor(4) as pool:
        made = [
            future.result() for future in [pool.submit(create_topics, kafka, prefix=topic_prefix) for _ in range(4)]
        ]
    assert sorted(name for names in made for name in names) == sorted(
        Catalogue(topic_prefix).full_name(topic) for topic in TOPICS
    )


def test_topics_are_made_once(kafka, topic_prefix):
    """The first call makes all of them, the second none; queues have one partition."""
    catalogue = Catalogue(topic_prefix)
    assert create_topics(kafka, prefix=topic_prefix) == [catalogue.full_name(topic) for topic in TOPICS]
    assert create_topics(kafka, prefix=topic_prefix) == []
    topics = AdminClient({"bootstrap.servers": kafka}).list_topics(timeout=10).topics
    counts = {topic.name: len(topics[catalogue.full_name(topic)].partitions) for topic in TOPICS}
    assert counts == {topic.name: topic.partitions for topic in TOPICS}
    assert counts["fold-requests.high"] == 1


def test_other_partition_counts_are_refused_and_nothing_is_made(kafka, topic_prefix):
    """A topic with other partitions is named with the difference, and no other topic is made."""
    admin = AdminClient({"bootstrap.servers": kafka})
    name = Catalogue(topic_prefix).full_name(FOLD_REQUESTS_HIGH)
    for future in admin.create_topics([NewTopic(name, 3, 1)]).values():
        future.result(10)
    wait_until(lambda: name in admin.list_topics(timeout=10).topics)
    with pytest.raises(TopicsDiffer, match=rf"{name}: 3 partitions, the catalogue says 1"):
        create_topics(kafka, prefix=topic_prefix)
    known = admin.list_topics(timeout=10).topics
    assert [topic for topic in known if topic.startswith(topic_prefix)] == [name]


def test_another_retention_is_refused(kafka, topic_prefix):
    """A topic that forgets is no log."""
    create_topics(kafka, prefix=topic_prefix)
    name = Catalogue(topic_prefix).full_name(FOLD_EVENTS)
    shorter = ConfigEntry("retention.ms", "1000", incremental_operation=AlterConfigOpType.SET)
    resource = ConfigResource(ConfigResource.Type.TOPIC, name, incremental_configs=[shorter])
    admin = AdminClient({"bootstrap.servers": kafka})
    for future in admin.incremental_alter_configs([resource]).values():
        future.result(10)
    resource = ConfigResource(ConfigResource.Type.TOPIC, name)
    wait_until(lambda: admin.describe_configs([resource])[resource].result(10)["retention.ms"].value == "1000")
    with pytest.raises(TopicsDiffer, match=rf"{name}: retention.ms=1000, the catalogue says -1"):
        create_topics(kafka, prefix=topic_prefix)


def test_share_groups_begin_at_the_beginning(kafka, topic_prefix):
    """Kafka's own default would skip the folds that were requested before the first runner came."""
    create_topics(kafka, prefix=topic_prefix)
    group = ConfigResource(ConfigResource.Type.GROUP, Catalogue(topic_prefix).share_group(FOLD_REQUESTS_HIGH))
    admin = AdminClient({"bootstrap.servers": kafka})
    (described,) = admin.describe_configs([group]).values()
    configs = described.result(10)
    assert configs["share.auto.offset.reset"].value == "earliest"
    assert configs["share.delivery.count.limit"].value == "10"


def test_no_broker_is_said_so():
    """Nobody waits for a broker that is not there."""
    assert not probe("127.0.0.1:1", 0.5)
    with pytest.raises(LogUnavailable):
        create_topics("127.0.0.1:1", prefix="t.")


def _datarun(*arguments):
    command = [sys.executable, "-m", "datarun.cli", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_check_says_what_differs_and_what_helps(kafka, topic_prefix):
    """Missing topics, other partitions, another retention; and nothing once all is as declared."""
    admin = AdminClient({"bootstrap.servers": kafka})
    name = Catalogue(topic_prefix).full_name(FOLD_REQUESTS_HIGH)
    for future in admin.create_topics([NewTopic(name, 3, 1, config={"retention.ms": "1000"})]).values():
        future.result(10)
    wait_until(lambda: name in admin.list_topics(timeout=10).topics)
    told = _datarun("topics", "check", "--kafka", kafka, "--topic-prefix", topic_prefix)
    assert told.returncode == 1, told.stderr
    assert f"{name}: 3 partitions, the catalogue says 1" in told.stdout
    assert f"{name}: retention.ms=1000, the catalogue says -1\n    kafka-configs.sh --alter" in told.stdout
    assert f"{topic_prefix}fold-events is missing\n    datarun topics create" in told.stdout


def test_check_finds_producers_with_another_partitioner(kafka, topic_prefix):
    """Librdkafka's default puts keys elsewhere; the place and the reason are said."""
    create_topics(kafka, prefix=topic_prefix)
    catalogue = Catalogue(topic_prefix)
    log = KafkaLog(kafka)
    try:
        assert other_producers(log, catalogue) == []
        events = [EXAMPLES[FoldLost].model_copy(update={"fold_id": number}) for number in range(1, 13)]
        records = [encode(event, catalogue=catalogue, context=Context("test", now())) for event in events]
        foreign = Producer({"bootstrap.servers": kafka})
        for record in records:
            foreign.produce(record.topic, key=record.key, value=record.value, headers=list(record.headers))
        assert foreign.flush(20) == 0
        found = other_producers(log, catalogue)
    finally:
        log.close()
    assert found
    assert all("the partitioner is murmur2_random" in one.what for one in found)


def test_a_service_ends_when_its_topics_differ(kafka, topic_prefix):
    """It says which, and exits with 78; so nothing is written to topics that would scatter a fold's events."""
    admin = AdminClient({"bootstrap.servers": kafka})
    name = Catalogue(topic_prefix).full_name(FOLD_EVENTS)
    for future in admin.create_topics([NewTopic(name, 3, 1)]).values():
        future.result(10)
    wait_until(lambda: name in admin.list_topics(timeout=10).topics)
    code = (
        "import time; from datarun.log.brokers import Brokers; from datarun.log.vigil import watch_topics\n"
        f"watch_topics(Brokers({kafka!r}), prefix={topic_prefix!r}); time.sleep(30)"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == EXIT_DIFFERENT
    assert f"{name}: 3 partitions, the catalogue says 12" in ended.stdout + ended.stderr
