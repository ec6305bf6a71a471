"""The runner's own packages: what every environment adds to and may not change."""

from __future__ import annotations

import platform
import re
import sysconfig
from functools import cache
from importlib.metadata import Distribution, distributions
from pathlib import Path

from packaging.utils import canonicalize_name

_NO_PRODUCT = {"tests", "test", "testing", "docs", "doc", "examples", "benchmarks", "scripts", "bin"}
_MODULE = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)(/|\.py\Z|\.[^/]*\.so\Z|\.so\Z)")


@cache
def base_pins() -> str:
    """Return the runner's own distributions as lines of name==version."""
    paths = sysconfig.get_paths()
    own = distributions(path=[paths["purelib"], paths["platlib"]])
    return "".join(sorted({f"{canonicalize_name(one.name)}=={one.version}\n" for one in own if one.name}))


def platform_line() -> str:
    """Return which wheels fit: the Python and the machine."""
    return f"{platform.python_implementation()} {platform.python_version()} {sysconfig.get_platform()}\n"


def modules_of(name: str, folder: Path) -> list[str]:
    """Return what to import to see that a distribution works, looked for in a folder, else among the runner's own."""
    paths = sysconfig.get_paths()
    places = [str(folder), paths["purelib"], paths["platlib"]]
    for found in distributions(path=places):
        if canonicalize_name(found.name) == name:
            return _modules(found, name)
    return []


def _modules(found: Distribution, name: str) -> list[str]:
    tops = {match[1] for file in found.files or () if (match := _MODULE.match(str(file)))}
    tops = {top for top in tops if top not in _NO_PRODUCT and not top.startswith("__")}
    same = {top for top in tops if canonicalize_name(top) == name}
    return sorted(same or {top for top in tops if not top.startswith("_")} or tops)
