"""The AsyncAPI 3.0 document: topics as channels, events as messages, writers and readers as operations."""

from __future__ import annotations

from typing import Any

from datarun import __version__
from datarun.events import EVENT_TYPES, Event
from datarun.topics import DEFAULT_PREFIX, TOPICS, Catalogue, Topic

Document = dict[str, Any]

JSON_SCHEMA = "application/schema+json;version=2020-12"
BINDING = "0.5.0"


def document() -> Document:
    """Return the document; the events' schemas are in files beside it."""
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "datarun",
            "version": __version__,
            "description": "The log of datarun: what happened to datasets, folds, runners and environments.",
        },
        "defaultContentType": "application/json",
        "channels": {topic.name: _channel(topic) for topic in TOPICS},
        "operations": {name: operation for topic in TOPICS for name, operation in _operations(topic).items()},
        "components": {
            "messages": {message_name(cls): _message(cls) for cls in EVENT_TYPES},
            "schemas": {"headers": _headers()},
        },
    }


def message_name(cls: type[Event]) -> str:
    """Return what an event's version is called among files and messages, such as FoldTested.v1."""
    return f"{cls.__name__}.v{cls.version}"


def _channel(topic: Topic) -> Document:
    return {
        "address": Catalogue(DEFAULT_PREFIX).full_name(topic),
        "description": f"Key: {topic.key}. {topic.kind.value}, {topic.partitions} partition(s).",
        "messages": {
            message_name(cls): {"$ref": f"#/components/messages/{message_name(cls)}"} for cls in topic.carries
        },
        "bindings": {
            "kafka": {
                "partitions": topic.partitions,
                "topicConfiguration": _configuration(topic),
                "bindingVersion": BINDING,
            }
        },
    }


def _configuration(topic: Topic) -> Document:
    configured: Document = {"cleanup.policy": topic.config["cleanup.policy"].split(",")}
    for name in ("retention.ms", "retention.bytes"):
        if name in topic.config:
            configured[name] = int(topic.config[name])
    return configured


def _operations(topic: Topic) -> dict[str, Document]:
    channel = {"$ref": f"#/channels/{topic.name}"}
    pairs = [(who, "send") for who in topic.writers] + [(who, "receive") for who in topic.readers]
    return {f"{who}.{action}.{topic.name}": {"action": action, "channel": channel} for who, action in pairs}


def _message(cls: type[Event]) -> Document:
    name = message_name(cls)
    return {
        "name": cls.type_name(),
        "title": cls.__name__,
        "summary": (cls.__doc__ or "").partition("\n")[0],
        "contentType": "application/json",
        "headers": {"$ref": "#/components/schemas/headers"},
        "payload": {"schemaFormat": JSON_SCHEMA, "schema": {"$ref": f"events/{name}.json"}},
        "bindings": {
            "kafka": {
                "key": {"type": "string", "description": f"The event's {cls.key_field}, as text."},
                "bindingVersion": BINDING,
            }
        },
    }


def _headers() -> Document:
    text = {"type": "string"}
    required = ["ce_specversion", "ce_id", "ce_type", "ce_source", "ce_time", "ce_subject", "ce_dataschema"]
    optional = ["content-type", "ce_correlationid", "ce_causationid", "traceparent"]
    return {"type": "object", "required": required, "properties": dict.fromkeys([*required, *optional], text)}
