"""Takes the contents of files out of a JSON body while it comes: what is left is small, and parsed as any other body.

A file is a string directly in the object that is the top level's `files`; in its place the left body gets its number.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Protocol

from datarun.file_names import MAX_FILES
from services.ingest.files import MIB
from services.ingest.refusals import detail, invalid

FILES = "files"
MAX_REST_BYTES = MIB
_STRUCTURE = re.compile(rb'["{}\[\]:,]')
_BACKSLASH = ord("\\")
_MOST_SPACES = 64
_LONGEST_FIELD = 4096
_ESCAPE_BYTES = 12
"""Two \\uXXXX that make one character."""


class Sink(Protocol):
    """Takes the text of one file, piece by piece."""

    def feed(self, text: bytes) -> None:
        """Take some more."""
        ...

    def end(self) -> None:
        """Take note of the end."""
        ...


class Extraction:
    """Reads a body once; whether it is JSON at all is told when what it leaves is parsed."""

    def __init__(self, make_sink: Callable[[str], Sink], *, most_rest: int = MAX_REST_BYTES) -> None:
        self._make_sink = make_sink
        self._most_rest = most_rest
        self.rest = bytearray()
        self.gaps: list[tuple[int, int]] = []
        """Where in the rest how many bytes are missing."""
        self.fields: dict[str, str] = {}
        """Strings of the top level that were complete before the files began, and not long."""
        self.sinks: list[Sink] = []
        self.is_at_files = False
        self._depth = 0
        self._keys = ["", ""]
        self._is_value = False
        self._in_files = False
        self._sink: Sink | None = None
        self._string_start: int | None = None
        self._tail = b""

    def feed(self, chunk: bytes) -> bytes:
        """Read on; returns what was not read, when the files begin for the first time."""
        chunk, self._tail = self._tail + chunk, b""
        position = 0
        while position < len(chunk):
            if self._sink is not None:
                position = self._file(self._sink, chunk, position)
            elif self._string_start is not None:
                position = self._string(chunk, position)
            else:
                was_at_files = self.is_at_files
                position = self._structure(chunk, position)
                if self.is_at_files and not was_at_files:
                    return chunk[position:]
        return b""

    def end(self) -> bytearray:
        """Return the body without its files."""
        self._keep(self._tail)
        return self.rest

    def _structure(self, chunk: bytes, start: int) -> int:
        found = _STRUCTURE.search(chunk, start)
        end = found.start() if found else len(chunk)
        self._keep_between(chunk[start:end])
        if found is None:
            return end
        self._keep(found.group())
        self._note(found.group())
        return found.end()

    def _keep_between(self, piece: bytes) -> None:
        if len(piece) > _MOST_SPACES and not piece.strip(b" "):
            # It means nothing, however much of it there is.
            self.gaps.append((len(self.rest), len(piece)))
        else:
            self._keep(piece)

    def _note(self, mark: bytes) -> None:
        match mark:
            case b'"':
                self._begin_string()
            case b"{":
                self._depth += 1
                if self._depth == 2:  # noqa: PLR2004 - the top level is 1
                    self._in_files = self._is_value and self._keys[1] == FILES
                    self.is_at_files |= self._in_files
                self._is_value = False
            case b"[":
                self._depth += 1
            case b"}" | b"]":
                self._depth -= 1
                self._in_files = self._in_files and self._depth >= 2  # noqa: PLR2004
            case _:
                self._is_value = mark == b":"

    def _begin_string(self) -> None:
        if not (self._in_files and self._is_value and self._depth == 2):  # noqa: PLR2004
            self._string_start = len(self.rest)
            return
        if len(self.sinks) >= MAX_FILES:
            raise invalid(files=f"At most {MAX_FILES} files.")
        self._sink = self._make_sink(self._keys[0])
        self.sinks.append(self._sink)
        self._keep(str(len(self.sinks) - 1).encode())
        self.gaps.append((len(self.rest), -len(str(len(self.sinks) - 1))))

    def _string(self, chunk: bytes, start: int) -> int:
        stop = _plain_until(chunk, start)
        if stop == len(chunk):
            self._keep(chunk[start:])
            return stop
        if chunk[stop] == _BACKSLASH:
            # An escaped quote does not end it; what else is escaped is the parser's business.
            if stop + 1 == len(chunk):
                self._keep(chunk[start:stop])
                self._tail = chunk[stop:]
                return len(chunk)
            self._keep(chunk[start : stop + 2])
            return stop + 2
        self._keep(chunk[start : stop + 1])
        self._end_string()
        return stop + 1

    def _end_string(self) -> None:
        start, self._string_start = self._string_start or 0, None
        if self._depth not in (1, 2) or (self._is_value and len(self.rest) - start > _LONGEST_FIELD):
            return
        raw = self.rest[start:-1]
        try:
            text = json.loads(b'"%s"' % raw, strict=False)
        except ValueError:
            text = ""
        if not self._is_value:
            # Of the two levels that matter: the last key of the top one, and of the one that is open.
            self._keys[0] = text
            if self._depth == 1:
                self._keys[1] = text
        elif self._depth == 1 and not self.is_at_files:
            self.fields[self._keys[1]] = text

    def _file(self, sink: Sink, chunk: bytes, start: int) -> int:
        stop = _plain_until(chunk, start)
        if stop > start:
            sink.feed(chunk[start:stop])
            self._leave_out(stop - start)
        if stop == len(chunk):
            return stop
        if chunk[stop] == _BACKSLASH:
            return self._escape(sink, chunk, stop)
        sink.end()
        self._sink = None
        self._keep(b'"')
        return stop + 1

    def _escape(self, sink: Sink, chunk: bytes, start: int) -> int:
        """Pass on what is meant by an escaped character; some clients write each slash as one."""
        if len(chunk) - start < _ESCAPE_BYTES and b'"' not in chunk[start + 2 :]:
            self._tail = chunk[start:]
            return len(chunk)
        length = 6 if chunk[start + 1 : start + 2] == b"u" else 2
        try:
            text = json.loads(b'"%s"' % chunk[start : start + length])
        except ValueError:
            # No character of base64, so the file is refused if the parser does not see it.
            text = "\\"
        sink.feed(text.encode(errors="replace"))
        self._leave_out(length)
        return start + length

    def _leave_out(self, count: int) -> None:
        at, before = self.gaps[-1]
        self.gaps[-1] = at, before + count

    def _keep(self, piece: bytes) -> None:
        self.rest += piece
        if len(self.rest) > self._most_rest:
            raise detail(413, f"What is not in a file exceeds {self._most_rest // MIB} MiB.", close=True)


def _plain_until(chunk: bytes, start: int) -> int:
    """Return where a string's next quote or backslash is, else the length."""
    # Ten times as fast as a search for either.
    quote = chunk.find(b'"', start)
    end = len(chunk) if quote < 0 else quote
    escape = chunk.find(b"\\", start, end)
    return end if escape < 0 else escape
