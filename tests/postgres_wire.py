"""A wire to Postgres that is cut exactly at the commit of a transaction, before it arrives or after it was done."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

SOCKET = ".s.PGSQL.5432"
COMMIT = b"COMMIT\0"
When = Literal["before", "after", "after and away"]


@dataclass
class PostgresWire:
    """Stands before a server's Unix socket; while `cut` says when, the first transaction with `marked` in it is cut."""

    server: Path
    folder: Path
    marked: bytes = b"insert into intake.outbox"
    cut: When | None = None
    cuts: int = 0
    _is_away: threading.Event = field(default_factory=threading.Event)
    _listening: socket.socket = field(default_factory=lambda: socket.socket(socket.AF_UNIX))

    def start(self) -> None:
        """Accept connections, in threads of its own."""
        self._listening.bind(str(self.folder / SOCKET))
        self._listening.listen(32)
        threading.Thread(target=self._accept, daemon=True).start()

    def come_back(self) -> None:
        """Let connections through again."""
        self._is_away.clear()

    def _accept(self) -> None:
        while True:
            client, _ = self._listening.accept()
            if self._is_away.is_set():
                client.close()
                continue
            server = socket.socket(socket.AF_UNIX)
            server.connect(str(self.server / SOCKET))
            for pump in (self._ask, self._answer):
                threading.Thread(target=pump, args=(client, server), daemon=True).start()

    def _ask(self, client: socket.socket, server: socket.socket) -> None:
        """Pass what the client sends, message by message; the first one has no type."""
        with suppress(OSError):
            server.sendall(_message(client, has_type=False))
            is_marked = False
            while message := _message(client):
                if message.endswith(COMMIT) and is_marked and self.cut is not None:
                    self._cut(client, server, message)
                    return
                is_marked = self.marked in message or (is_marked and not message.endswith(COMMIT))
                server.sendall(message)
        _close(server)

    def _cut(self, client: socket.socket, server: socket.socket, message: bytes) -> None:
        when, self.cut = self.cut, None
        self.cuts += 1
        if when == "after and away":
            self._is_away.set()
        # From here on the client hears nothing.
        client.shutdown(socket.SHUT_RDWR)
        if when != "before":
            server.sendall(message)
            # A server that finishes says so, and then notices that nobody is there.
            server.shutdown(socket.SHUT_WR)
        else:
            _close(server)

    @staticmethod
    def _answer(client: socket.socket, server: socket.socket) -> None:
        with suppress(OSError):
            while data := server.recv(65536):
                with suppress(OSError):
                    client.sendall(data)
        _close(client)


def _message(client: socket.socket, *, has_type: bool = True) -> bytes:
    head = _exactly(client, 5 if has_type else 4)
    return head + _exactly(client, int.from_bytes(head[-4:], "big") - 4) if head else b""


def _exactly(client: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        piece = client.recv(count - len(data))
        if not piece:
            return b""
        data += piece
    return data


def _close(end: socket.socket) -> None:
    with suppress(OSError):
        end.shutdown(socket.SHUT_RDWR)
