"""The names of a workflow's elements; apart from the workflow, whose libraries take seconds to load."""

from __future__ import annotations


def elements_of(text: str) -> list[str]:
    """Return the names in a comma-separated list."""
    return [name.strip() for name in text.split(",") if name.strip()]
