"""CloudEvents 1.0 in Kafka's binary mode: the value is the event's JSON, the headers say what it is.

`encode` and `decode` are the only way between an event and a record.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import orjson
from pydantic import ValidationError

from datarun.errors import Misrouted, SchemaMismatch, TooLarge, Undecodable, UnknownType, UnknownVersion
from datarun.events import EVENT_TYPES, Event
from datarun.log import Record, StoredRecord
from datarun.partitioner import PARTITIONER, partition_of
from datarun.topics import Catalogue, Kind, topic_of
from datarun.upcasters import UPCASTERS

MAX_VALUE_BYTES = 1_000_000
"""What librdkafka sends at most of itself; larger records have no place in a log of references."""
Headers = Iterable[tuple[str, bytes | None]]

_TYPES: dict[bytes, type[Event]] = {cls.type_name().encode(): cls for cls in EVENT_TYPES}
_LATEST: dict[str, int] = {cls.__name__: cls.version for cls in EVENT_TYPES}


@dataclass(frozen=True, slots=True)
class Context:
    """Where an event came from and what it belongs to; it goes into the headers, not into the fact."""

    source: str
    time: datetime
    correlation_id: str | None = None
    causation_id: str | None = None
    traceparent: str | None = None


def encode(event: Event, *, catalogue: Catalogue, context: Context) -> Record:
    """Return the record of an event: right topic, right key, CloudEvents headers, a signature where events have one.

    Raises DatarunError where they have one and this process has no key.
    """
    headers = [
        ("ce_specversion", b"1.0"),
        ("ce_id", str(event.event_id).encode()),
        ("ce_type", event.type_name().encode()),
        ("ce_source", context.source.encode()),
        ("ce_time", context.time.astimezone(UTC).isoformat(timespec="microseconds").encode()),
        ("ce_subject", event.key.encode()),
        ("ce_dataschema", f"urn:datarun:schema:{type(event).__name__}:v{event.version}".encode()),
        ("content-type", b"application/json"),
    ]
    optional = (
        ("ce_correlationid", context.correlation_id),
        ("ce_causationid", context.causation_id),
        ("traceparent", context.traceparent),
    )
    headers += [(name, value.encode()) for name, value in optional if value]
    topic, key = topic_of(event), event.key.encode()
    value = event.__pydantic_serializer__.to_json(event, exclude_none=True)
    if catalogue.signatures is not None:
        headers.append(catalogue.signatures.sign(key, value, headers))
    return Record(
        topic=catalogue.full_name(topic),
        key=key,
        value=value,
        headers=tuple(headers),
        single=topic.kind is Kind.QUEUE,
    )


def header(headers: Headers, name: str) -> str | None:
    """Return a header's text, or None; bytes that are not UTF-8 are replaced."""
    for key, value in headers:
        if key == name and value is not None:
            return value.decode("utf-8", "replace")
    return None


def decode(value: bytes | None, headers: Headers) -> Event:
    """Return the event of a record, upcast to its newest version.

    Raises Undecodable, TooLarge, UnknownType, UnknownVersion or SchemaMismatch; whatever bytes come in, nothing else.
    """
    wire_type = None
    for name, raw in headers:
        if name == "ce_type":
            wire_type = raw
            break
    if value is None or not wire_type:
        raise Undecodable("empty value or no ce_type header")
    if len(value) > MAX_VALUE_BYTES:
        raise TooLarge(f"{len(value)} bytes; at most {MAX_VALUE_BYTES} are read")
    cls = _TYPES.get(wire_type)
    if cls is None:
        return _decode_old(value, wire_type.decode("utf-8", "replace"))
    try:
        return cls.__pydantic_validator__.validate_json(value)  # type: ignore[no-any-return]
    except ValidationError as error:
        raise _refusal(error) from error


def check_route(event: Event, record: StoredRecord | Record, *, catalogue: Catalogue) -> None:
    """Raise Misrouted unless topic, key and partition are the event's, Forged unless the signature is good."""
    if catalogue.signatures is not None:
        catalogue.signatures.check(record)
    topic = topic_of(event)
    if record.topic != catalogue.prefix + topic.name:
        expected = catalogue.full_name(topic)
        raise Misrouted(f"{type(event).__name__} belongs to {expected}, not {record.topic}")
    if record.key != event.key.encode():
        raise Misrouted(f"the key of this {type(event).__name__} is {event.key}")
    if topic.partitions > 1 and isinstance(record, StoredRecord):
        partition = partition_of(record.key, topic.partitions)
        if record.partition != partition:
            # Elsewhere it is in no order with what else happened under its key.
            raise Misrouted(f"key {event.key} belongs to partition {partition}, not {record.partition}: {PARTITIONER}")


def _decode_old(value: bytes, wire_type: str) -> Event:
    payload: dict[str, Any] | None = None
    while (upcast := UPCASTERS.get(wire_type)) is not None:
        payload = upcast(_json_object(value) if payload is None else payload)
        name, _, version = wire_type.rpartition(".v")
        wire_type = f"{name}.v{int(version) + 1}"
    cls = _TYPES.get(wire_type.encode())
    if payload is None or cls is None:
        raise _unknown(wire_type)
    try:
        return cls.model_validate_json(orjson.dumps(payload))
    except ValidationError as error:
        raise _refusal(error) from error


def _unknown(wire_type: str) -> UnknownType | UnknownVersion:
    name, _, version = wire_type.removeprefix("datarun.").rpartition(".v")
    if name in _LATEST and version.isascii() and version.isdigit():
        return UnknownVersion(f"{wire_type[:200]}: this program knows {name} up to v{_LATEST[name]}")
    return UnknownType(f"type {wire_type[:200]!r} was never declared")


def _json_object(value: bytes) -> dict[str, Any]:
    try:
        payload = orjson.loads(value)
    except orjson.JSONDecodeError as error:
        raise Undecodable(f"not JSON: {error}") from error
    if not isinstance(payload, dict):
        raise Undecodable("not a JSON object")
    return payload


def _refusal(error: ValidationError) -> Undecodable | SchemaMismatch:
    first = error.errors(include_url=False, include_input=False, include_context=False)[0]
    if first["type"] == "json_invalid":
        return Undecodable(first["msg"])
    pointer = "/" + "/".join(str(part) for part in first["loc"])
    return SchemaMismatch(f"{pointer}: {first['msg']}")


def now() -> datetime:
    """Return the time to stamp an event with; it orders nothing."""
    return datetime.now(UTC)
