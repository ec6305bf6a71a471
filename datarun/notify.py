"""Telling who started this process that it is ready: systemd's notify protocol, which `datarun up` speaks as well.

Without a NOTIFY_SOCKET nobody asked, and nothing happens.
"""

from __future__ import annotations

import os
import socket

DETAIL = "X_DATARUN_DETAIL"
"""A field of our own; systemd ignores those that begin with X_."""


def ready(text: str = "", *, detail: str = "") -> None:
    """Say that the service works now; `text` is what it is doing, for the gateway its URL, `detail` more about it."""
    _send(f"READY=1\n{DETAIL}={detail}\nSTATUS={text}")


def status(text: str) -> None:
    """Say what the service is doing."""
    _send(f"STATUS={text}")


def _send(message: str) -> None:
    # The protocol is this variable; it is no setting of ours.
    address = os.environ.get("NOTIFY_SOCKET", "")  # noqa: TID251
    if not address:
        return
    # A leading @ stands for the zero byte of an abstract socket.
    target = "\0" + address[1:] if address.startswith("@") else address
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
        try:
            sender.sendto(message.encode(), target)
        except OSError:
            # Who asked is gone; a service does not end for that.
            return
