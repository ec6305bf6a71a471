"""When a claim was accepted, as the log tells it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from datarun.envelope import Context, encode
from datarun.events import FoldRequested
from datarun.intake.history import CLOCKS_APART, GATEWAYS, read_history
from datarun.log import StoredRecord
from datarun.published.examples import EXAMPLES
from datarun.topics import Catalogue

CATALOGUE = Catalogue("")
LOGGED = datetime(2026, 5, 4, 12, tzinfo=UTC)
LONG_AGO, YEAR = LOGGED - timedelta(days=3, microseconds=7), timedelta(days=365)
GATEWAY = f"{GATEWAYS}here"


@pytest.mark.parametrize(
    ("source", "told", "accepted"),
    [
        (GATEWAY, LONG_AGO, LONG_AGO),
        (GATEWAY, LOGGED + CLOCKS_APART / 2, LOGGED + CLOCKS_APART / 2),
        (GATEWAY, LOGGED + YEAR, LOGGED),
        ("databoard", LONG_AGO, LOGGED),
        ("databoard", LOGGED + YEAR, LOGGED),
    ],
)
def test_a_gateway_is_believed_when_it_accepted_and_nobody_else(
    source: str, told: datetime, accepted: datetime
) -> None:
    """But not a moment that is to come; a producer's claim is as old as its record."""
    record = encode(EXAMPLES[FoldRequested], catalogue=CATALOGUE, context=Context(source, told))
    stored = StoredRecord(record.topic, 0, 0, record.key, record.value, record.headers, int(LOGGED.timestamp() * 1000))
    [fold] = read_history([stored], catalogue=CATALOGUE).folds.values()
    assert fold["accepted_at"] == accepted


@pytest.mark.parametrize("time", [b"", b"yesterday", b"2026-05-04T12:00:00"])
def test_a_moment_that_is_none_is_the_brokers(time: bytes) -> None:
    """Whatever a header holds, the claim stands."""
    record = encode(EXAMPLES[FoldRequested], catalogue=CATALOGUE, context=Context(GATEWAY, LONG_AGO))
    headers = [(name, time if name == "ce_time" else value) for name, value in record.headers]
    stored = StoredRecord(record.topic, 0, 0, record.key, record.value, headers, int(LOGGED.timestamp() * 1000))
    [fold] = read_history([stored], catalogue=CATALOGUE).folds.values()
    assert fold["accepted_at"] == LOGGED
