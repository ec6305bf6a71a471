"""The page that explains every topic and every event to people."""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterator
from typing import Any

from datarun.events import EVENT_TYPES, Event
from datarun.published.examples import EXAMPLES
from datarun.published.json_schema import Schema, schema_of
from datarun.topics import TOPICS, Topic

_HEAD = """\
# Events

Made from the declarations in [datarun/events](../datarun/events) by `datarun schemas write`. JSON Schemas are in
[schemas/events](../schemas/events), examples in [schemas/examples](../schemas/examples), the AsyncAPI document is
[schemas/asyncapi.json](../schemas/asyncapi.json).

A record's value is the event as a JSON object; what it is, is said in the headers (CloudEvents 1.0, binary mode):
`ce_type` is the name and version below, `ce_id` a uuid5 of the name and of the fields that identify the fact, so that
the same fact has the same id for ever. Fields that are null may be left out; fields that are not below are refused.
"""

_BOUNDS = (("minimum", "≥"), ("exclusiveMinimum", ">"), ("maximum", "≤"), ("exclusiveMaximum", "<"))


def page() -> str:
    """Return the page in Markdown."""
    sections = [_HEAD, _topics(), "## Events\n"]
    values: dict[str, Schema] = {}
    for cls in EVENT_TYPES:
        schema = schema_of(cls)
        values |= schema.get("$defs", {})
        sections.append(_event(cls, schema))
    sections.append("## Values in events\n")
    sections += [_value(name, values[name]) for name in sorted(values)]
    return "\n".join(sections)


def _topics() -> str:
    lines = ["## Topics\n", "| topic | key | partitions | kept | events | written by | read by |", _rule(7)]
    for topic in TOPICS:
        carried = ", ".join(f"[{cls.__name__}](#{_anchor(cls)})" for cls in topic.carries) or "refused records"
        cells = [f"`{topic.name}`", topic.key, str(topic.partitions), _kept(topic), carried]
        lines.append(_row([*cells, ", ".join(topic.writers), ", ".join(topic.readers)]))
    return "\n".join(lines) + "\n"


def _kept(topic: Topic) -> str:
    if "compact" in topic.config["cleanup.policy"]:
        hours = int(topic.config.get("retention.ms", -1)) // 3_600_000
        return "the last of each key" + (f", {hours} h" if hours > 0 else "")
    return "for ever"


def _event(cls: type[Event], schema: Schema) -> str:
    topics = ", ".join(f"`{topic.name}`" for topic in TOPICS if cls in topic.carries)
    example = json.dumps(EXAMPLES[cls].model_dump(mode="json", exclude_none=True), ensure_ascii=False)
    return "\n".join(
        [
            f"### {cls.__name__} v{cls.version}\n",
            inspect.cleandoc(cls.__doc__ or "") + "\n",
            f"`{cls.type_name()}` in {topics}; key `{cls.key_field}`; the same fact has the same "
            + ", ".join(f"`{name}`" for name in cls.identity)
            + ".\n",
            *_fields(schema),
            "",
            "```json",
            example,
            "```\n",
        ]
    )


def _value(name: str, schema: Schema) -> str:
    lines = [f"### {name}\n", schema.get("description", "") + "\n"]
    if "enum" in schema:
        return "\n".join([*lines, ", ".join(f"`{value}`" for value in schema["enum"]) + "\n"])
    return "\n".join([*lines, *_fields(schema), ""])


def _fields(schema: Schema) -> Iterator[str]:
    yield "| field | is | left out | meaning |"
    yield _rule(4)
    for name, rules in schema.get("properties", {}).items():
        required = name in schema.get("required", ())
        left_out = "refused" if required else _default(rules.get("default"))
        yield _row([f"`{name}`", _kind(rules), left_out, rules.get("description", "").replace("\n", " ")])


def _default(value: Any) -> str:
    return "unknown" if value is None else f"`{json.dumps(value)}`"


def _kind(rules: Schema) -> str:
    alternatives: list[Schema] = rules.get("anyOf") or rules.get("oneOf") or []
    branches = [branch for branch in alternatives if branch.get("type") != "null"]
    if branches:
        return " or ".join(map(_kind, branches))
    if "$ref" in rules:
        name = rules["$ref"].rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    values = rules.get("enum", [rules["const"]] if "const" in rules else [])
    if values:
        return ", ".join(f"`{value}`" for value in values)
    if rules.get("type") == "array":
        return f"list of {_kind(rules['items'])}"
    if rules.get("type") == "object":
        return f"object of {_kind(rules['additionalProperties'])}"
    return f"{rules['type']}{_bounds(rules)}"


def _bounds(rules: Schema) -> str:
    bounds = [f"{sign} {rules[name]}" for name, sign in _BOUNDS if name in rules]
    if "maxLength" in rules:
        bounds.append(f"{rules.get('minLength', 0)} to {rules['maxLength']} characters")
    if "pattern" in rules:
        bounds.append(f"`{rules['pattern']}`".replace("|", "\\|"))
    return "".join(f", {bound}" for bound in bounds)


def _anchor(cls: type[Event]) -> str:
    return f"{cls.__name__}-v{cls.version}".lower()


def _row(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _rule(count: int) -> str:
    return _row(["---"] * count)
