"""What the command line takes from the environment; everything below it is told."""

from __future__ import annotations

import os
from pathlib import Path

SYSTEM_CERTIFICATES = (
    Path("/etc/ssl/certs/ca-certificates.crt"),
    Path("/etc/pki/tls/certs/ca-bundle.crt"),
    Path("/etc/ssl/cert.pem"),
)
ADDRESSES = ("DATARUN_KAFKA", "DATARUN_POSTGRES_URL", "DATARUN_BLOBS", "NOTIFY_SOCKET")


def cache_folder() -> Path:
    """Return the one folder outside the checkout that is written."""
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser() / "datarun"


def java_home() -> Path | None:
    """Return JAVA_HOME."""
    home = os.environ.get("JAVA_HOME")
    return Path(home) if home else None


def topic_prefix() -> str | None:
    """Return the prefix of every topic's name, which the services read from the same variable."""
    return os.environ.get("DATARUN_TOPIC_PREFIX")


def trust_system_certificates() -> None:
    """Let downloads trust what the machine trusts; Python's own list lacks the certificate of a company's proxy."""
    found = next((path for path in SYSTEM_CERTIFICATES if path.is_file()), None)
    if found is not None:
        os.environ.setdefault("REQUESTS_CA_BUNDLE", os.environ.get("SSL_CERT_FILE", str(found)))


def service_environment() -> dict[str, str]:
    """Return what the stack's services inherit: everything but addresses of other servers than the stack's."""
    return {name: value for name, value in os.environ.items() if name not in ADDRESSES}
