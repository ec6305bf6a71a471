"""Free TCP ports on the loopback interface that stay free while their server restarts."""

from __future__ import annotations

import random
import socket
from pathlib import Path

from datarun.errors import DatarunError

LOOPBACK = "127.0.0.1"
LOWEST = 20000
ATTEMPTS = 200
EPHEMERAL_RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")
DEFAULT_EPHEMERAL_LOWEST = 32768


class NoFreePort(DatarunError):
    """No free port was found on 127.0.0.1."""


def free_ports(count: int) -> list[int]:
    """Return distinct free ports.

    They lie below the range the kernel gives to outgoing connections: a client that keeps dialling a dead broker would
    otherwise be given the broker's own port sooner or later, and the broker could not come back.
    """
    highest = max(_ephemeral_lowest(), LOWEST + 2 * ATTEMPTS)
    candidates = random.sample(range(LOWEST, highest), ATTEMPTS)
    found: list[int] = []
    for port in candidates:
        if len(found) == count:
            return found
        if is_free(port):
            found.append(port)
    raise NoFreePort


def is_free(port: int) -> bool:
    """Tell whether a server could listen on the port now."""
    with socket.socket() as probe:
        # As servers do, so that connections in TIME_WAIT do not count.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
    return True


def _ephemeral_lowest() -> int:
    try:
        return int(EPHEMERAL_RANGE.read_text(encoding="ascii").split()[0])
    except OSError:
        return DEFAULT_EPHEMERAL_LOWEST
