"""Files are taken out of a body, however it is cut, and what is left means the same."""

from __future__ import annotations

import base64
import json
import zlib
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from services.ingest.extraction import MAX_REST_BYTES, Extraction
from services.ingest.files import Unpacker
from services.ingest.forms import Bad
from services.ingest.refusals import Refusal
from services.ingest.strict_json import parse


class Text:
    """A sink that keeps everything."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.text = b""
        self.has_ended = False

    def feed(self, text: bytes) -> None:
        """Keep some more."""
        assert not self.has_ended
        self.text += text

    def end(self) -> None:
        """Note the end."""
        self.has_ended = True


def extract(body: bytes, cuts: list[int]) -> tuple[Extraction, list[Text]]:
    """Read a body in pieces."""
    sinks: list[Text] = []

    def make(name: str) -> Text:
        sinks.append(Text(name))
        return sinks[-1]

    extraction = Extraction(make)
    edges = sorted({0, len(body), *(cut % (len(body) + 1) for cut in cuts)})
    for start, end in pairwise(edges):
        rest = extraction.feed(body[start:end])
        while rest:
            rest = extraction.feed(rest)
    extraction.end()
    return extraction, sinks


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text('ab"\\{}[]:,é\n\u20ac', max_size=6),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["files", "name", "a\\b", 'q"']), inner, max_size=3)
    ),
    max_leaves=12,
)
FILES = st.dictionaries(st.text('ab".é/\\', max_size=4), st.text("AZaz09+/=", max_size=40) | VALUES, max_size=4)


@given(
    st.dictionaries(st.sampled_from(["name", "target", "x", "fil", '"files"']), VALUES, max_size=3),
    FILES | VALUES,
    st.booleans(),
    st.lists(st.integers(0, 2000), max_size=12),
    st.sampled_from([None, 0, 70]),
)
def test_what_is_taken_out_and_what_is_left_are_the_body(
    fields: dict[str, Any], files: Any, files_first: Any, cuts: list[int], spaces: int | None
) -> None:
    """Put together again they are what Python reads, wherever the body was cut and however it was written."""
    body = {"files": files} | fields if files_first else fields | {"files": files}
    text = json.dumps(body, indent=spaces and " " * spaces, ensure_ascii=not spaces).replace("/", "\\/")
    extraction, sinks = extract(text.encode(), cuts)
    left = json.loads(extraction.rest)
    if isinstance(files, dict):
        for name, value in left["files"].items():
            if isinstance(value, str):
                sink = sinks[int(value)]
                assert (sink.name, sink.has_ended) == (name, True)
                left["files"][name] = sink.text.decode()
    assert left == body
    strings = [value for value in files.values() if isinstance(value, str)] if isinstance(files, dict) else []
    assert len(sinks) == len(strings)


PIECES = ['{"files":', '"\\u0066iles":', "{", "}", "[", "]", '"a":', '"b"', '"files"', ",", ":", "1", " "]
BROKEN = st.lists(st.sampled_from(PIECES), max_size=14).map(lambda pieces: "".join(pieces).encode())


@given(
    st.binary(max_size=300) | st.text('{}[]",:\\u01files').map(str.encode) | BROKEN,
    st.lists(st.integers(0, 300), max_size=5),
)
@example(b'{"files":{"a":"b"}}', [])
def test_any_bytes_are_read_to_their_end(body: bytes, cuts: list[int]) -> None:
    """What is no JSON is left for the parser to refuse; in what is, each text in files is the number of a sink."""
    extraction, sinks = extract(body, cuts)
    if not sinks and not extraction.gaps:
        assert extraction.rest == body
    try:
        files = parse(extraction.rest, gaps=extraction.gaps).get("files")
    except Refusal:
        return
    numbers = [value for value in files.values() if isinstance(value, str)] if isinstance(files, dict) else []
    assert {int(number) for number in numbers} == set(range(len(sinks)))


@pytest.mark.parametrize(
    "body",
    [
        b'{"files": {"a": "QUJD", "b": "QUJDREVG"}, "name": nul}',
        b'{"files": {"a": "QUJD"},\n "name": }',
        b'{"files": {"a": "QU\\/JD"}, "name": "x" "y"}',
        b'{"a": 1,' + b" " * 500 + b"]}",
        b'{"files": {"a": "QUJD" "b"}}',
    ],
)
def test_errors_are_where_they_were_in_the_whole_body(body: bytes) -> None:
    """Line, column and position are those of the body the client sent."""
    extraction, _ = extract(body, [])
    with pytest.raises(Refusal) as whole:
        parse(body)
    with pytest.raises(Refusal) as left:
        parse(extraction.rest, gaps=extraction.gaps)
    assert left.value.body == whole.value.body


def test_the_name_is_known_when_the_files_begin() -> None:
    """Reading stops there once, so that somebody can look at it before anything is unpacked."""
    extraction = Extraction(Text)
    rest = extraction.feed(b'{"n\\u0061me": "iris", "x": {"name": "no"}, "files": {"a": "QUJD"}, "name": "late"}')
    assert extraction.fields == {"name": "iris"}
    assert rest.startswith(b'"a"')
    assert extraction.sinks == []
    assert extraction.feed(rest) == b""
    assert extraction.fields == {"name": "iris"}


def test_what_is_not_in_a_file_is_bounded() -> None:
    """Only files may be large, and there are a hundred at the most."""
    with pytest.raises(Refusal) as refused:
        extract(b'{"name": "' + b"x" * MAX_REST_BYTES + b'"}', [])
    assert refused.value.status == 413
    with pytest.raises(Refusal, match="At most 100 files"):
        extract(json.dumps({"files": {str(n): "" for n in range(101)}}).encode(), [])


@given(st.binary(max_size=3000), st.lists(st.integers(0, 4000), max_size=8), st.integers(0, 9))
def test_text_in_any_pieces_is_unpacked_alike(content: bytes, cuts: list[int], level: int) -> None:
    """Padding, the end of the stream and group borders may lie wherever they like."""
    text = base64.b64encode(zlib.compress(content, level))
    unpacker = Unpacker(at_most=10_000)
    edges = sorted({0, len(text), *(cut % (len(text) + 1) for cut in cuts)})
    unpacked = b""
    for start, end in pairwise(edges):
        unpacked += b"".join(unpacker.feed(text[start:end]))
    assert unpacked + b"".join(unpacker.end()) == content
    assert unpacker.size == len(content)


@pytest.mark.parametrize("text", [b"eJzT=", b"eJ=TeJzT", b"====", b"eJz", b"eJ\nzT", b"eJzT\xff\xff\xff\xff"])
def test_what_is_not_base64_is_bad_in_any_pieces(text: bytes) -> None:
    """Whether it comes byte by byte or at once."""
    for size in (1, 3, len(text)):
        unpacker = Unpacker(at_most=100)
        with pytest.raises(Bad, match="Not valid base64"):
            _unpack(unpacker, [text[start : start + size] for start in range(0, len(text), size)])


def _unpack(unpacker: Unpacker, pieces: list[bytes]) -> None:
    for piece in pieces:
        list(unpacker.feed(piece))
    list(unpacker.end())
