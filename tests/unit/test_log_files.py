"""Files of the log: lines keep every byte, frames go on where they were cut, and foreign files are refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from datarun.log import StoredRecord
from datarun.log.archive import ArchiveWriter, BadArchive, read_lines
from datarun.log.lines import BadLine, from_line, to_line
from datarun.topics import Catalogue

HERE, THERE = Catalogue("here."), Catalogue("there.")
content = st.none() | st.binary(max_size=30) | st.text(max_size=10).map(lambda text: text.encode("utf-8", "replace"))
records = st.builds(
    StoredRecord,
    topic=st.just("here.fold-events"),
    partition=st.integers(0, 11),
    offset=st.integers(0, 2**62),
    key=content,
    value=content,
    headers=st.lists(st.tuples(st.text("abc-_", max_size=5), content), max_size=4),
    timestamp_ms=st.integers(-1, 2**62),
)


@given(records)
def test_a_line_keeps_every_byte(record: StoredRecord) -> None:
    """Whatever a record holds, its line is one line, and what is read from it is the record under another prefix."""
    line = to_line(record, catalogue=HERE)
    assert line.index(b"\n") == len(line) - 1
    assert from_line(line, catalogue=THERE) == record._replace(topic="there.fold-events")


@given(st.binary(max_size=200))
def test_bytes_that_are_no_line_are_refused(line: bytes) -> None:
    """Nothing but BadLine comes of foreign bytes."""
    with pytest.raises(BadLine):
        from_line(line, catalogue=HERE)


@pytest.mark.parametrize(
    "wrong",
    [
        b'{"topic":"../x","partition":0,"offset":0}',
        b'{"topic":"x","partition":-1,"offset":0}',
        b'{"topic":"x","partition":"0","offset":0}',
        b'{"topic":"x","partition":0,"offset":99999999999999999999}',
        b'{"topic":"x","partition":0,"offset":0,"value":{"base64":"*"}}',
        b'{"topic":"x","partition":0,"offset":0,"value":7}',
        b'{"topic":"x","partition":0,"offset":0,"other":7}',
        b"[" * 100_000,
    ],
)
def test_a_line_that_says_something_else_is_refused(wrong: bytes) -> None:
    """Names with slashes, numbers out of bounds, what is not base64 and fields that were never declared are refused."""
    with pytest.raises(BadLine):
        from_line(wrong, catalogue=HERE)


def test_writing_goes_on_where_it_was_cut(tmp_path: Path) -> None:
    """What was half written behind the known length is forgotten; the frames before it are read as one file."""
    path = tmp_path / "log.jsonl.zst"
    with ArchiveWriter(path) as writer:
        length = writer.append([b"1\n", b"2\n"])
    with path.open("ab") as file:
        file.write(b"half a frame")
    with pytest.raises(BadArchive):
        list(read_lines(path))
    with ArchiveWriter(path, length=length) as writer:
        writer.append([b"3\n"])
    assert list(read_lines(path)) == [b"1\n", b"2\n", b"3\n"]
    with pytest.raises(BadArchive):
        ArchiveWriter(path, length=10_000)


def test_a_cut_frame_is_told(tmp_path: Path) -> None:
    """A file that ends within a frame does not pass for a shorter one."""
    path = tmp_path / "log.jsonl.zst"
    with ArchiveWriter(path) as writer:
        length = writer.append([bytes(range(32, 127)) * 2000 + b"\n", b"end\n"])
    with path.open("r+b") as file:
        file.truncate(length - 5)
    with pytest.raises(BadArchive):
        list(read_lines(path))


def test_a_bomb_is_not_unpacked(tmp_path: Path) -> None:
    """A few bytes that stand for one endless line are refused when the line is too long."""
    path = tmp_path / "bomb.jsonl.zst"
    path.write_bytes(zstandard.ZstdCompressor().compress(bytes(1 << 28)))
    assert path.stat().st_size < 100_000
    with pytest.raises(BadLine):
        next(read_lines(path, longest_bytes=1 << 20))
