"""Whether one JSON Schema takes all that another took: within a version, an event's rules may only get wider.

Knows what `json_schema` writes, which is less than all of JSON Schema.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from datarun.published.json_schema import Schema

_LOWER = ("minimum", "exclusiveMinimum", "minLength", "minItems")
_UPPER = ("maximum", "exclusiveMaximum", "maxLength", "maxItems")
_ROUTING = ("x-key", "x-identity")


def breaks(published: Schema, declared: Schema) -> list[str]:
    """Return why events that were right by the published schema would not be by the declared one, or not the same."""
    routing = [
        f"/: {name} was {published.get(name)}, now {declared.get(name)}"
        for name in _ROUTING
        if published.get(name) != declared.get(name)
    ]
    return routing + list(_Comparison(published, declared).of(published, declared, ""))


class _Comparison:
    def __init__(self, published: Schema, declared: Schema) -> None:
        self._published = published
        self._declared = declared

    def of(self, old: Schema, new: Schema, path: str) -> Iterator[str]:
        """Yield what the new schema refuses of what the old one took."""
        old, new = _resolved(old, self._published), _resolved(new, self._declared)
        if _branches(old) or _branches(new):
            yield from self._of_branches(old, new, path)
        elif "enum" in new or "const" in new:
            yield from _of_values(old, new, path)
        else:
            yield from _of_type(old, new, path)
            yield from _of_bounds(old, new, path)
            yield from self._of_parts(old, new, path)

    def _of_branches(self, old: Schema, new: Schema, path: str) -> Iterator[str]:
        """Each of the old branches must be taken by some new one; what refuses least says why not."""
        choices = _branches(new) or [new]
        for branch in _branches(old) or [old]:
            refusals = [list(self.of(branch, choice, path)) for choice in choices]
            yield from min(refusals, key=len)

    def _of_parts(self, old: Schema, new: Schema, path: str) -> Iterator[str]:
        if "items" in new:
            yield from self.of(old.get("items", {}), new["items"], f"{path}/*")
        if isinstance(new.get("additionalProperties"), dict):
            yield from self.of(old.get("additionalProperties", {}), new["additionalProperties"], f"{path}/*")
        yield from self._of_fields(old, new, path)

    def _of_fields(self, old: Schema, new: Schema, path: str) -> Iterator[str]:
        before, now = old.get("properties", {}), new.get("properties", {})
        for name in sorted(set(new.get("required", ())) - set(old.get("required", ()))):
            yield f"{path}/{name}: required now, was not"
        for name, rules in before.items():
            where = f"{path}/{name}"
            if name not in now:
                yield f"{where}: removed"
                continue
            if name not in old.get("required", ()) and rules.get("default") != now[name].get("default"):
                yield f"{where}: left out it meant {rules.get('default')!r}, now {now[name].get('default')!r}"
            yield from self.of(rules, now[name], where)


def _resolved(schema: Schema, root: Schema) -> Schema:
    while "$ref" in schema:
        definition: Schema = root["$defs"][schema["$ref"].rpartition("/")[2]]
        schema = definition
    return schema


def _branches(schema: Schema) -> list[Schema]:
    branches: list[Schema] = schema.get("anyOf") or schema.get("oneOf") or []
    return branches


def _of_values(old: Schema, new: Schema, path: str) -> Iterator[str]:
    before, now = _values(old), _values(new)
    if before is None:
        yield f"{path}: only {now} now, was {old.get('type', 'anything')}"
    else:
        gone = [value for value in before if value not in (now or ())]
        if gone:
            yield f"{path}: {gone} not any more"


def _values(schema: Schema) -> list[Any] | None:
    if "const" in schema:
        return [schema["const"]]
    values: list[Any] | None = schema.get("enum")
    return values


def _of_type(old: Schema, new: Schema, path: str) -> Iterator[str]:
    before, now = old.get("type"), new.get("type")
    if now not in (None, before) and (before, now) != ("integer", "number"):
        yield f"{path}: {now} now, was {before or 'anything'}"
    if "pattern" in new and new["pattern"] != old.get("pattern"):
        yield f"{path}: pattern {new['pattern']} now, was {old.get('pattern')}"


def _of_bounds(old: Schema, new: Schema, path: str) -> Iterator[str]:
    narrower = [name for name in _LOWER if name in new and (name not in old or new[name] > old[name])]
    narrower += [name for name in _UPPER if name in new and (name not in old or new[name] < old[name])]
    for name in narrower:
        yield f"{path}: {name} {new[name]} now, was {old.get(name)}"
