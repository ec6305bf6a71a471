"""What Postgres cannot store is replaced, and nothing else is touched."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from datarun.projection.text import json_text, storable


@given(st.text(st.characters(exclude_characters="\x00", exclude_categories=["Cs"])))
def test_storable_text_stays_as_it_is(text: str) -> None:
    """Logs are shown as they were printed."""
    assert storable(text) == text
    assert json.loads(json_text([{"log": text}])) == [{"log": text}]


@given(st.text(st.characters(categories=["Cs", "Cc", "Ll"])))
def test_whatever_comes_out_can_be_stored(text: str) -> None:
    """Neither NUL nor half a surrogate pair reaches the database, in a value or in a name."""
    [row] = json.loads(json_text([{text: [text]}]))
    for part in (storable(text), *row, *row.popitem()[1]):
        assert "\x00" not in part
        part.encode()


def test_a_backslash_before_u0000_is_text() -> None:
    """It only looks like an escaped NUL."""
    assert json.loads(json_text([r"\u0000"])) == [r"\u0000"]
