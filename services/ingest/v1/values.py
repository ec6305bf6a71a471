"""The types of /v1's parameters, bodies and answers; what is accepted is what the document says, and no more."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints, WithJsonSchema
from pydantic_core import PydanticCustomError

from services.ingest.forms import MAX_ID

MAX_OFFSET = 9_223_372_036_854_775_807
_TIME = re.compile(r"[0-9TWZ:.,+\- ]{8,40}")
_DIGITS = re.compile(r"0|-?[1-9][0-9]{0,18}")


class Asked(BaseModel):
    """What a client sends: fields nobody knows are refused, and nothing is taken for what it is not."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Told(BaseModel):
    """What a client is told; fields may be added."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def _integer(text: Any) -> Any:
    if isinstance(text, str):
        if not _DIGITS.fullmatch(text):
            raise PydanticCustomError("int_parsing", "Input should be a valid integer")
        return int(text)
    return text


def _moment(text: Any) -> Any:
    if not isinstance(text, str):
        return text
    # An unquoted plus sign of a path arrives as a space; and to Python a text ends at a NUL.
    plain = text.replace(" ", "+") if "T" in text else text
    try:
        named = datetime.fromisoformat(plain if _TIME.fullmatch(plain) else "")
        return (named if named.tzinfo else named.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise PydanticCustomError("moment_parsing", "Input should be a time like 2026-05-04T12:30:00Z") from error


FoldId = Annotated[int, Field(ge=1, le=MAX_ID, description="The number of a fold, chosen by its client.")]
SubmissionId = Annotated[int, Field(ge=1, le=MAX_ID, description="The number of a submission, chosen by its client.")]
DatasetId = Annotated[int, Field(ge=1, le=MAX_ID, description="The number of a dataset, given by the service.")]
WebhookId = Annotated[int, Field(ge=1, le=MAX_ID, description="The number of a webhook, given by the service.")]
DeliveryId = Annotated[int, Field(ge=1, le=2**53 - 1, description="The number of a try to deliver.")]
Priority = Literal["H", "L"]
Number = BeforeValidator(_integer)
"""An integer that comes as text, in a path or a query: ASCII digits alone."""
AsOf = Annotated[
    datetime,
    BeforeValidator(_moment),
    WithJsonSchema({"type": "string"}),
    Field(
        description="Tell what the log said at this moment, by the broker's clock: ISO 8601, UTC unless it says "
        "otherwise. What was accepted and had not reached the log by then is not there."
    ),
]
"""A moment of the past."""
Text = Annotated[str, StringConstraints(max_length=200, pattern=r"^[^\x00-\x1f\x7f]*$")]
"""A line of text; what has no place in Postgres or on a terminal is not in it."""
