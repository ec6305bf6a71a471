"""What a Parquet table's end will say of its row groups, kept beside it while it is written: the end comes last.

Of each group the file has how many bytes its description takes, and the description.
"""

from __future__ import annotations

import os
import struct
from pathlib import Path
from typing import Any

_SIZE = struct.Struct("<I")


class RowGroups:
    """The row groups of a table that is being written; whoever makes it owns the file until it is closed."""

    def __init__(self, path: Path, *, count: int) -> None:
        """Go on behind so many groups, forgetting others; raises OSError, EOFError if there are fewer."""
        self._path = path
        self.known: list[Any] = []
        self._file = path.open("r+b" if count else "wb")
        try:
            for _ in range(count):
                self.known.append(self._read())
        except BaseException:
            self._file.close()
            raise
        self._file.truncate()

    def append(self, group: Any) -> None:
        """Add a group, durably; raises OSError."""
        content = bytes(group.to_bytes())
        self._file.write(_SIZE.pack(len(content)) + content)
        self._file.flush()
        os.fsync(self._file.fileno())
        self.known.append(group)

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()

    def remove(self) -> None:
        """Close the file and remove it; raises OSError."""
        self.close()
        self._path.unlink(missing_ok=True)

    def _read(self) -> Any:
        from fastparquet.cencoding import from_buffer  # type: ignore[import-untyped]  # noqa: PLC0415 - half a second

        size = self._file.read(_SIZE.size)
        content = self._file.read(*_SIZE.unpack(size)) if len(size) == _SIZE.size else b""
        if len(size) < _SIZE.size or len(content) < _SIZE.unpack(size)[0]:
            raise EOFError
        return from_buffer(content, "RowGroup")
