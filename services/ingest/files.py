"""Files in a body: their names are labels and checked as such, their contents are base64(zlib(bytes))."""

from __future__ import annotations

import binascii
import hashlib
import zlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from datarun.blobs import OCTETS
from datarun.events import Blob, NamedBlob
from datarun.file_names import MAX_FILES, folded, is_file_name
from services.ingest.forms import Bad
from services.ingest.refusals import Refusal, file_refused, invalid

MIB = 1024 * 1024
MAX_FILE_BYTES = 64 * MIB
MAX_TOGETHER_BYTES = 256 * MIB
MEDIA_TYPES = {"csv": "text/csv", "py": "text/x-python"}

_CHUNK_BYTES = MIB
NOT_BASE64 = "Not valid base64."
NOT_ZLIB = "Not valid zlib data."


class TooLarge(Bad):
    """The data inflates to more than is allowed."""


def check_names(names: Iterable[str]) -> None:
    """Raise Refusal for a name that is not a plain file name, for two that some file system would take for one."""
    seen: dict[str, str] = {}
    for count, name in enumerate(names):
        if count >= MAX_FILES:
            raise invalid(files=f"At most {MAX_FILES} files.")
        if not is_file_name(name):
            raise file_refused(name, "Not a valid file name.")
        other = seen.setdefault(folded(name), name)
        if other is not name:
            raise invalid(files=f"Names differ only by case or accents: {other}, {name}.")


def decode_files(encoded: Iterable[tuple[str, Any]]) -> dict[str, bytearray]:
    """Return the contents of files by their names; raises Refusal."""
    contents: dict[str, bytearray] = {}
    left = MAX_TOGETHER_BYTES
    for name, value in encoded:
        contents[name] = _decode_file(name, value)
        left -= len(contents[name])
        if left < 0:
            raise Refusal(413, {"files": [f"Together more than {MAX_TOGETHER_BYTES // MIB} MiB."]})
    return contents


def _decode_file(name: str, value: Any) -> bytearray:
    if not isinstance(value, str):
        raise file_refused(name, "Not a valid string.")
    try:
        return decode(value, at_most=MAX_FILE_BYTES)
    except TooLarge as error:
        message = f"Inflates to more than {MAX_FILE_BYTES // MIB} MiB."
        raise file_refused(name, message, status=413) from error
    except Bad as bad:
        raise file_refused(name, bad.body[0]) from bad


def decode(encoded: str, *, at_most: int) -> bytearray:
    """Return the bytes of base64(zlib(bytes)); raises Bad, or TooLarge as soon as there are more bytes than allowed."""
    if not encoded.isascii():
        raise Bad(NOT_BASE64)
    content = bytearray()
    unpacker = Unpacker(at_most=at_most)
    for chunk in unpacker.feed(encoded.encode()):
        content += chunk
    for chunk in unpacker.end():
        content += chunk
    return content


class Unpacker:
    """Makes bytes of base64(zlib(bytes)) that comes in pieces, and holds no more than a piece of either."""

    def __init__(self, *, at_most: int) -> None:
        self.size = 0
        self._at_most = at_most
        self._inflater = zlib.decompressobj()
        self._packed = 0
        self._held = b""

    def feed(self, text: bytes) -> Iterator[bytes]:
        """Yield what comes out of some more text; raises Bad, or TooLarge."""
        text = self._held + text
        # The last group may be the end, where padding is allowed.
        whole = max(0, (len(text) - 1) // 4 * 4)
        self._held = text[whole:]
        if b"=" in text[:whole]:
            raise Bad(NOT_BASE64)
        return self._inflate(_unbase64(text[:whole]))

    def end(self) -> Iterator[bytes]:
        """Yield the rest; raises Bad unless it is complete."""
        yield from self._inflate(_unbase64(self._held))
        if not self._inflater.eof:
            raise Bad("Truncated zlib data." if self.size or self._packed > 1 else NOT_ZLIB)

    def _inflate(self, rest: bytes) -> Iterator[bytes]:
        self._packed += len(rest)
        while rest:
            if self._inflater.eof:
                raise Bad("Data after the end of the zlib stream.")
            try:
                chunk = self._inflater.decompress(rest, _CHUNK_BYTES)
            except zlib.error as error:
                raise Bad(NOT_ZLIB) from error
            rest = self._inflater.unconsumed_tail or self._inflater.unused_data
            self.size += len(chunk)
            if self.size > self._at_most:
                raise TooLarge("Too large.")
            yield chunk


def _unbase64(text: bytes) -> bytes:
    try:
        return binascii.a2b_base64(text, strict_mode=True)
    except binascii.Error as error:
        raise Bad(NOT_BASE64) from error


def name_blobs(contents: Mapping[str, bytearray]) -> tuple[NamedBlob, ...]:
    """Return what events say of files, in the order of their names, so that equal files make equal events."""
    return tuple(
        NamedBlob(
            name=name,
            blob=Blob(
                sha256=hashlib.sha256(contents[name]).hexdigest(),
                size=len(contents[name]),
                media_type=media_type(name),
            ),
        )
        for name in sorted(contents)
    )


def media_type(name: str) -> str:
    """Return what a file's name says of its contents."""
    return MEDIA_TYPES.get(name.rpartition(".")[2].lower(), OCTETS)
