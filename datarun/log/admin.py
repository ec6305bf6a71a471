"""Topics and share groups as the catalogue says: made where they are missing, refused where they differ."""

from __future__ import annotations

from collections.abc import Iterable

from confluent_kafka import KafkaException
from confluent_kafka.admin import (  # type: ignore[attr-defined]
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewTopic,
)

from datarun.errors import LogUnavailable, TopicsDiffer
from datarun.topics import DEFAULT_PREFIX, QUEUES, SHARE_GROUP_CONFIG, TOPICS, Catalogue, Topic

TIMEOUT_SECONDS = 15.0


def probe(bootstrap: str, timeout: float) -> bool:
    """Tell whether a broker answers a metadata request within the timeout (seconds)."""
    try:
        return bool(_client(bootstrap).list_topics(timeout=timeout).brokers)
    except KafkaException:
        return False


def create_topics(bootstrap: str, *, prefix: str = DEFAULT_PREFIX) -> list[str]:
    """Make the missing topics, set the share groups' configs and return the names made.

    Raises TopicsDiffer, having changed nothing, when a topic exists with other settings, LogUnavailable without a
    broker.
    """
    client, catalogue = _client(bootstrap), Catalogue(prefix)
    try:
        existing = client.list_topics(timeout=TIMEOUT_SECONDS).topics
        here = [topic for topic in TOPICS if catalogue.full_name(topic) in existing]
        counts = {topic.name: len(existing[catalogue.full_name(topic)].partitions) for topic in here}
        _refuse_differences(client, catalogue, here, counts)
        missing = [topic for topic in TOPICS if topic not in here]
        _create(client, catalogue, missing)
        _configure_groups(client, catalogue)
    except KafkaException as error:
        raise LogUnavailable(str(error)) from error
    return [catalogue.full_name(topic) for topic in missing]


def delete_topics(bootstrap: str, *, prefix: str) -> None:
    """Delete the topics of a prefix, with everything in them: for installations made for a test."""
    client, catalogue = _client(bootstrap), Catalogue(prefix)
    for future in client.delete_topics([catalogue.full_name(topic) for topic in TOPICS]).values():
        future.result(TIMEOUT_SECONDS)


def _client(bootstrap: str) -> AdminClient:
    return AdminClient({"bootstrap.servers": bootstrap, "log_level": 2})


def _create(client: AdminClient, catalogue: Catalogue, missing: Iterable[Topic]) -> None:
    wanted = [
        NewTopic(
            catalogue.full_name(topic), num_partitions=topic.partitions, replication_factor=-1, config=topic.config
        )
        for topic in missing
    ]
    if wanted:
        for future in client.create_topics(wanted).values():
            future.result(TIMEOUT_SECONDS)


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


def _refuse_differences(
    client: AdminClient, catalogue: Catalogue, here: Iterable[Topic], counts: dict[str, int]
) -> None:
    differences = []
    for topic in here:
        name = catalogue.full_name(topic)
        if counts[topic.name] != topic.partitions:
            differences.append(f"{name}: {counts[topic.name]} partitions, the catalogue says {topic.partitions}")
        resource = ConfigResource(ConfigResource.Type.TOPIC, name)
        actual = client.describe_configs([resource])[resource].result(TIMEOUT_SECONDS)
        differences += [
            f"{name}: {key}={actual[key].value}, the catalogue says {value}"
            for key, value in topic.config.items()
            if _canonical(actual[key].value) != _canonical(value)
        ]
    if differences:
        advice = "use another prefix, or make the topics anew; partition counts can never change"
        raise TopicsDiffer("\n".join([*differences, advice]))


def _canonical(value: str | None) -> frozenset[str]:
    return frozenset((value or "").split(","))
