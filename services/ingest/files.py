"""Files in a body: their names are labels and checked as such, their contents are base64(zlib(bytes))."""

from __future__ import annotations

import base64
import binascii
import zlib
from collections.abc import Iterable, Iterator
from typing import Any

from datarun.file_names import MAX_FILES, folded, is_file_name
from services.ingest.forms import Bad
from services.ingest.refusals import Refusal, file_refused, invalid

MIB = 1024 * 1024
MAX_FILE_BYTES = 64 * MIB
MAX_TOGETHER_BYTES = 256 * MIB

_CHUNK_BYTES = MIB


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


def taken(encoded: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield a dictionary's items and empty it, so that no text is kept beside its bytes."""
    while encoded:
        yield encoded.popitem()


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
    try:
        compressed = base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError) as error:
        raise Bad("Not valid base64.") from error
    return _inflate(compressed, at_most=at_most)


def _inflate(compressed: bytes, *, at_most: int) -> bytearray:
    inflater = zlib.decompressobj()
    content = bytearray()
    rest = compressed
    try:
        while not inflater.eof:
            chunk = inflater.decompress(rest, _CHUNK_BYTES)
            content += chunk
            rest = inflater.unconsumed_tail
            if len(content) > at_most:
                raise TooLarge("Too large.")
            if not chunk and not rest and not inflater.eof:
                raise Bad("Truncated zlib data." if content or len(compressed) > 1 else "Not valid zlib data.")
    except zlib.error as error:
        raise Bad("Not valid zlib data.") from error
    if inflater.unused_data:
        raise Bad("Data after the end of the zlib stream.")
    return content
