"""Messages, parcels and positions: what is sent arrives, what is not a message is refused."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
import pytest

from services.runner.execution.isolated import wire
from services.runner.execution.isolated.parcels import pack, unpack
from services.runner.execution.isolated.rows import check_positions, read_positions
from services.runner.execution.isolated.wire import Garbled

Ends = tuple[socket.socket, socket.socket]


@pytest.fixture
def ends() -> Iterator[Ends]:
    """Two connected ends."""
    ours, theirs = wire.pair()
    with ours, theirs:
        yield ours, theirs


def test_a_message_arrives_with_its_files(ends: Ends) -> None:
    """One message, whole, with a descriptor of the same file."""
    content = wire.sealed([b"abc"])
    wire.send(ends[0], {"n": 1}, [content])
    received = wire.receive(ends[1])
    assert received is not None
    message, (descriptor,) = received
    assert message == {"n": 1}
    assert wire.read(descriptor, 3) == b"abc"
    wire.close([content, descriptor])


def test_the_end_is_none(ends: Ends) -> None:
    """A closed channel has no more messages."""
    ends[0].close()
    assert wire.receive(ends[1]) is None


@pytest.mark.parametrize("content", [b"\xff", b"{", b"[]", b"1", b"[" * 100_000, b'"a"', b"9" * 5000])
def test_what_is_no_message_is_garbled(ends: Ends, content: bytes) -> None:
    """Bytes that are not a JSON object are refused, however they fail."""
    ends[0].send(content)
    with pytest.raises(Garbled):
        wire.receive(ends[1])


def test_more_files_than_allowed_are_closed(ends: Ends) -> None:
    """A message with too many descriptors is refused and leaves none open."""
    null = os.open(os.devnull, os.O_RDONLY)
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - names are enough
    wire.send(ends[0], {}, [null] * 20)
    with pytest.raises(Garbled):
        wire.receive(ends[1])
    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208
    os.close(null)


def test_a_sealed_file_cannot_be_changed() -> None:
    """Nobody writes to, shortens or lengthens a sealed file."""
    descriptor = wire.sealed([b"abc", b"def"])
    assert wire.sealed_size(descriptor) == 6
    for change in (lambda: os.write(descriptor, b"x"), lambda: os.ftruncate(descriptor, 1)):
        with pytest.raises(PermissionError):
            change()
    os.close(descriptor)


@pytest.mark.parametrize("kind", ["unsealed", "pipe", "file"])
def test_other_files_are_not_taken_for_sealed_ones(tmp_path, kind: str) -> None:
    """A memory file that can still change, a pipe and a file on disk are refused."""
    others = []
    if kind == "unsealed":
        descriptor = os.memfd_create("x", os.MFD_ALLOW_SEALING)
    elif kind == "pipe":
        descriptor, *others = os.pipe()
    else:
        descriptor = os.open(tmp_path / "f", os.O_RDWR | os.O_CREAT)
    with pytest.raises(Garbled):
        wire.sealed_size(descriptor)
    wire.close([descriptor, *others])


def test_a_file_that_ends_early_is_garbled() -> None:
    """Reading more than there is never waits and never pads."""
    descriptor = wire.sealed([b"abc"])
    with pytest.raises(Garbled):
        wire.read(descriptor, 4)
    os.close(descriptor)


ARRAYS: dict[str, Any] = {
    "C order": np.arange(6.0).reshape(2, 3),
    "Fortran order": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    "one dimension": np.arange(4, dtype=np.int16),
    "booleans": np.array([True, False]),
    "complex": np.array([1 + 2j]),
    "big endian": np.arange(3, dtype=">f4"),
    "three dimensions": np.arange(24).reshape(2, 3, 4),
    "strided": np.arange(12).reshape(3, 4)[:, ::2],
    "empty": np.empty((0, 3)),
    "objects": np.array(["a", None], dtype=object),
    "dates": np.array(["2020-01-01"], dtype="datetime64[D]"),
}


@pytest.mark.parametrize("name", ARRAYS)
def test_an_array_arrives_as_it_was(name: str) -> None:
    """Values, type, shape, memory order and the right to write survive a parcel."""
    headers, descriptor = pack([ARRAYS[name], "after"])
    value, after = unpack(headers, descriptor)
    os.close(descriptor)
    assert after == "after"
    assert value.dtype == ARRAYS[name].dtype
    assert value.tolist() == ARRAYS[name].tolist()
    assert value.flags.writeable
    if name != "strided":
        assert value.flags.f_contiguous == ARRAYS[name].flags.f_contiguous


def test_frames_and_lists_arrive() -> None:
    """What is no numeric array is pickled."""
    frame = pd.DataFrame({"a": [1, 2], "b": ["x", None]}, index=[5, 6])
    headers, descriptor = pack([frame, [frame["a"]]])
    got, (series,) = unpack(headers, descriptor)
    os.close(descriptor)
    pd.testing.assert_frame_equal(got, frame)
    pd.testing.assert_series_equal(series, frame["a"])


def test_positions_are_checked_in_order() -> None:
    """The first position outside the rows is named; those inside pass."""
    descriptor = wire.sealed([np.array([0, 4, 5, -1], dtype="<i8").tobytes()])
    positions = read_positions(descriptor)
    os.close(descriptor)
    check_positions(positions[:2], 5)
    with pytest.raises(IndexError, match=r"index 5 is out of range 0\.\.4"):
        check_positions(positions, 5)
