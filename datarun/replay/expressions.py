"""Conditions on an event's fields, as people write them: `raw_data_id == 3 and metrics.train_time > 10`.

Comparisons, `in`, `and`, `or`, `not`, numbers, texts and lists, and nothing else: no text is ever run as a program.
"""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable
from typing import Any

from pydantic import BaseModel

from datarun.errors import DatarunError
from datarun.events import Event

LONGEST_CHARACTERS = 500
Condition = Callable[[Event], bool]
_Value = Callable[[Event], Any]

_COMPARISONS: dict[type[ast.cmpop], Callable[[Any, Any], bool]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.In: lambda one, many: one in many,
    ast.NotIn: lambda one, many: one not in many,
}


class BadExpression(DatarunError):
    """An expression is not one on the fields of events."""


def condition(text: str) -> Condition:
    """Return the condition a text says; raises BadExpression.

    `type` is the event's name. A field that an event does not have is None, which is equal to None alone and neither
    smaller nor larger than anything.
    """
    if len(text) > LONGEST_CHARACTERS:
        raise BadExpression(f"an expression has at most {LONGEST_CHARACTERS} characters")
    try:
        value = _value(ast.parse(text.strip(), mode="eval").body)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise BadExpression(f"{text!r} is not an expression: {error}") from error
    return lambda event: bool(value(event))


def _value(node: ast.expr) -> _Value:
    match node:
        case ast.BoolOp():
            return _joined(node)
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            inner = _value(operand)
            return lambda event: not inner(event)
        case ast.Compare():
            return _comparison(node)
        case ast.Name() | ast.Attribute():
            path = _path(node)
            return lambda event: _field(event, path)
        case _:
            constant = _constant(node)
            return lambda _: constant


def _joined(node: ast.BoolOp) -> _Value:
    values = [_value(one) for one in node.values]
    if isinstance(node.op, ast.And):
        return lambda event: all(value(event) for value in values)
    return lambda event: any(value(event) for value in values)


def _comparison(node: ast.Compare) -> _Value:
    sides = [_value(one) for one in (node.left, *node.comparators)]
    unknown = next((one for one in node.ops if type(one) not in _COMPARISONS), None)
    if unknown is not None:
        raise BadExpression(f"{type(unknown).__name__} is no comparison here: use ==, !=, <, <=, >, >=, in, not in")
    steps = list(zip(sides, [_COMPARISONS[type(one)] for one in node.ops], sides[1:], strict=False))

    def compare(event: Event) -> bool:
        return all(_holds(how, left(event), right(event)) for left, how, right in steps)

    return compare


def _holds(how: Callable[[Any, Any], bool], left: Any, right: Any) -> bool:
    try:
        return bool(how(left, right))
    except TypeError:
        # A number and a text, or a field that is not there.
        return False


def _constant(node: ast.expr) -> Any:
    match node:
        case ast.Constant(value=int() | float() | str() | None as value):
            return value
        case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() | float() as value)):
            return -value
        case ast.List(elts=elements) | ast.Tuple(elts=elements):
            return [_constant(one) for one in elements]
        case _:
            raise BadExpression(f"{ast.unparse(node)!r} is neither a field, a comparison, a number nor a text")


def _path(node: ast.expr) -> tuple[str, ...]:
    match node:
        case ast.Name(id=name):
            return (name,)
        case ast.Attribute(value=value, attr=name):
            return (*_path(value), name)
        case _:
            raise BadExpression(f"{ast.unparse(node)!r} is not a field")


def _field(event: Event, path: tuple[str, ...]) -> Any:
    if path == ("type",):
        return type(event).__name__
    value: Any = event
    for name in path:
        # Declared fields alone: nothing of Python's own is reached by a name.
        if not isinstance(value, BaseModel) or name not in type(value).model_fields:
            return None
        value = getattr(value, name)
    return value
