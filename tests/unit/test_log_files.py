"""Files of the log: lines keep every byte, frames go on where they were cut, and foreign files are refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from datarun.errors import DatarunError
from datarun.log import StoredRecord, parquet
from datarun.log.archive import ArchiveWriter, BadArchive, read_lines
from datarun.log.lines import BadLine, from_line, to_line
from datarun.log.parquet import BadTable, TableWriter
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


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.lists(records, max_size=5))
def test_a_table_keeps_every_byte(tmp_path: Path, written: list[StoredRecord]) -> None:
    """Whatever records hold, and when there are none."""
    path = tmp_path / "log.parquet"
    path.unlink(missing_ok=True)
    assert parquet.write(path, written, catalogue=HERE) == len(written)
    expected = [record._replace(topic="there.fold-events") for record in written]
    assert list(parquet.read(path, catalogue=THERE)) == expected
    with pytest.raises(DatarunError):
        parquet.write(path, written, catalogue=HERE)


def test_a_table_is_written_and_read_a_row_group_at_a_time(tmp_path: Path) -> None:
    """So memory does not grow with the table; other programs read types, versions and times from it."""
    fastparquet = pytest.importorskip("fastparquet")
    path, headers = tmp_path / "log.parquet", [("ce_type", b"datarun.FoldTested.v2"), ("ce_id", b"7")]
    written = (
        StoredRecord("here.fold-events", 1, offset, b"5", b"{}", headers, 1_767_225_600_005)
        for offset in range(parquet.ROWS_A_GROUP * 2 + 1)
    )
    assert parquet.write(path, written, catalogue=HERE) == parquet.ROWS_A_GROUP * 2 + 1
    table = fastparquet.ParquetFile(str(path))
    assert [group.num_rows for group in table.row_groups] == [parquet.ROWS_A_GROUP, parquet.ROWS_A_GROUP, 1]
    last = table.to_pandas().iloc[-1]
    assert (last["type"], last["version"], last["event_id"], last["topic"]) == ("FoldTested", 2, "7", "fold-events")
    assert last["timestamp"].isoformat() == "2026-01-01T00:00:00.005000+00:00"


def test_a_table_has_its_name_once_it_is_whole(tmp_path: Path) -> None:
    """What a kill leaves beside it is written over, and what failed is taken away."""
    path = tmp_path / "log.parquet"
    (tmp_path / "log.parquet.part").write_bytes(b"PAR1 of a killed one")
    writer = TableWriter(path, catalogue=HERE)
    writer.append([StoredRecord("here.fold-events", 0, 0, b"1", b"{}")])
    assert not path.exists()
    writer.close()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", [b"", b"PAR1", b"PAR1PAR1", b"PAR1" + bytes(100) + b"PAR1", b"\x00" * 5000])
def test_a_file_that_is_no_table_is_refused(tmp_path: Path, content: bytes) -> None:
    """Also a table of something else, and one that was cut."""
    path = tmp_path / "log.parquet"
    path.write_bytes(content)
    with pytest.raises(BadTable):
        list(parquet.read(path, catalogue=HERE))
    whole = tmp_path / "whole.parquet"
    parquet.write(whole, [StoredRecord("here.fold-events", 0, 0, b"1", b"{}")], catalogue=HERE)
    path.write_bytes(whole.read_bytes()[:-20])
    with pytest.raises(BadTable):
        list(parquet.read(path, catalogue=HERE))


def test_a_bomb_is_not_unpacked(tmp_path: Path) -> None:
    """A few bytes that stand for one endless line are refused when the line is too long."""
    path = tmp_path / "bomb.jsonl.zst"
    path.write_bytes(zstandard.ZstdCompressor().compress(bytes(1 << 28)))
    assert path.stat().st_size < 100_000
    with pytest.raises(BadLine):
        next(read_lines(path, longest_bytes=1 << 20))
