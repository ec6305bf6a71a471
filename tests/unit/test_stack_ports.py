"""Ports that stay free."""

import socket

from datarun.stack.ports import free_ports, is_free


def test_ports_are_distinct_free_and_out_of_the_kernels_range() -> None:
    """The kernel never gives such a port to a client that dials a dead server."""
    ports = free_ports(5)
    assert len(set(ports)) == 5
    assert all(is_free(port) for port in ports)
    with socket.socket() as client:
        client.bind(("127.0.0.1", 0))
        assert max(ports) < client.getsockname()[1] or client.getsockname()[1] < 20000


def test_a_port_in_use_is_not_free() -> None:
    """A listening server takes it."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", free_ports(1)[0]))
        server.listen()
        assert not is_free(server.getsockname()[1])
