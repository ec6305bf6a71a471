"""How brokers are reached: the same proof for librdkafka and for Faust, secrets from files, and who may do what."""

import ssl
from pathlib import Path

import pytest

from datarun.deployment.acls import ROLES, rules
from datarun.errors import DatarunError
from datarun.intake.following import FOLLOWED
from datarun.log.brokers import Brokers, Security, client_config
from datarun.log.kafka import producer_config
from datarun.settings import load_settings
from datarun.topics import DATA_EVENTS, FOLD_EVENTS, FOLD_REQUESTS_HIGH, TOPICS, Catalogue
from services.projector.credentials import credentials_of

CATALOGUE = Catalogue("t.")


def test_brokers_that_ask_for_nothing_are_told_nothing():
    """A text, or no security, is a plain connection."""
    assert client_config("b:9092") == client_config(Brokers("b:9092")) == {"bootstrap.servers": "b:9092"}
    assert credentials_of(Security()) is None


def test_the_environment_says_how_to_prove_who_one_is(tmp_path, monkeypatch):
    """Variables and a file come to librdkafka's and Faust's settings alike; the secret is never shown."""
    secret = tmp_path / "secret"
    secret.write_text("hush\n")
    given = {"SECURITY_PROTOCOL": "SASL_PLAINTEXT", "SASL_USERNAME": "gateway", "SASL_PASSWORD_FILE": str(secret)}
    for name, value in given.items():
        monkeypatch.setenv(f"DATARUN_KAFKA_{name}", value)
    brokers = load_settings(tmp_path, kafka="b:9093").brokers
    expected = {
        "bootstrap.servers": "b:9093",
        "security.protocol": "SASL_PLAINTEXT",
        "sasl.mechanism": "SCRAM-SHA-512",
        "sasl.username": "gateway",
        "sasl.password": "hush",
    }
    assert client_config(brokers) == expected
    assert expected.items() <= producer_config(brokers).items()
    credentials = credentials_of(brokers.security)
    assert (credentials.protocol.value, credentials.mechanism.value) == ("SASL_PLAINTEXT", "SCRAM-SHA-512")
    assert (credentials.username, credentials.password) == ("gateway", "hush")
    assert "hush" not in repr(load_settings(tmp_path, kafka="b:9093"))


def test_tls_brings_files_to_both():
    """Certificates are named to librdkafka and loaded for Faust, which trusts that authority alone."""
    authority = Path(ssl.get_default_verify_paths().cafile or "/etc/ssl/certs/ca-certificates.crt")
    if not authority.is_file():
        pytest.skip("this machine has no file of authorities")
    brokers = Brokers("b:9093", Security(protocol="SSL", ca_file=authority))
    assert client_config(brokers)["ssl.ca.location"] == str(authority)
    assert "sasl.mechanism" not in client_config(brokers)
    credentials = credentials_of(brokers.security)
    assert credentials.protocol.value == "SSL"
    assert credentials.context.verify_mode == ssl.CERT_REQUIRED


@pytest.mark.parametrize(
    ("name", "value", "why"),
    [
        ("SECURITY_PROTOCOL", "MAGIC", "DATARUN_KAFKA_SECURITY_PROTOCOL"),
        ("SASL_PASSWORD_FILE", "/nowhere/secret", "the password file /nowhere/secret cannot be read"),
    ],
)
def test_what_is_wrong_is_said(tmp_path, monkeypatch, name, value, why):
    """A protocol that does not exist, a file that is not there."""
    monkeypatch.setenv(f"DATARUN_KAFKA_{name}", value)
    with pytest.raises(DatarunError, match=why):
        load_settings(tmp_path, kafka="b:9093")


def test_every_writer_and_reader_has_its_rule_and_nobody_more():
    """A producer may request folds and not say how they ended; whoever the catalogue names may do what it says."""
    allowed = {(rule.role, rule.name, operation) for rule in rules(CATALOGUE) for operation in rule.operations}
    assert ("producer", CATALOGUE.full_name(FOLD_REQUESTS_HIGH), "Write") in allowed
    assert ("producer", CATALOGUE.full_name(DATA_EVENTS), "Read") in allowed
    assert ("producer", CATALOGUE.full_name(FOLD_EVENTS), "Write") not in allowed
    assert ("gateway", CATALOGUE.full_name(FOLD_EVENTS), "Write") in allowed
    for topic in (*FOLLOWED, FOLD_EVENTS):
        assert ("gateway", CATALOGUE.full_name(topic), "Read") in allowed
    known = {*ROLES, "reaper", "people"}
    assert {who for topic in TOPICS for who in (*topic.writers, *topic.readers)} <= known
