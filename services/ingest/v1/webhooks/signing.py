"""Secrets and signatures as the Standard Webhooks specification has them: HMAC-SHA256 of id, time and body. Pure."""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
from collections.abc import Mapping, Sequence

MARK = "whsec_"
_SECRET_BYTES = 32


def make_secret() -> bytes:
    """Return a new secret."""
    return secrets.token_bytes(_SECRET_BYTES)


def shown(secret: bytes) -> str:
    """Return a secret as its owner is told it, once."""
    return MARK + base64.b64encode(secret).decode()


def headers(keys: Sequence[bytes], *, message_id: str, timestamp: int, body: bytes) -> Mapping[str, str]:
    """Return the headers that prove a message; a signature for each secret that holds."""
    told = f"{message_id}.{timestamp}.".encode() + body
    signatures = (base64.b64encode(hmac.new(key, told, hashlib.sha256).digest()).decode() for key in keys)
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": " ".join(f"v1,{signature}" for signature in signatures),
    }
