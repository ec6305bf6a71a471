"""A listener of the session's broker that asks for TLS and a password, and what its clients are told."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from confluent_kafka.admin import (
    AdminClient,
    ScramCredentialInfo,
    ScramMechanism,
    UserScramCredentialUpsertion,
)

from datarun.stack.cache import fill
from datarun.stack.java import Java
from datarun.stack.kafka import Kafka
from datarun.stack.ports import LOOPBACK
from tests.brokers import add_settings

STORE_PASSWORD = "no secret: the key is made by a test for itself"  # noqa: S105 - as it says
USERNAME, PASSWORD = "tester", "correct horse"
ALIAS = "broker"


@dataclass(frozen=True)
class SecureListener:
    """Where it is, and the certificate of its own authority."""

    port: int
    ca_file: Path

    @property
    def bootstrap(self) -> str:
        """Where clients connect."""
        return f"{LOOPBACK}:{self.port}"

    def environment(self, folder: Path) -> dict[str, str]:
        """Return the variables that clients are told; the password is in a file of the folder."""
        secret = folder / "kafka-password"
        secret.write_text(f"{PASSWORD}\n")
        return {
            "DATARUN_KAFKA_SECURITY_PROTOCOL": "SASL_SSL",
            "DATARUN_KAFKA_SASL_USERNAME": USERNAME,
            "DATARUN_KAFKA_SASL_PASSWORD_FILE": str(secret),
            "DATARUN_KAFKA_CA_FILE": str(self.ca_file),
        }


def ensure_certificate(java: Java, cache: Path) -> Path:
    """Return the folder of the broker's key and certificate, made once a machine."""

    def make(partial: Path) -> None:
        make_certificate(java, partial)

    return fill(cache / "test-certificate", make)


def make_certificate(java: Java, folder: Path) -> Path:
    """Make a folder with a key, and a certificate of it for the loopback address that nobody else vouches for."""
    folder.mkdir(parents=True)
    store = ("-alias", ALIAS, "-storetype", "PKCS12", "-keystore", folder / "broker.p12")
    names = ("-dname", "CN=datarun test", "-ext", f"san=ip:{LOOPBACK}", "-ext", "bc:c")
    _keytool(java, "-genkeypair", *store, "-keyalg", "EC", "-groupname", "secp256r1", "-validity", "3650", *names)
    (folder / "ca.pem").write_bytes(_keytool(java, "-exportcert", "-rfc", *store))
    return folder


def _keytool(java: Java, *arguments: str | Path) -> bytes:
    # The JDK's own tool, without which it may come; its class is part of every Java.
    command: Sequence[str | Path] = [java.path, "sun.security.tools.keytool.Main", *arguments]
    return subprocess.run([*command, "-storepass", STORE_PASSWORD], check=True, capture_output=True, timeout=60).stdout


def add_listener(broker: Kafka, listener: SecureListener) -> None:
    """Let a broker that was prepared and is not started have the listener as well."""
    plain, secure = f"PLAINTEXT://{broker.bootstrap}", f"TLS://{listener.bootstrap}"
    controller = f"CONTROLLER://{LOOPBACK}:{broker.controller_port}"
    settings = {
        "listeners": f"{plain},{secure},{controller}",
        "advertised.listeners": f"{plain},{secure}",
        "listener.security.protocol.map": "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,TLS:SASL_SSL",
        "listener.name.tls.ssl.keystore.type": "PKCS12",
        "listener.name.tls.ssl.keystore.location": str(listener.ca_file.with_name("broker.p12")),
        "listener.name.tls.ssl.keystore.password": STORE_PASSWORD,
        "listener.name.tls.ssl.key.password": STORE_PASSWORD,
        "listener.name.tls.sasl.enabled.mechanisms": "SCRAM-SHA-512",
        "listener.name.tls.scram-sha-512.sasl.jaas.config": (
            "org.apache.kafka.common.security.scram.ScramLoginModule required;"
        ),
    }
    add_settings(broker, settings)


def add_user(bootstrap: str) -> None:
    """Let the broker know the tests' user."""
    credential = ScramCredentialInfo(ScramMechanism.SCRAM_SHA_512, 4096)
    user = UserScramCredentialUpsertion(USERNAME, credential, PASSWORD.encode())
    admin = AdminClient({"bootstrap.servers": bootstrap})
    for done in admin.alter_user_scram_credentials([user]).values():
        done.result(30)
