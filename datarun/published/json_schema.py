"""The JSON Schema (2020-12) of an event, made from its declaration, with what routes and identifies it beside it."""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Iterator
from typing import Any

from pydantic.json_schema import GenerateJsonSchema

from datarun.events import Event, Fact

Schema = dict[str, Any]

_ANCHORS = {r"\A": "^", r"\z": "$"}
"""Pydantic's regular expressions are Rust's, JSON Schema's are ECMAScript's."""


class _Untitled(GenerateJsonSchema):
    def field_title_should_be_set(self, schema: Any) -> bool:  # noqa: ARG002 - pydantic's signature
        """Say that a field's name says enough."""
        return False


def schema_of(cls: type[Event]) -> Schema:
    """Return the JSON Schema of an event's value."""
    schema: Schema = cls.model_json_schema(schema_generator=_Untitled)
    facts = {fact.__name__: fact for fact in _subclasses(Fact)}
    for name, definition in schema.get("$defs", {}).items():
        if name in facts:
            _explain(definition, facts[name])
    _explain(schema, cls)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": f"urn:datarun:schema:{cls.__name__}:v{cls.version}",
        "title": cls.type_name(),
        **{key: value for key, value in schema.items() if key != "title"},
        "x-key": cls.key_field,
        "x-identity": list(cls.identity),
    }


def _explain(schema: Schema, cls: type[Fact]) -> None:
    """Add what the declaration says of each field, and what the generator does not know of ours."""
    explained = _docstrings(cls)
    for name, said in schema.get("properties", {}).items():
        if name in explained:
            said["description"] = explained[name]
        for rules in (said, *said.get("anyOf", ())):
            if "pattern" in rules:
                rules["pattern"] = _ecma(rules["pattern"])
        if "const" in said:
            # What tells one kind from another is never left out.
            said.pop("default", None)
            schema["required"] = [name, *schema.get("required", ())]


def _ecma(pattern: str) -> str:
    for ours, theirs in _ANCHORS.items():
        pattern = pattern.replace(ours, theirs)
    return pattern


def _subclasses(cls: type[Fact]) -> Iterator[type[Fact]]:
    for subclass in cls.__subclasses__():
        yield subclass
        yield from _subclasses(subclass)


def _docstrings(cls: type[Fact]) -> dict[str, str]:
    """Return the strings below the fields of a class and of those it stands on."""
    found: dict[str, str] = {}
    for one in reversed(cls.__mro__):
        if issubclass(one, Fact):
            (tree,) = ast.parse(textwrap.dedent(inspect.getsource(one))).body
            found |= dict(_below_fields(tree)) if isinstance(tree, ast.ClassDef) else {}
    return found


def _below_fields(tree: ast.ClassDef) -> Iterator[tuple[str, str]]:
    for statement, following in zip(tree.body, tree.body[1:], strict=False):
        match statement, following:
            case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str() as text)):
                yield name, inspect.cleandoc(text)
            case _:
                pass
