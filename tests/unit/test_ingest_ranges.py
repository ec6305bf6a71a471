"""One range of bytes, or the whole."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.ingest.ranges import Unsatisfiable, one_range


@pytest.mark.parametrize(
    ("header", "size", "wanted"),
    [
        ("bytes=0-", 10, (0, 10)),
        ("bytes=3-", 10, (3, 10)),
        ("bytes=3-5", 10, (3, 6)),
        ("bytes=9-900", 10, (9, 10)),
        ("bytes=-4", 10, (6, 10)),
        ("bytes=-40", 10, (0, 10)),
        ("Bytes = 1-1", 10, (1, 2)),
        (None, 10, None),
        ("bytes=-", 10, None),
        ("bytes=5-3", 10, None),
        ("bytes=0-1,3-4", 10, None),
        ("rows=0-1", 10, None),
        ("bytes=+1-2", 10, None),
        ("bytes=\u0661-\u0662", 10, None),
        ("bytes=" + "9" * 40 + "-", 10, None),
    ],
)
def test_a_range_is_read_as_http_says(header, size, wanted):
    """What is not one well-formed range asks for the whole."""
    assert one_range(header, size) == wanted


@pytest.mark.parametrize(("header", "size"), [("bytes=10-", 10), ("bytes=-0", 10), ("bytes=0-", 0), ("bytes=-1", 0)])
def test_a_range_outside_the_bytes_is_refused(header, size):
    """Nothing can be sent for it."""
    with pytest.raises(Unsatisfiable):
        one_range(header, size)


@given(
    header=st.one_of(st.none(), st.text(), st.from_regex(r"bytes=[0-9]*-[0-9]*", fullmatch=True)),
    size=st.integers(0, 99),
)
def test_whatever_is_asked_the_range_is_inside(header, size):
    """No header leads outside the bytes."""
    try:
        start, stop = one_range(header, size) or (0, size)
    except Unsatisfiable:
        return
    assert 0 <= start <= stop <= size
