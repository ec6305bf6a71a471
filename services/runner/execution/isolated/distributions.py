"""What an interpreter can import, as one digest; the standard library alone, so that any interpreter can say it."""

from __future__ import annotations

import hashlib
import json
import platform
import re
import sys
from collections.abc import Sequence
from importlib import metadata

_SEPARATORS = re.compile(r"[-_.]+")


def environment_digest(search_path: Sequence[str] | None = None) -> str:
    """Return the sha256 of the Python version and the installed distributions, as canonical JSON, in hexadecimal."""
    python = f"{platform.python_implementation()} {platform.python_version()}"
    content = {"distributions": installed(search_path), "python": python}
    return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def installed(search_path: Sequence[str] | None = None) -> list[str]:
    """Return `name==version` of every distribution on the path (by default this interpreter's own), sorted."""
    found: dict[str, str] = {}
    for distribution in metadata.distributions(path=list(sys.path if search_path is None else search_path)):
        said = distribution.metadata
        # A folder of an interrupted installation names none; of two with one name the first on the path is imported.
        if said["Name"]:
            found.setdefault(_SEPARATORS.sub("-", said["Name"]).lower(), said["Version"] or "")
    return sorted(f"{name}=={version}" for name, version in found.items())
