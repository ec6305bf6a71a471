"""Topics and share groups as the catalogue says: made where they are missing, refused where they differ."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from functools import partial

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import (  # type: ignore[attr-defined]
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewTopic,
)

from datarun.errors import LogUnavailable, TopicsDiffer
from datarun.log import differences
from datarun.log.brokers import Brokers, client_config
from datarun.log.differences import Difference
from datarun.topics import DEFAULT_PREFIX, QUEUES, SHARE_GROUP_CONFIG, TOPICS, Catalogue, Topic

TIMEOUT_SECONDS = 15.0
VISIBLE_POLL_SECONDS = 0.02


def probe(brokers: Brokers | str, timeout: float) -> bool:
    """Tell whether a broker answers a metadata request within the timeout (seconds)."""
    try:
        return bool(_client(brokers).list_topics(timeout=timeout).brokers)
    except KafkaException:
        return False


def cluster_id(brokers: Brokers | str) -> str:
    """Return by what name a cluster knows itself, however it is reached; raises LogUnavailable."""
    try:
        return str(_client(brokers).list_topics(timeout=TIMEOUT_SECONDS).cluster_id)
    except KafkaException as error:
        raise LogUnavailable(str(error)) from error


def create_topics(brokers: Brokers | str, *, prefix: str = DEFAULT_PREFIX) -> list[str]:
    """Make the missing topics, set the share groups' configs and return the names made, when brokers know of both.

    Raises TopicsDiffer, having changed nothing, when a topic exists with other settings, LogUnavailable without a
    broker. Several callers at once are as good as one.
    """
    client, catalogue = _client(brokers), Catalogue(prefix)
    try:
        known = _partition_counts(client, catalogue)
        _refuse_differences(client, catalogue, known)
        made = _create(client, catalogue, [topic for topic in TOPICS if topic not in known])
        _await(lambda: len(_partition_counts(client, catalogue)) == len(TOPICS), "the topics")
        # Somebody else may have made the others meanwhile, or before this broker had heard of them.
        others = {topic: n for topic, n in _partition_counts(client, catalogue).items() if topic not in made}
        _refuse_differences(client, catalogue, others)
        _configure_groups(client, catalogue)
    except KafkaException as error:
        raise LogUnavailable(str(error)) from error
    return [catalogue.full_name(topic) for topic in made]


def topic_differences(brokers: Brokers | str, *, prefix: str = DEFAULT_PREFIX) -> list[Difference]:
    """Return how topics and share groups are not as the catalogue says; raises LogUnavailable. Changes nothing."""
    client, catalogue = _client(brokers), Catalogue(prefix)
    try:
        known = _partition_counts(client, catalogue)
        found = [differences.missing(catalogue.full_name(topic)) for topic in TOPICS if topic not in known]
        found += _differences(client, catalogue, known)
        for topic in QUEUES.values():
            group = ConfigResource(ConfigResource.Type.GROUP, catalogue.share_group(topic))
            if not _has(client, group):
                found.append(differences.other_group(group.name))
    except KafkaException as error:
        raise LogUnavailable(str(error)) from error
    return found


def refuse_differing_topics(brokers: Brokers | str, *, prefix: str) -> None:
    """Raise TopicsDiffer when a topic that exists is not as the catalogue says, LogUnavailable without a broker."""
    client, catalogue = _client(brokers), Catalogue(prefix)
    try:
        _refuse_differences(client, catalogue, _partition_counts(client, catalogue))
    except KafkaException as error:
        raise LogUnavailable(str(error)) from error


def delete_topics(brokers: Brokers | str, *, prefix: str) -> None:
    """Delete the topics of a prefix, with everything in them: for installations made for a test."""
    client, catalogue = _client(brokers), Catalogue(prefix)
    for future in client.delete_topics([catalogue.full_name(topic) for topic in TOPICS]).values():
        future.result(TIMEOUT_SECONDS)


def _client(brokers: Brokers | str) -> AdminClient:
    return AdminClient({**client_config(brokers), "log_level": 2})


def _partition_counts(client: AdminClient, catalogue: Catalogue) -> dict[Topic, int]:
    topics = client.list_topics(timeout=TIMEOUT_SECONDS).topics
    names = {topic: catalogue.full_name(topic) for topic in TOPICS}
    return {topic: len(topics[name].partitions) for topic, name in names.items() if name in topics}


def _create(client: AdminClient, catalogue: Catalogue, missing: Iterable[Topic]) -> list[Topic]:
    """Make topics and return those that were not there after all."""
    by_name = {catalogue.full_name(topic): topic for topic in missing}
    wanted = [
        NewTopic(name, num_partitions=topic.partitions, replication_factor=-1, config=topic.config)
        for name, topic in by_name.items()
    ]
    made = []
    for name, future in client.create_topics(wanted).items() if wanted else ():
        try:
            future.result(TIMEOUT_SECONDS)
        except KafkaException as error:
            if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                raise
        else:
            made.append(by_name[name])
    return made


def _configure_groups(client: AdminClient, catalogue: Catalogue) -> None:
    for topic in QUEUES.values():
        entries = [
            ConfigEntry(name, value, incremental_operation=AlterConfigOpType.SET)
            for name, value in SHARE_GROUP_CONFIG.items()
        ]
        # The binding answers one resource a call for groups.
        group = ConfigResource(ConfigResource.Type.GROUP, catalogue.share_group(topic), incremental_configs=entries)
        for future in client.incremental_alter_configs([group]).values():
            future.result(TIMEOUT_SECONDS)
    # A runner that joined before the broker knows would begin at the end of the queue.
    for topic in QUEUES.values():
        group = ConfigResource(ConfigResource.Type.GROUP, catalogue.share_group(topic))
        _await(partial(_has, client, group), f"the share group of {topic.name}")


def _has(client: AdminClient, group: ConfigResource) -> bool:
    (described,) = client.describe_configs([group]).values()
    actual = described.result(TIMEOUT_SECONDS)
    return all(name in actual and actual[name].value == value for name, value in SHARE_GROUP_CONFIG.items())


def _await(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + TIMEOUT_SECONDS
    while not condition():
        if time.monotonic() > deadline:
            raise LogUnavailable(f"the brokers do not know of {what} yet")
        time.sleep(VISIBLE_POLL_SECONDS)


def _refuse_differences(client: AdminClient, catalogue: Catalogue, known: dict[Topic, int]) -> None:
    found = _differences(client, catalogue, known)
    if found:
        raise TopicsDiffer("\n".join(map(str, found)))


def _differences(client: AdminClient, catalogue: Catalogue, known: dict[Topic, int]) -> list[Difference]:
    found = []
    for topic, partitions in known.items():
        name = catalogue.full_name(topic)
        if partitions != topic.partitions:
            found.append(differences.other_partitions(name, partitions, topic))
        (described,) = client.describe_configs([ConfigResource(ConfigResource.Type.TOPIC, name)]).values()
        actual = described.result(TIMEOUT_SECONDS)
        found += [
            differences.other_config(name, key, actual[key].value, value)
            for key, value in topic.config.items()
            if _canonical(actual[key].value) != _canonical(value)
        ]
    return found


def _canonical(value: str | None) -> frozenset[str]:
    return frozenset((value or "").split(","))
