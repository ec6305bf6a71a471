"""What every event is: a frozen fact with a wire type, a key and an id of its own."""

from __future__ import annotations

import uuid
from typing import ClassVar

from pydantic import BaseModel, ConfigDict

ID_NAMESPACE = uuid.UUID("5b3a3f0e-63a0-5f0e-9a35-6b1b2c1f7d11")
"""Namespace of the deterministic event ids (uuid5)."""


class Fact(BaseModel):
    """A value inside an event: frozen, and it refuses fields it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Event(Fact):
    """A fact in the past tense; `key_field` is its Kafka key, `identity` makes its id deterministic."""

    version: ClassVar[int] = 1
    key_field: ClassVar[str]
    identity: ClassVar[tuple[str, ...]]

    @classmethod
    def type_name(cls) -> str:
        """Return the CloudEvents type, such as datarun.FoldTested.v1."""
        return f"datarun.{cls.__name__}.v{cls.version}"

    @property
    def key(self) -> str:
        """The partition key: everything about one fold, or one dataset, is in order."""
        return str(getattr(self, self.key_field))

    @property
    def event_id(self) -> uuid.UUID:
        """The same fact has the same id, so a retried produce is recognisable for ever."""
        # Always v1: the version a fact is written in does not make it another fact.
        parts = [f"datarun.{type(self).__name__}.v1", *(str(getattr(self, name)) for name in self.identity)]
        return uuid.uuid5(ID_NAMESPACE, ":".join(parts))
