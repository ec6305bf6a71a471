"""What may be asked of a package index: a name with extras and versions, and nothing that reaches past the index."""

from __future__ import annotations

from dataclasses import dataclass

from packaging.requirements import InvalidRequirement
from packaging.requirements import Requirement as Parsed
from packaging.utils import canonicalize_name

from datarun.errors import DatarunError

MAX_LENGTH = 200


class RequirementRefused(DatarunError):
    """A requirement is not a name with versions."""


@dataclass(frozen=True, slots=True)
class Requirement:
    """A distribution's canonical name, and the whole requirement written anew from its parts."""

    name: str
    text: str


def parse(text: str) -> Requirement:
    """Return a requirement such as `emoji[extra]>=2,<3`; raises RequirementRefused for options, URLs and paths."""
    if len(text) > MAX_LENGTH or not text.isprintable():
        raise RequirementRefused(f"a requirement is one line of at most {MAX_LENGTH} characters")
    try:
        parsed = Parsed(text)
    except InvalidRequirement as error:
        reason = str(error).splitlines()[0]
        raise RequirementRefused(f"{text!r} is not a name with versions, such as emoji>=2: {reason}") from error
    if parsed.url is not None:
        raise RequirementRefused(f"{text!r} names an address; packages come from the runners' index alone")
    if parsed.marker is not None:
        raise RequirementRefused(f"{text!r} has a condition; ask for what every runner is to have")
    if any(specifier.operator == "===" for specifier in parsed.specifier):
        raise RequirementRefused(f"{text!r} compares by ===, which knows no versions; == does")
    name = canonicalize_name(parsed.name)
    extras = f"[{','.join(sorted(parsed.extras))}]" if parsed.extras else ""
    return Requirement(name, f"{name}{extras}{parsed.specifier}")
