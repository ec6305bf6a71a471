"""Moments as people write them: ISO 8601, or how long ago."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

import typer

_AGO = re.compile(r"(\d{1,9})(s|m|h|d)")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


def moment(text: str, *, now: datetime) -> datetime:
    """Return the moment a text names, UTC unless it says otherwise; raises typer.BadParameter."""
    ago = _AGO.fullmatch(text)
    try:
        named = now - timedelta(**{_UNITS[ago[2]]: int(ago[1])}) if ago else datetime.fromisoformat(text)
    except (ValueError, OverflowError) as error:
        raise typer.BadParameter(f"{text!r} is neither a time like 2026-05-04T12:30 nor one ago like 90m") from error
    return named if named.tzinfo else named.replace(tzinfo=UTC)
