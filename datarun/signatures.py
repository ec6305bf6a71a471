"""Signatures of events: a record says who wrote it, and proves it by a key that only those have who write and check.

An installation without keys asks for none. What is signed is the fact with its id, type, source, time and key, so a
record that is copied, appended anew or restored keeps its signature; where it stands is the route's business.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from datarun.errors import DatarunError, Forged
from datarun.log import Record, StoredRecord

SIGNATURE = "datarun-signature"
"""The header: the key's name, a colon, HMAC-SHA256 in hexadecimal digits."""
_SIGNED = ("ce_id", "ce_type", "ce_source", "ce_time")
_LENGTH_BYTES = 8

Headers = Iterable[tuple[str, bytes | None]]


@dataclass(frozen=True, slots=True)
class Key:
    """A writer's key: which events it may sign, by their names, and in records from before which moment, if not all."""

    secret: bytes = field(repr=False)
    events: frozenset[str]
    until_ms: int | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Signatures:
    """The keys of an installation; what the log took before `since_ms`, by the broker's clock, needs no signature."""

    keys: Mapping[str, Key]
    since_ms: int = 0
    signs_as: str | None = None
    """The key of this process."""

    def sign(self, key: bytes, value: bytes, headers: Headers) -> tuple[str, bytes]:
        """Return the header that proves a record; raises DatarunError for a process that has no key to sign with."""
        if self.signs_as is None:
            raise DatarunError("events are signed here: say with which key, in DATARUN_SIGNING_AS")
        digest = _digest(self.keys[self.signs_as].secret, key, value, headers)
        return SIGNATURE, f"{self.signs_as}:{digest}".encode()

    def signed(self, record: Record) -> Record:
        """Return a record with the signature it should have; raises DatarunError as `sign` does."""
        headers = tuple((name, value) for name, value in record.headers if name != SIGNATURE)
        return replace(record, headers=(*headers, self.sign(record.key, record.value, headers)))

    def check(self, record: StoredRecord | Record) -> None:
        """Raise Forged unless a record was signed by who may write its event, or is from before signatures."""
        at_ms = record.timestamp_ms if isinstance(record, StoredRecord) else None
        if at_ms is not None and at_ms < self.since_ms:
            return
        given = _header(record.headers, SIGNATURE)
        if not given:
            raise Forged("it is not signed")
        name, _, digest = given.decode("utf-8", "replace").rpartition(":")
        key = self.keys.get(name)
        if key is None:
            raise Forged(f"it is signed with a key that is not known here: {name[:100]!r}")
        expected = _digest(key.secret, record.key or b"", record.value or b"", record.headers)
        if not hmac.compare_digest(expected.encode(), digest.encode()):
            raise Forged(f"the signature is not that of {name}")
        if key.until_ms is not None and (at_ms is None or at_ms >= key.until_ms):
            raise Forged(f"the key {name} is not in use any more")
        event = _event_name(record.headers)
        if event not in key.events:
            raise Forged(f"{name} may not write {event}")

    def accepts(self, record: StoredRecord) -> bool:
        """Tell whether `check` would let a record pass."""
        try:
            self.check(record)
        except Forged:
            return False
        return True


def _event_name(headers: Headers) -> str:
    wire_type = (_header(headers, "ce_type") or b"").decode("utf-8", "replace")
    return wire_type.removeprefix("datarun.").rpartition(".v")[0][:100]


def _digest(secret: bytes, key: bytes, value: bytes, headers: Headers) -> str:
    parts = (*(_header(headers, name) or b"" for name in _SIGNED), key, value)
    # Each with its length, so that no two records have the same bytes in a row.
    told = b"".join(len(part).to_bytes(_LENGTH_BYTES, "big") + part for part in parts)
    return hmac.new(secret, told, hashlib.sha256).hexdigest()


def _header(headers: Headers, name: str) -> bytes | None:
    return next((value for given, value in headers if given == name and value is not None), None)
