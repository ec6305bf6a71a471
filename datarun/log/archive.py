"""Files of lines, compressed by zstd: every append is a frame of its own and durable, so a cut file loses no more.

Who writes one keeps its length; going on from there forgets what a killed process had only half written.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

import zstandard

from datarun.errors import DatarunError
from datarun.log.lines import LONGEST_LINE_BYTES, BadLine

LEVEL = 3
WIDEST_WINDOW_BYTES = 1 << 27
"""Of memory that reading may take, whatever a file demands."""


class BadArchive(DatarunError):
    """A file is not lines compressed by zstd, or it was cut."""


class ArchiveWriter:
    """Appends lines to a file; whoever makes it owns the file until it is closed."""

    def __init__(self, path: Path, *, length: int = 0) -> None:
        """Open a file to go on at a length (bytes), forgetting what is behind; raises OSError, BadArchive."""
        self._file = path.open("r+b" if length else "wb")
        if self._file.seek(0, os.SEEK_END) < length:
            self._file.close()
            raise BadArchive(f"{path} is shorter than the {length} bytes that were written to it")
        self._file.truncate(length)
        self._file.seek(length)
        self.length = length

    def append(self, lines: Iterable[bytes]) -> int:
        """Write lines durably and return the file's length from now on; raises OSError."""
        frame = zstandard.ZstdCompressor(level=LEVEL, write_checksum=True).compress(b"".join(lines))
        self._file.write(frame)
        self._file.flush()
        os.fsync(self._file.fileno())
        self.length += len(frame)
        return self.length

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def read_lines(path: Path, *, longest_bytes: int = LONGEST_LINE_BYTES) -> Iterator[bytes]:
    """Yield the lines of a file in bounded memory; raises BadArchive, BadLine for one of no bounded length, OSError."""
    decompressor = zstandard.ZstdDecompressor(max_window_size=WIDEST_WINDOW_BYTES)
    with path.open("rb") as file:
        stream = io.BufferedReader(decompressor.stream_reader(file, read_across_frames=True), 1 << 20)
        try:
            while line := stream.readline(longest_bytes + 1):
                if len(line) > longest_bytes:
                    raise BadLine("a line is longer than any record")
                if not line.endswith(b"\n"):
                    raise BadArchive(f"{path} was cut: its last line has no end")
                yield line
        except zstandard.ZstdError as error:
            raise BadArchive(f"{path} is not a file of lines compressed by zstd: {error}") from error
