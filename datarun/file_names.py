"""Names of files that people send: labels, never paths, and no two that some file system would take for one."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable

MAX_FILES = 100
MAX_NAME_LENGTH = 100

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.\- ]*")


def is_file_name(name: str) -> bool:
    """Tell whether a name is a plain file name."""
    # Letters outside ASCII only as composed, printable ones: no look-alike slash, no writing direction marks.
    plain = "".join("a" if character.isalpha() and _is_plain(character) else character for character in name)
    return len(name) <= MAX_NAME_LENGTH and _NAME.fullmatch(plain) is not None and name[-1] not in ". "


def folded(name: str) -> str:
    """Return what names have in common that differ only by case or accents."""
    return unicodedata.normalize("NFC", name).casefold()


def check_file_names(names: Iterable[str]) -> str | None:
    """Return what is wrong with the names of files that belong together, or None."""
    seen: dict[str, str] = {}
    for count, name in enumerate(names):
        if count >= MAX_FILES:
            return f"at most {MAX_FILES}"
        if not is_file_name(name):
            return f"{name!r} is not a valid file name"
        other = seen.setdefault(folded(name), name)
        if other is not name:
            return f"names differ only by case or accents: {other}, {name}"
    return None if seen else "none"


def _is_plain(character: str) -> bool:
    return unicodedata.normalize("NFKC", character) == unicodedata.normalize("NFC", character)
