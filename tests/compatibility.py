"""What a change of an OpenAPI document breaks for clients of the older one. Pure."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any

Document = dict[str, Any]
METHODS = ("get", "post", "put", "patch", "delete")


def breaks(old: Document, new: Document) -> list[str]:
    """Return what a client of the old document can no longer do, or read."""
    return list(_breaks(old, new))


def _breaks(old: Document, new: Document) -> Iterator[str]:
    for path, methods in old["paths"].items():
        for method, before in methods.items():
            where = f"{method.upper()} {path}"
            after = new["paths"].get(path, {}).get(method)
            if after is None:
                yield f"{where} is gone"
                continue
            yield from (f"{where}: {what}" for what in _operation(before, after, old, new))


def _operation(before: Document, after: Document, old: Document, new: Document) -> Iterator[str]:
    if before["operationId"] != after["operationId"]:
        yield "has another operationId"
    yield from _parameters(before, after, old, new)
    body, changed = before.get("requestBody"), after.get("requestBody")
    if changed and changed["required"] and not (body and body["required"]):
        yield "a body is required"
    for kind, content in (body or {}).get("content", {}).items():
        if not changed or kind not in changed["content"]:
            yield f"takes {kind} no more"
        else:
            asked = _Narrowed(old, new, "body")
            yield from asked.compare(content["schema"], changed["content"][kind]["schema"])
    for status, answer in before["responses"].items():
        yield from _answer(status, answer, after["responses"].get(status), old, new)


def _parameters(before: Document, after: Document, old: Document, new: Document) -> Iterator[str]:
    known = {(one["name"], one["in"]): one for one in before["parameters"]}
    given = {(one["name"], one["in"]): one for one in after["parameters"]}
    for key, parameter in known.items():
        if key not in given:
            yield f"parameter {key[0]} is gone"
        else:
            asked = _Narrowed(old, new, f"parameter {key[0]}")
            yield from asked.compare(parameter["schema"], given[key]["schema"])
    for key, parameter in given.items():
        if parameter["required"] and not known.get(key, {}).get("required"):
            yield f"parameter {key[0]} is required"


def _answer(status: str, before: Document, after: Document | None, old: Document, new: Document) -> Iterator[str]:
    if after is None:
        if status.startswith("2"):
            yield f"answers {status} no more"
        return
    for kind, content in before.get("content", {}).items():
        if kind not in after.get("content", {}):
            yield f"answer {status} is no {kind} any more"
        elif "schema" in content:
            told = _Told(old, new, f"answer {status}")
            yield from told.compare(content["schema"], after["content"][kind].get("schema", {}))


class _Compared(ABC):
    """Two schemas side by side; `seen` ends cycles."""

    def __init__(self, old: Document, new: Document, where: str) -> None:
        self._old, self._new, self._where = old, new, where
        self._seen: set[tuple[str, str]] = set()

    def compare(self, before: Document, after: Document, pointer: str = "") -> Iterator[str]:
        refs = (before.get("$ref", ""), after.get("$ref", ""))
        if any(refs):
            if refs in self._seen:
                return
            self._seen.add(refs)
        before, after = _resolved(before, self._old), _resolved(after, self._new)
        where = f"{self._where} {pointer or '/'}"
        yield from self.differences(before, after, where)
        for name, field in before.get("properties", {}).items():
            other = after.get("properties", {}).get(name)
            if other is None:
                yield f"{where}: field {name} is gone"
            else:
                yield from self.compare(field, other, f"{pointer}/{name}")
        if "items" in before and "items" in after:
            yield from self.compare(before["items"], after["items"], f"{pointer}/-")

    @abstractmethod
    def differences(self, before: Document, after: Document, where: str) -> Iterator[str]:
        """Yield how two versions of one schema differ, fields and items aside."""


class _Narrowed(_Compared):
    """What a client sends: everything that was taken must be taken."""

    def differences(self, before: Document, after: Document, where: str) -> Iterator[str]:
        for name in set(after.get("required", ())) - set(before.get("required", ())):
            yield f"{where}: field {name} is required"
        if _kinds(before, self._old) - _kinds(after, self._new):
            yield f"{where}: takes less"
        for bound, is_least in (("minimum", True), ("minLength", True), ("maximum", False), ("maxLength", False)):
            then, now = before.get(bound), after.get(bound)
            if now is not None and (then is None or (now > then if is_least else now < then)):
                yield f"{where}: {bound} is {now}, not {then}"


class _Told(_Compared):
    """What a client reads: everything that was there must be there, and nothing of another kind."""

    def differences(self, before: Document, after: Document, where: str) -> Iterator[str]:
        for name in set(before.get("required", ())) - set(after.get("required", ())):
            yield f"{where}: field {name} may be absent"
        # Words may be added to those that a field can be; clients are told so.
        then = {kind for kind in _kinds(before, self._old) if not kind.startswith("=")}
        now = {kind for kind in _kinds(after, self._new) if not kind.startswith("=")}
        if now - then:
            yield f"{where}: may be {', '.join(sorted(now - then))}"


def _resolved(schema: Document, document: Document) -> Document:
    name = schema.get("$ref", "").rpartition("/")[2]
    found: Document = document["components"]["schemas"][name] if name else schema
    return found


def _kinds(schema: Document, document: Document) -> set[str]:
    schema = _resolved(schema, document)
    if "anyOf" in schema:
        return set().union(*(_kinds(kind, document) for kind in schema["anyOf"]))
    words = schema.get("enum", [schema["const"]] if "const" in schema else [])
    return {str(schema.get("type", "anything")), *(f"={word}" for word in words)}
