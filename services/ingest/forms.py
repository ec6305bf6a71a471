"""The fields of a request's body: what each may be, and the message when it is not.

A check takes the JSON value and returns what the program works with, or raises Bad; a form checks all of its fields.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from datarun.errors import DatarunError
from services.ingest.refusals import Refusal

REQUIRED = "This field is required."
MAX_ID = 2_147_483_647


class Bad(DatarunError):
    """A field's value is wrong; the body is what DRF would answer for the field."""

    def __init__(self, *messages: str, body: Any = None) -> None:
        super().__init__("; ".join(messages))
        self.body = list(messages) if body is None else body


Check = Callable[[Any], Any]


@dataclass(frozen=True, slots=True)
class Field:
    """One key of a body; `missing` is the message for its absence, None if it may be left out."""

    check: Check
    missing: str | None = REQUIRED
    default: Any = None


class Form:
    """The keys a route reads; others are ignored, as the 2016 service ignored them."""

    def __init__(self, **fields: Field) -> None:
        self._fields = fields

    def read(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """Return the checked values; raises Refusal with every field that is wrong."""
        values: dict[str, Any] = {}
        wrong: dict[str, Any] = {}
        for name, field in self._fields.items():
            try:
                values[name] = self._value(field, body, name)
            except Bad as bad:
                wrong[name] = bad.body
        if wrong:
            raise Refusal(400, wrong)
        return values

    @staticmethod
    def _value(field: Field, body: Mapping[str, Any], name: str) -> Any:
        if name in body:
            return field.check(body[name])
        if field.missing is not None:
            raise Bad(field.missing)
        return field.default


def text(*, at_most: int) -> Check:
    """Take text that is not blank; ends are stripped."""

    def check(value: Any) -> str:
        if not isinstance(value, str):
            raise Bad("Not a valid string.")
        stripped = value.strip()
        if not stripped:
            raise Bad("This field may not be blank.")
        if len(stripped) > at_most:
            raise Bad(f"Ensure this field has no more than {at_most} characters.")
        return stripped

    return check


def string(value: Any) -> str:
    """Take any text."""
    if not isinstance(value, str):
        raise Bad("Not a valid string.")
    return value


def integer(value: Any) -> int:
    """Take an integer; digits in a string count, as form data sends them, but neither 1.0 nor true."""
    if isinstance(value, str) and value.isascii() and value.removeprefix("-").isdigit() and len(value) < 20:  # noqa: PLR2004
        return int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        raise Bad("A valid integer is required.")
    return value


def identifier(value: Any) -> int:
    """Take the number of a fold, a submission or a dataset."""
    number = integer(value)
    if not 1 <= number <= MAX_ID:
        raise Bad(f"Ensure this value is between 1 and {MAX_ID}.")
    return number


def files(value: Any) -> dict[str, Any]:
    """Take file names and their contents; what is in them is checked when they are decoded."""
    if not isinstance(value, dict):
        raise Bad(f'Expected a dictionary of items but got type "{type(value).__name__}".')
    if not value:
        raise Bad("This dictionary may not be empty.")
    return value


def one_of(choices: dict[str, Any]) -> Check:
    """Take one of some words, and return what the word stands for."""

    def check(value: Any) -> Any:
        if value is None:
            raise Bad("This field may not be null.")
        if not isinstance(value, str) or value not in choices:
            shown = value if isinstance(value, str | int | float) else type(value).__name__
            raise Bad(f'"{str(shown)[:100]}" is not a valid choice.')
        return choices[value]

    return check
