"""Events as plain structures, made from their declarations with all fields and rules: what the projection decodes.

A form refuses at least what its event refuses, but for the digits of digests, which `digests` looks at, and says the
same of the rest in a tenth of the time. What it refuses is left to `datarun.envelope`, which knows why, and which of it
is an event all the same.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal

from msgspec import Meta, MsgspecError, Struct, defstruct

from datarun.events import (
    Blob,
    Event,
    FoldCancelled,
    FoldFailed,
    FoldHandedBack,
    FoldLost,
    FoldReproduced,
    FoldRequested,
    FoldStarted,
    FoldTested,
    FoldTrained,
    PredictionsFetched,
)
from datarun.projection.digests import DIGEST, DIGITS

Rules = Mapping[str, Any]
"""What pydantic checks of a value: its core schema."""

UNREADABLE = (MsgspecError, UnicodeDecodeError)
"""What a form raises for bytes that it does not take."""

_BLOB_DIGEST = Blob.__pydantic_core_schema__["schema"]["fields"][DIGEST]
_ANY_DIGEST = _BLOB_DIGEST | {"schema": {"type": "str", "min_length": DIGITS, "max_length": DIGITS}}
_BESIDE = {"type", "metadata", "ref"}
_BOUNDS = {"ge", "gt", "le", "lt"}
_IMPLIED = {"strict", "allow_inf_nan"}
"""JSON has no infinity, and a form is as strict as can be."""


def form_of(event: type[Event], *, looks_at_digests: bool = True) -> type[Struct]:
    """Return the structure of an event; raises TypeError for a rule that no structure has.

    Without looking at digests those of blobs are any texts of their length.
    """
    rules: Any = event.__pydantic_core_schema__
    if rules["type"] == "definitions":
        rules = _inlined(rules["schema"], {one["ref"]: one for one in rules["definitions"]})
    return _struct(rules if looks_at_digests else _with_any_digests(rules))


def _with_any_digests(rules: Any) -> Any:
    match rules:
        case dict():
            return {
                name: _ANY_DIGEST if (name, content) == (DIGEST, _BLOB_DIGEST) else _with_any_digests(content)
                for name, content in rules.items()
            }
        case list():
            return [_with_any_digests(content) for content in rules]
        case _:
            return rules


def _inlined(rules: Any, definitions: Mapping[str, Rules]) -> Any:
    match rules:
        case {"type": "definition-ref", "schema_ref": name}:
            return _inlined(definitions[name], definitions)
        case dict():
            return {name: _inlined(content, definitions) for name, content in rules.items()}
        case list():
            return [_inlined(content, definitions) for content in rules]
        case _:
            return rules


def _struct(rules: Any) -> type[Struct]:
    _know(rules, {"cls", "schema", "config", "custom_init", "root_model"})
    _know(rules["config"], {"extra_fields_behavior", "title"})
    _know(rules["schema"], {"fields", "model_name", "computed_fields"})
    fields = [_field(name, one["schema"]) for name, one in rules["schema"]["fields"].items()]
    name = rules["cls"].__name__
    return defstruct(name, fields, frozen=True, kw_only=True, forbid_unknown_fields=True, gc=False)


def _field(name: str, rules: Rules) -> tuple[str, Any] | tuple[str, Any, Any]:
    if rules["type"] != "default":
        return name, _type(rules)
    _know(rules, {"schema", "default"})
    return name, _type(rules["schema"]), rules["default"]


def _type(rules: Rules) -> Any:
    kind = rules["type"]
    if kind not in _TYPES:
        raise TypeError(f"no structure has a {kind}")
    return _TYPES[kind](rules)


def _number(of: type) -> Callable[[Rules], Any]:
    def number(rules: Rules) -> Any:
        _know(rules, _BOUNDS | _IMPLIED)
        return Annotated[of, Meta(**{name: rules[name] for name in rules.keys() & _BOUNDS})]

    return number


def _text(rules: Rules) -> Any:
    _know(rules, {"min_length", "max_length", "pattern"})
    meta = {name: rules[name] for name in rules.keys() - _BESIDE}
    if "pattern" in meta:
        # Python's name for the very end of a text.
        meta["pattern"] = meta["pattern"].replace(r"\z", r"\Z")
    return Annotated[str, Meta(**meta)]


def _several(rules: Rules) -> Any:
    _know(rules, {"items_schema", "variadic_item_index"})
    [items] = rules["items_schema"]
    return tuple[_type(items), ...]  # type: ignore[misc]


def _one_of(rules: Rules) -> Any:
    _know(rules, {"expected"})
    return Literal[tuple(rules["expected"])]


def _know(rules: Rules, names: set[str]) -> None:
    unknown = rules.keys() - names - _BESIDE
    if unknown:
        raise TypeError(f"no structure has the rules {unknown}")


_TYPES: dict[str, Callable[[Rules], Any]] = {
    "int": _number(int),
    "float": _number(float),
    "bool": lambda _: bool,
    "str": _text,
    "tuple": _several,
    "literal": _one_of,
    "enum": lambda rules: rules["cls"],
    "nullable": lambda rules: _type(rules["schema"]) | None,
    "model": _struct,
}

FORMS: dict[type[Event], type[Struct]] = {
    event: form_of(event, looks_at_digests=False)
    for event in (
        FoldRequested,
        FoldStarted,
        FoldTrained,
        FoldTested,
        FoldFailed,
        FoldLost,
        FoldHandedBack,
        FoldReproduced,
        FoldCancelled,
        PredictionsFetched,
    )
}
"""The events that a log has millions of."""
