"""A child that imports modules, to see that an environment works where folds will use it."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

from .wire import Message, send

_ALWAYS = ("numpy", "pandas", "sklearn")


def run(sock: socket.socket, _box: Path, job: Message, _descriptors: Sequence[int]) -> None:
    """Import the modules after the libraries that every fold has."""
    for module in (*_ALWAYS, *job["modules"]):
        import_module(module)
    send(sock, {"event": "imported"})
