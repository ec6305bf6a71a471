"""Prints the OpenAPI document: `python -m services.ingest.v1 > schemas/openapi.json`."""

from __future__ import annotations

import json
import sys

from services.ingest.v1.openapi import build
from services.ingest.v1.routes import OPERATIONS


def text() -> str:
    """Return the document as it is committed."""
    return json.dumps(build(OPERATIONS), indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    sys.stdout.write(text())
