"""Blobs over HTTP: a real gateway, whole and by range, in and out, with clients that are wrong, slow, cut or killed."""

from __future__ import annotations

import hashlib
import os
import socket
import struct
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import requests

from datarun import tokens
from tests.blob_gateways import BlobGateway, blob_gateway
from tests.gateways import USER, wait_until

CONTENT = bytes(range(256)) * 5000


@pytest.fixture
def gateway(kafka: str, postgres_url: str, tmp_path: Path) -> Iterator[BlobGateway]:
    """Run a gateway that takes blobs of 2 MiB at most."""
    with blob_gateway(tmp_path, kafka, postgres_url, DATARUN_MAX_BLOB_MIB="2") as running:
        yield running


def digest(content: bytes) -> str:
    """Return the name of a blob."""
    return hashlib.sha256(content).hexdigest()


def test_bytes_go_in_and_come_out_whole_and_by_range(gateway: BlobGateway) -> None:
    """New bytes are 201, known ones 200; an answer says its length, its range and its ETag."""
    sha256 = digest(CONTENT)
    assert gateway.request("HEAD", sha256).status_code == 404
    new = gateway.request("PUT", sha256, data=CONTENT)
    assert (new.status_code, new.json()) == (201, {"sha256": sha256, "size": len(CONTENT)})
    chunked = gateway.request("PUT", sha256, data=iter([CONTENT[:100], CONTENT[100:]]))
    assert chunked.status_code == 200
    whole = gateway.request("GET", sha256)
    assert (whole.status_code, whole.content) == (200, CONTENT)
    assert whole.headers["Content-Length"] == str(len(CONTENT))
    assert (whole.headers["ETag"], whole.headers["Accept-Ranges"]) == (f'"{sha256}"', "bytes")
    head = gateway.request("HEAD", sha256)
    assert (head.status_code, head.headers["Content-Length"], head.content) == (200, str(len(CONTENT)), b"")
    for asked, start, stop in (("0-", 0, len(CONTENT)), ("7-9", 7, 10), ("-3", len(CONTENT) - 3, len(CONTENT))):
        part = gateway.request("GET", sha256, headers={"Range": f"bytes={asked}"})
        assert (part.status_code, part.content) == (206, CONTENT[start:stop])
        assert part.headers["Content-Range"] == f"bytes {start}-{stop - 1}/{len(CONTENT)}"


def test_conditions_and_impossible_ranges_are_answered_as_http_says(gateway: BlobGateway) -> None:
    """304 for who has it, 416 with the size, the whole for a range of something else."""
    sha256, empty = gateway.put(CONTENT), gateway.put(b"")
    had = gateway.request("GET", sha256, headers={"If-None-Match": f'"x", W/"{sha256}"'})
    assert (had.status_code, had.content) == (304, b"")
    beyond = gateway.request("GET", sha256, headers={"Range": f"bytes={len(CONTENT)}-"})
    assert (beyond.status_code, beyond.headers["Content-Range"]) == (416, f"bytes */{len(CONTENT)}")
    other = gateway.request("GET", sha256, headers={"Range": "bytes=0-1", "If-Range": '"other"'})
    assert (other.status_code, other.content) == (200, CONTENT)
    assert gateway.request("GET", empty).content == b""
    assert gateway.request("GET", empty, headers={"Range": "bytes=0-"}).status_code == 416


def test_wrong_bytes_are_refused_and_leave_nothing(gateway: BlobGateway) -> None:
    """Another sha256, more than the limit announced or not, an encoding: nothing is kept."""
    large = b"x" * (2 << 20) + b"y"
    refused = {
        422: gateway.request("PUT", "ab" * 32, data=CONTENT),
        413: gateway.request("PUT", digest(large), data=iter([large])),
        415: gateway.request("PUT", digest(b"x"), data=b"x", headers={"Content-Encoding": "gzip"}),
    }
    assert {status: answer.status_code for status, answer in refused.items()} == {key: key for key in refused}
    assert exchange(gateway, put_head(digest(large), f"Content-Length: {len(large)}")).startswith(b"HTTP/1.1 413")
    assert gateway.files() == []
    assert gateway.request("GET", "ab" * 32).status_code == 404


@pytest.mark.parametrize(
    "path",
    ["", "x", "AB" * 32, "ab" * 33, "../etc/passwd", "%2e%2e%2fetc%2fpasswd", "ab" * 32 + "%00", "ab/cd/" + "ab" * 32],
)
def test_nothing_but_a_sha256_is_a_blob(gateway: BlobGateway, path: str) -> None:
    """Whatever else is asked for is not found."""
    for method in ("GET", "HEAD", "PUT"):
        line = f"{method} /blobs/{path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {gateway.token}\r\n"
        assert exchange(gateway, f"{line}Content-Length: 0\r\nConnection: close\r\n\r\n").split()[1] == b"404"


def test_only_runners_and_admins_may(gateway: BlobGateway) -> None:
    """A participant is refused, a stranger is not let in, and other methods are not known."""
    sha256 = gateway.put(CONTENT)
    participant = tokens.make()
    tokens.add(gateway.postgres_url, participant, "eve", role="participant")
    url = f"{gateway.url}/blobs/{sha256}"
    for method in ("GET", "HEAD", "PUT"):
        assert requests.request(method, url, data=CONTENT, timeout=30).status_code == 401
        headers = {"Authorization": f"Bearer {participant}"}
        assert requests.request(method, url, data=CONTENT, headers=headers, timeout=30).status_code == 403
        assert requests.request(method, url, data=CONTENT, auth=USER, timeout=30).status_code == 200
    refused = gateway.request("DELETE", sha256)
    assert (refused.status_code, set(refused.headers["Allow"].split(","))) == (405, {"GET", "HEAD", "PUT"})


def test_a_client_that_is_cut_leaves_nothing(gateway: BlobGateway) -> None:
    """Half a body, ended by a close or by a reset, is forgotten; so is a chunk that is none."""
    for half_closed in (True, False):
        opened = connect(gateway)
        opened.sendall(put_head(digest(CONTENT), f"Content-Length: {len(CONTENT)}").encode() + CONTENT[:500_000])
        wait_until(lambda: len(gateway.files()) == 1)
        if not half_closed:
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        opened.close()
        wait_until(lambda: not gateway.files())
    bad_chunk = put_head(digest(CONTENT), "Transfer-Encoding: chunked") + "nonsense\r\n"
    assert exchange(gateway, bad_chunk).split()[1] == b"400"
    assert gateway.files() == []
    assert gateway.request("PUT", digest(CONTENT), data=CONTENT).status_code == 201


def test_a_reader_that_goes_away_hurts_nobody(gateway: BlobGateway) -> None:
    """The gateway goes on serving others."""
    sha256 = gateway.put(CONTENT)
    for _ in range(5):
        opened = connect(gateway)
        opened.sendall(
            f"GET /blobs/{sha256} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {gateway.token}\r\n\r\n".encode()
        )
        assert opened.recv(100).startswith(b"HTTP/1.1 200")
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        opened.close()
    assert gateway.request("GET", sha256).content == CONTENT


def test_a_full_disk_is_said(kafka: str, postgres_url: str, tmp_path: Path) -> None:
    """507, and what did not fit is gone; blobs are still served."""
    if os.geteuid() != 0:
        pytest.skip("a small disk can only be mounted as root")
    from services.runner.execution.isolated import kernel

    (tmp_path / "gateway-blobs").mkdir()
    try:
        kernel.mount("none", str(tmp_path / "gateway-blobs"), "tmpfs", 0, "size=1m")
    except PermissionError as error:
        pytest.skip(f"no disk can be mounted here: {error}")
    try:
        with blob_gateway(tmp_path, kafka, postgres_url) as gateway:
            small = gateway.put(b"small")
            answer = gateway.request("PUT", digest(CONTENT), data=CONTENT)
            assert answer.status_code == 507
            assert len(gateway.files()) == 1
            assert gateway.request("GET", small).content == b"small"
    finally:
        kernel.unmount(str(tmp_path / "gateway-blobs"))


def put_head(sha256: str, header: str) -> str:
    """Return the beginning of a PUT; the token is filled in when it is sent."""
    return f"PUT /blobs/{sha256} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer TOKEN\r\n{header}\r\n\r\n"


def connect(gateway: BlobGateway) -> socket.socket:
    """Return a connection that sends the token in the place of TOKEN."""
    parts = urlsplit(gateway.url)
    opened = socket.create_connection((parts.hostname, parts.port), timeout=30)
    return _Filling(opened, gateway.token)


class _Filling:
    def __init__(self, opened: socket.socket, token: str) -> None:
        self._opened, self._token = opened, token.encode()

    def sendall(self, data: bytes) -> None:
        self._opened.sendall(data.replace(b"TOKEN", self._token, 1))

    def __getattr__(self, name: str) -> object:
        return getattr(self._opened, name)


def exchange(gateway: BlobGateway, request: str) -> bytes:
    """Send a request as it is and return the beginning of the answer."""
    opened = connect(gateway)
    opened.sendall(request.encode())
    answer = opened.recv(4096)
    opened.close()
    return answer


def test_a_blob_that_shrinks_while_it_is_sent_cuts_the_answer(kafka: str, postgres_url: str, tmp_path: Path) -> None:
    """The client sees that bytes are missing, and does not wait for them."""
    with blob_gateway(tmp_path, kafka, postgres_url) as gateway:
        cut_while_it_is_sent(gateway)


def cut_while_it_is_sent(gateway: BlobGateway) -> None:
    """Take the end of a blob away while a slow client reads its beginning."""
    content = os.urandom(1 << 20) * 32  # far more than the sockets between them hold
    sha256 = gateway.put(content)
    (stored,) = gateway.files()
    opened = connect(gateway)
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    opened.sendall(b"GET /blobs/%s HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer TOKEN\r\n\r\n" % sha256.encode())
    assert b" 200 OK" in opened.recv(100)
    os.truncate(stored, 100)
    received = 100
    while received < len(content) and (data := receive(opened)):
        received += len(data)
    assert received < len(content)
    opened.close()


def receive(opened: socket.socket) -> bytes:
    """Return what comes next, nothing after a reset."""
    try:
        return opened.recv(1 << 16)
    except ConnectionResetError:
        return b""
