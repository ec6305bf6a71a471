"""A broker that is away at first."""

from __future__ import annotations

import contextlib
import socket
import threading


class LateBroker:
    """An address at which nobody answers until `arrive`; from then on it leads to the real broker."""

    def __init__(self, bootstrap: str) -> None:
        host, _, port = bootstrap.rpartition(":")
        self._target = (host, int(port))
        self._socket = socket.socket()
        self._socket.bind(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._socket.getsockname()[1]}"

    def arrive(self) -> None:
        """Start to answer."""
        self._socket.listen()
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            client, _ = self._socket.accept()
            broker = socket.create_connection(self._target)
            for source, sink in ((client, broker), (broker, client)):
                threading.Thread(target=_pump, args=(source, sink), daemon=True).start()


def _pump(source: socket.socket, sink: socket.socket) -> None:
    with contextlib.suppress(OSError):  # the other direction has closed it
        while chunk := source.recv(65536):
            sink.sendall(chunk)
    sink.close()
