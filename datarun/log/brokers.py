"""How brokers are reached: their addresses, and what proves to each other who one is."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ENCRYPTED = ("SSL", "SASL_SSL")
AUTHENTICATED = ("SASL_PLAINTEXT", "SASL_SSL")


@dataclass(frozen=True, slots=True)
class Security:
    """The way to talk to brokers; secrets are read from files and never shown."""

    protocol: str = "PLAINTEXT"
    mechanism: str = "SCRAM-SHA-512"
    username: str = ""
    password: str = field(default="", repr=False)
    ca_file: Path | None = None
    certificate_file: Path | None = None
    key_file: Path | None = None
    key_password: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class Brokers:
    """Where brokers are, as host:port,…, and how one talks to them; it can be sent to another process."""

    servers: str
    security: Security = Security()


def client_config(brokers: Brokers | str) -> dict[str, Any]:
    """Return librdkafka's settings of a connection; a text names brokers that ask for no proof."""
    if isinstance(brokers, str):
        brokers = Brokers(brokers)
    security = brokers.security
    config: dict[str, Any] = {"bootstrap.servers": brokers.servers}
    if security.protocol == "PLAINTEXT":
        return config
    config["security.protocol"] = security.protocol
    if security.protocol in AUTHENTICATED:
        config |= {
            "sasl.mechanism": security.mechanism,
            "sasl.username": security.username,
            "sasl.password": security.password,
        }
    if security.protocol in ENCRYPTED:
        optional = {
            "ssl.ca.location": security.ca_file,
            "ssl.certificate.location": security.certificate_file,
            "ssl.key.location": security.key_file,
            "ssl.key.password": security.key_password,
        }
        config |= {name: str(value) for name, value in optional.items() if value}
    return config
