"""What the gateway makes of bytes and names: pure functions, so Hypothesis may try what it likes."""

from __future__ import annotations

import base64
import csv
import io
import json
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.ingest.files import MAX_FILE_BYTES, TooLarge, check_names, decode
from services.ingest.forms import Bad
from services.ingest.indices import check_indices, decode_indices
from services.ingest.refusals import Refusal
from services.ingest.sources import SPECIFIC_FUNCTIONS, check_specific
from services.ingest.strict_json import parse
from services.ingest.tabular import check_csv

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**90), 10**90)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_characters="\0", exclude_categories=("Cs",))),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text("abc", min_size=1), inner, max_size=4),
    max_leaves=20,
)


def packed(content: bytes) -> str:
    """Return base64(zlib(content))."""
    return base64.b64encode(zlib.compress(content)).decode()


@given(st.dictionaries(st.text("abcdef", min_size=1), JSON))
def test_json_objects_are_read_as_python_reads_them(value: dict[str, object]) -> None:
    """Strictness takes nothing away from a good body."""
    assert parse(json.dumps(value).encode()) == value


@given(st.binary() | st.text().map(str.encode) | st.text('{}[]",:\\u0123456789eE.-nultrfas').map(str.encode))
def test_any_bytes_are_an_object_or_refused(content: bytes) -> None:
    """Nothing but a Refusal comes of a bad body."""
    result: object
    try:
        result = parse(content)
    except Refusal as refusal:
        result = refusal
    assert isinstance(result, dict) or result.status == 400


def test_a_mark_of_byte_order_is_named() -> None:
    """A body that begins with one is refused with what Python says of it."""
    with pytest.raises(Refusal) as refused:
        parse(b"\xef\xbb\xbf{}")
    message = "Unexpected UTF-8 BOM (decode using utf-8-sig): line 1 column 1 (char 0)"
    assert refused.value.body == {"detail": f"JSON parse error - {message}"}


@pytest.mark.parametrize("depth", [64, 65])
def test_nesting_ends_at_64(depth: int) -> None:
    """The 64th level is read, the 65th refused."""
    body = b'{"a":' * depth + b"1" + b"}" * depth
    if depth == 64:
        assert parse(body)
    else:
        with pytest.raises(Refusal, match="deeper than 64"):
            parse(body)


@given(st.binary(max_size=5000))
def test_packed_bytes_come_back(content: bytes) -> None:
    """What a client packs is what is stored."""
    assert decode(packed(content), at_most=MAX_FILE_BYTES) == content


@given(st.text() | st.binary().map(lambda content: base64.b64encode(content).decode()))
def test_any_text_is_bytes_or_bad(text: str) -> None:
    """Nothing but Bad comes of text that is not base64(zlib(bytes))."""
    result: object
    try:
        result = decode(text, at_most=1000)
    except Bad as bad:
        result = bad
    assert isinstance(result, bytearray) or result.body


@given(st.binary(min_size=20, max_size=2000), st.data())
def test_every_truncation_is_noticed(content: bytes, data: st.DataObject) -> None:
    """A stream that ends early is never taken for a shorter file."""
    compressed = zlib.compress(content)
    cut = data.draw(st.integers(2, len(compressed) - 1))
    with pytest.raises(Bad):
        decode(base64.b64encode(compressed[:cut]).decode(), at_most=MAX_FILE_BYTES)


def test_the_limit_is_exact() -> None:
    """As many bytes as are allowed are read, one more is too many."""
    assert len(decode(packed(bytes(3_000_000)), at_most=3_000_000)) == 3_000_000
    with pytest.raises(TooLarge):
        decode(packed(bytes(3_000_001)), at_most=3_000_000)


@given(st.text())
def test_an_accepted_name_is_a_plain_file_name(name: str) -> None:
    """No name that is accepted can leave a folder, be an option or hide."""
    try:
        check_names([name])
    except Refusal:
        return
    assert name.isprintable()
    assert not set(name) & set("/\\:%\0\n")
    assert name[0] not in ".- "
    assert 0 < len(name) <= 100


@pytest.mark.parametrize(
    "name", ["iris.csv", "train_1.csv.gz", "el nino-2.nc", "__init__.py", "données.csv", "数据.csv"]
)
def test_ordinary_names_are_accepted(name: str) -> None:
    """Names that people give are fine."""
    check_names([name])


@given(st.lists(st.integers(0, 999), unique=True, min_size=1))
def test_good_indices_pass(values: list[int]) -> None:
    """Different rows in any order are indices."""
    content = decode_indices(packed(b"".join(value.to_bytes(8, "little", signed=True) for value in values)))
    check_indices(content, rows=1000, may_be_empty=False)


@given(st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1), st.integers(1, 1000) | st.none())
def test_bad_indices_are_named(values: list[int], rows: int | None) -> None:
    """Indices pass only if they are different rows, whatever 64-bit integers they are."""
    content = bytearray(b"".join(value.to_bytes(8, "little", signed=True) for value in values))
    limit = 2**31 - 1 if rows is None else rows
    good = len(set(values)) == len(values) and all(0 <= value < limit for value in values)
    try:
        check_indices(content, rows=rows, may_be_empty=False)
    except Bad:
        assert not good
    else:
        assert good


TABLE = st.integers(1, 4).flatmap(
    lambda width: st.lists(
        st.lists(
            st.text(st.characters(exclude_characters="\0", exclude_categories=("Cs",))), min_size=width, max_size=width
        ),
        min_size=1,
        max_size=8,
    ).map(lambda rows: (width, rows))
)


@given(TABLE, st.sampled_from(["\n", "\r\n"]))
def test_whatever_a_writer_writes_is_counted(table: tuple[int, list[list[str]]], ending: str) -> None:
    """A table written by the csv module has as many rows as were written, whatever is in its cells."""
    width, rows = table
    text = io.StringIO()
    writer = csv.writer(text, lineterminator=ending, quoting=csv.QUOTE_ALL)
    writer.writerows([[f"c{n}" for n in range(width)], *rows])
    assert check_csv(io.BytesIO(text.getvalue().encode()), target_column="c0") == len(rows)


@given(st.binary())
def test_any_bytes_are_a_table_or_bad(content: bytes) -> None:
    """Nothing but Bad comes of a file that is no table."""
    result: object
    try:
        result = check_csv(io.BytesIO(content), target_column="a")
    except Bad as bad:
        result = bad
    assert result.body if isinstance(result, Bad) else result > 0


def test_functions_may_be_imported_or_assigned() -> None:
    """A specific.py need not define its functions on the spot."""
    one, two, *rest = SPECIFIC_FUNCTIONS
    source = f"from elsewhere import {one}, x as {two}\n" + "".join(f"{name} = print\n" for name in rest)
    check_specific(bytearray(source.encode()))
    with pytest.raises(Bad, match=rest[-1]):
        check_specific(bytearray(source.replace(f"{rest[-1]} =", "other =").encode()))


@pytest.mark.parametrize("source", [b"(" * 100_000, b"x = " + b"-" * 100_000 + b"1", b"\xff", b"# " + b"x" * 2_000_000])
def test_hostile_sources_are_only_refused(source: bytes) -> None:
    """A source that no parser likes is refused like any other."""
    with pytest.raises(Bad):
        check_specific(bytearray(source))
