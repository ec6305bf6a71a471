"""Brokers that ask for TLS and a password: the same variables reach every client, and none gets in without them."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest
from typer.testing import CliRunner

from datarun.cli import app
from datarun.envelope import encode
from datarun.log import Work
from datarun.log.admin import probe
from datarun.log.kafka import KafkaLog
from datarun.log.queue import KafkaWorkQueue
from datarun.producer import Upload, connect
from datarun.settings import load_settings
from datarun.stack.java import find_java
from datarun.topics import FOLD_REQUESTS_HIGH, FOLD_REQUESTS_LOW, Catalogue
from tests.gateways import running_gateway, wait_until
from tests.histories import CONTEXT, requested
from tests.projecting import Installation
from tests.tls import SecureListener, make_certificate

UPLOAD = Upload(
    raw_data_id=1_000_000_001,
    name="iris",
    target_column="species",
    workflow_elements="classifier",
    files={"a.csv": b"a,species\n1,2\n"},
)


@pytest.fixture
def told(secure_kafka: SecureListener, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Set the variables, also for the services of a test; returns where the broker is."""
    for name, value in secure_kafka.environment(tmp_path).items():
        monkeypatch.setenv(name, value)
    return secure_kafka.bootstrap


def test_every_client_is_let_in_by_the_same_variables(
    told: str, topic_prefix: str, postgres_url: str, blobs_url: str, tmp_path: Path
) -> None:
    """Commands, the producer, the gateway, Faust's projector, readers and a queue's consumer."""
    catalogue = Catalogue(topic_prefix)
    servers = {"kafka": told, "topic_prefix": topic_prefix}
    options = ["--kafka", told, "--topic-prefix", topic_prefix]
    assert CliRunner().invoke(app, ["topics", "create", *options]).exit_code == 0
    brokers = load_settings(tmp_path, **servers).brokers
    with (
        running_gateway(
            tmp_path / "gateway", kafka=told, postgres_url=postgres_url, blobs_url=blobs_url, prefix=topic_prefix
        ) as gateway,
        Installation(told, postgres_url, catalogue, tmp_path).projector() as projector,
        closing(KafkaLog(brokers)) as log,
    ):
        projector.wait_ready()
        assert gateway.upload("wine") == 1
        with connect("databoard", tmp_path, blobs=blobs_url, **servers) as producer:
            producer.upload(UPLOAD)
        names = "select name from rm.dataset union all select name from intake.dataset order by 1"
        wait_until(lambda: gateway.query(names) == [("iris",), ("iris",), ("wine",), ("wine",)], seconds=30)
        assert gateway.session.get(f"{gateway.url}/readyz", timeout=30).json()["kafka"] == "ok"
        log.append(encode(requested(7), catalogue=catalogue, context=CONTEXT)).result(30)
        queues = [("H", FOLD_REQUESTS_HIGH), ("L", FOLD_REQUESTS_LOW)]
        with closing(KafkaWorkQueue(brokers, queues, catalogue=catalogue, event_log=log)) as queue:
            taken: list[Work] = []
            wait_until(lambda: taken or taken.extend(filter(None, [queue.take()])) or taken, seconds=30)
            assert taken[0].record.key == b"7"
            queue.accept(taken[0])


@pytest.mark.parametrize("change", ["plaintext", "not encrypted", "password", "authority"])
def test_nobody_else_is_let_in(
    secure_kafka: SecureListener, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    """No proof, a wrong password, a broker that another authority vouches for: the log is away."""
    told = secure_kafka.environment(tmp_path)
    for name, value in told.items():
        monkeypatch.setenv(name, value)
    assert probe(load_settings(tmp_path, kafka=secure_kafka.bootstrap).brokers, 10.0)
    match change:
        case "plaintext":
            told["DATARUN_KAFKA_SECURITY_PROTOCOL"] = "PLAINTEXT"
        case "not encrypted":
            told["DATARUN_KAFKA_SECURITY_PROTOCOL"] = "SASL_PLAINTEXT"
        case "password":
            (tmp_path / "kafka-password").write_text("wrong")
        case "authority":
            other = make_certificate(find_java(), tmp_path / "other")
            told["DATARUN_KAFKA_CA_FILE"] = str(other / "ca.pem")
    for name, value in told.items():
        monkeypatch.setenv(name, value)
    brokers = load_settings(tmp_path, kafka=secure_kafka.bootstrap).brokers
    assert not probe(brokers, 2.0)
