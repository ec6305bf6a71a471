"""The catalogue of bad input against a real gateway: each request gets its answer, and nothing is recorded."""

from __future__ import annotations

import base64
import gzip
import os
import random
import socket
import time
import uuid
import zlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil
import pytest
import requests

from datarun.log.admin import create_topics
from datarun.stack.postgres import Postgres
from tests.contract.catalogue import (
    CASES,
    CUSTOM,
    FOLD,
    HELD_BY,
    RAW,
    REQUIRED,
    SPECIFIC,
    SPLIT,
    Case,
    basic,
    data_body,
    file_error,
    new_fold,
    next_fold,
    one_file,
)
from tests.gateways import (
    CSV,
    USER,
    Gateway,
    fold_body,
    indices,
    packed,
    pretend_projected,
    query,
    running_gateway,
)

MIB = 1024 * 1024
NO_SPACE = {"detail": "Not enough storage; nothing was recorded."}
BAD_REQUEST = (b"HTTP/1.0 400", b"HTTP/1.1 400")
ROOT = Path(__file__).parent.parent.parent


@pytest.fixture(scope="module")
def blobs_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the blob folder of the module's gateway."""
    return tmp_path_factory.mktemp("blobs")


@pytest.fixture(scope="module")
def gateway(
    kafka: str, postgres: Postgres, migrated: str, blobs_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Gateway]:
    """Run one gateway with datasets 1 (split, 75 train rows), 2 (not split) and 3 (custom), and submission 24."""
    name, prefix = f"bad_{uuid.uuid4().hex[:8]}", f"t{uuid.uuid4().hex[:8]}."
    admin = postgres.url_of("postgres")
    _autocommit(admin, f"create database {name} template {migrated} strategy file_copy")
    url = postgres.url_of(name)
    create_topics(kafka, prefix=prefix)
    pretend_projected(url, prefix)
    folder = tmp_path_factory.mktemp("gateway")
    with running_gateway(folder, kafka=kafka, postgres_url=url, blobs_url=blobs_folder.as_uri(), prefix=prefix) as made:
        _fill(made)
        yield made
    _autocommit(admin, f"drop database {name} with (force)")


def _autocommit(url: str, statement: str) -> None:
    from datarun.db import connect

    connection = connect(url)
    connection.autocommit = True
    connection.cursor().execute(statement)
    connection.close()


def _fill(gateway: Gateway) -> None:
    gateway.upload("iris")
    gateway.upload("other")
    gateway.upload("custom", files={"x_datarun.py": packed(SPECIFIC), "data.bin": packed(b"\0")})
    answer = gateway.post("rawdata/split/", {"raw_data_id": 1, "held_out_test": 0.5})
    split = f'{{"kind": "standard", "task_id": "{answer.json()["task_id"]}", "train_rows": 75}}'
    query(
        gateway.postgres_url,
        "insert into rm.dataset (raw_data_id, name, split_attempt, result_attempt, split) values (1, 'iris', 1, 1, %s)",
        split,
    )
    assert gateway.post("submissionfold/", fold_body(11, 24, 1)).status_code == 201


@pytest.fixture
def unchanged(gateway: Gateway, blobs_folder: Path) -> Iterator[None]:
    """Fail if the test left a claim, an owed event or a blob behind."""
    before = _recorded(gateway, blobs_folder)
    yield
    assert _recorded(gateway, blobs_folder) == before


def _recorded(gateway: Gateway, blobs_folder: Path) -> list[Any]:
    tables = ("dataset", "submission", "fold", "outbox", "fetch_claim")
    counts = ", ".join(f"(select count(*) from intake.{table})" for table in tables)  # noqa: S608 - names above
    recorded = gateway.query(f"select {counts}, (select sum(attempt) from intake.fold)")  # noqa: S608 - names above
    return [*recorded, sum(path.is_file() for path in blobs_folder.rglob("*"))]


def test_the_table_has_every_row() -> None:
    """Each of the 105 rows has its requests here or names tests that are there."""
    rows = {case.row for case in CASES} | HELD_BY.keys()
    assert rows == set(range(1, 106))
    for pointer in {pointer for pointers in HELD_BY.values() for pointer in pointers}:
        path, _, name = pointer.partition("::")
        assert f"\ndef {name}(" in (ROOT / path).read_text(encoding="utf-8"), pointer


@pytest.mark.usefixtures("unchanged")
@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_request_gets_its_answer(gateway: Gateway, case: Case) -> None:
    """Status and body are those of the catalogue, in its words; nothing is recorded."""
    content = {"data": case.content} if isinstance(case.content, bytes) else {"json": case.content}
    # Without an account: what the session would add by itself is part of the case.
    auth = None if case.status == 401 else USER
    got = requests.request(
        case.method, f"{gateway.url}/runapp/{case.path}", headers=case.headers, auth=auth, timeout=30, **content
    )
    assert (got.status_code, got.json() if got.content else None) == (case.status, case.answer), case.row
    match case.status:
        case 401:
            assert got.headers["WWW-Authenticate"] == 'Basic realm="api"'
        case 405:
            assert {"GET", "POST"} <= set(got.headers["Allow"].split(","))
        case 200 | 400 | 404 | 406 | 409 | 413 | 415:
            assert got.headers["Content-Type"] == "application/json"


@pytest.mark.usefixtures("unchanged")
def test_a_body_may_be_packed(gateway: Gateway) -> None:
    """Gzip is undone; what only says that it is gzip is refused."""
    packed_type = {"Content-Type": "application/json", "Content-Encoding": "gzip"}
    assert gateway.post(RAW, data=gzip.compress(b"{}"), headers=packed_type).json()["name"] == REQUIRED
    assert gateway.post(RAW, data=b"nonsense", headers=packed_type).status_code == 400


def test_paths_without_their_slash_are_served(gateway: Gateway) -> None:
    """A POST without the slash is not lost (row 28)."""
    assert gateway.get("rawdata").json() == gateway.get("rawdata/").json() != []
    assert gateway.get("submissionfold/11").json()["databoard_sf_id"] == 11
    assert gateway.post("testpredictions/new", {}).json() == []


def raw_exchange(gateway: Gateway, request: bytes, *, seconds: float = 10.0) -> bytes:
    """Send bytes and return the answer, up to its last byte or the end of the connection."""
    parts = urlsplit(gateway.url)
    with socket.create_connection((parts.hostname, parts.port), timeout=seconds) as connection:
        connection.sendall(request)
        answer = b""
        while not answer.endswith(b"}") and (chunk := connection.recv(65536)):
            answer += chunk
    return answer


def head(*lines: str) -> bytes:
    """Return a request's head with good credentials."""
    fixed = [
        "POST /runapp/rawdata/ HTTP/1.1",
        "Host: x",
        f"Authorization: {basic(':'.join(USER).encode())['Authorization']}",
    ]
    return ("\r\n".join([*fixed, "Content-Type: application/json", *lines]) + "\r\n\r\n").encode()


@pytest.mark.usefixtures("unchanged")
@pytest.mark.parametrize("length", [256 * MIB + 1, 99999999999999])
def test_a_body_announced_too_large_is_refused_at_once(gateway: Gateway, length: int) -> None:
    """The answer comes before the body does, and the connection is closed (row 21)."""
    started = time.monotonic()
    answer = raw_exchange(gateway, head(f"Content-Length: {length}"))
    assert answer.startswith(b"HTTP/1.1 413")
    assert b'{"detail":"Request body exceeds 256 MiB."}' in answer
    assert b"Connection: close" in answer
    assert time.monotonic() - started < 2


@pytest.mark.usefixtures("unchanged")
def test_bombs_are_refused_in_little_memory(gateway: Gateway) -> None:
    """What inflates to hundreds of megabytes is refused early, packed once or twice (rows 23, 42 and 70)."""
    process = psutil.Process(gateway.process.pid)
    before = process.memory_info().rss
    bomb = base64.b64encode(zlib.compress(bytes(200 * MIB), 9)).decode()
    got = gateway.post(RAW, one_file(bomb))
    assert (got.status_code, got.json()) == (413, file_error("Inflates to more than 64 MiB."))
    assert got.elapsed.total_seconds() < 2
    got = gateway.post(FOLD, next_fold(train_is=bomb))
    assert (got.status_code, got.json()) == (400, {"train_is": ["More than 10000000 indices."]})
    twice = gzip.compress(b" " * (257 * MIB), 1)
    got = gateway.post(RAW, data=twice, headers={"Content-Type": "application/json", "Content-Encoding": "gzip"})
    assert (got.status_code, got.json()) == (413, {"detail": "Request body exceeds 256 MiB."})
    assert process.memory_info().rss - before < 600 * MIB


@pytest.mark.usefixtures("unchanged")
def test_a_chunked_body_that_grows_too_large_is_refused(gateway: Gateway) -> None:
    """Without an announced length the answer comes as soon as there is too much, and the connection is closed (22)."""
    parts = urlsplit(gateway.url)
    chunk = b"%x\r\n" % MIB + b" " * MIB + b"\r\n"
    with socket.create_connection((parts.hostname, parts.port), timeout=30) as connection:
        connection.sendall(head("Transfer-Encoding: chunked"))
        with suppress(ConnectionError):
            for _ in range(300):
                connection.sendall(chunk)
        answer = connection.recv(65536)
    assert answer.startswith(b"HTTP/1.1 413")
    assert b'{"detail":"Request body exceeds 256 MiB."}' in answer
    assert b"Connection: close" in answer


@pytest.mark.usefixtures("unchanged")
def test_files_that_are_too_large_together_are_refused(gateway: Gateway) -> None:
    """Five files that each are allowed are more than 256 MiB in all (row 43)."""
    full = packed(bytes(60 * MIB))
    got = gateway.post(RAW, data_body(files={f"f{n}.py": full for n in range(4)} | {"specific.py": full}))
    assert (got.status_code, got.json()) == (413, {"files": ["Together more than 256 MiB."]})


@pytest.mark.usefixtures("unchanged")
def test_names_that_are_commands_start_nothing(gateway: Gateway, tmp_path: Path) -> None:
    """Names of datasets, files and elements never reach a shell (row 33)."""
    for n, shape in enumerate(("x; touch {}", "$(touch {})", "`touch {}`", "| touch {}", "x\ntouch {}\n")):
        command = shape.format(tmp_path / str(n))
        for body in (
            data_body(name=command[:40]),
            one_file(packed(CSV), command),
            data_body(workflow_elements=command),
        ):
            assert gateway.post(RAW, body).status_code == 400
        assert gateway.post(FOLD, new_fold(databoard_s_id=command)).status_code == 400
        assert gateway.post(FOLD, new_fold(files={command: packed("")})).status_code == 400
    assert list(tmp_path.iterdir()) == []
    assert psutil.Process(gateway.process.pid).children() == []


def test_an_index_beyond_a_split_that_is_not_done_is_accepted(gateway: Gateway) -> None:
    """How many rows there are is not known yet; the runner says it (row 71)."""
    raw_data_id = gateway.upload("early")
    assert gateway.post(SPLIT, {"raw_data_id": raw_data_id, "held_out_test": 0.5}).status_code == 200
    got = gateway.post(FOLD, fold_body(71, 71, raw_data_id, train_is=indices(0, 99)))
    assert (got.status_code, got.json()["state"], got.headers["Datarun-Position"]) == (201, "TODO", "pending")


def test_a_full_disk_is_said_and_nothing_is_recorded(
    kafka: str, fresh_database: Callable[[], AbstractContextManager[str]], tmp_path: Path
) -> None:
    """507 while the store is full; the same upload is accepted once there is room (row 53)."""
    if os.geteuid() != 0:
        pytest.skip("a small disk can only be mounted as root")
    from services.runner.execution.isolated import kernel

    blobs, prefix = tmp_path / "blobs", f"t{uuid.uuid4().hex[:8]}."
    blobs.mkdir()
    try:
        kernel.mount("none", str(blobs), "tmpfs", 0, "size=1m")
    except PermissionError as error:
        pytest.skip(f"no disk can be mounted here: {error}")
    create_topics(kafka, prefix=prefix)
    body = data_body(files={"fresh.csv": packed(CSV + "1,2,3\n" * 20_000)})
    try:
        with fresh_database() as url:
            pretend_projected(url, prefix)
            servers = {"kafka": kafka, "postgres_url": url, "blobs_url": blobs.as_uri(), "prefix": prefix}
            with running_gateway(tmp_path / "gateway", **servers) as gateway:
                (blobs / "ballast").write_bytes(bytes(MIB - 16384))
                for _ in range(2):
                    got = gateway.post(RAW, body)
                    assert (got.status_code, got.json()) == (507, NO_SPACE)
                assert gateway.query("select count(*) from intake.dataset") == [(0,)]
                assert [path.name for path in blobs.rglob("*") if path.is_file()] == ["ballast"]
                (blobs / "ballast").unlink()
                assert gateway.post(RAW, body).status_code == 201
    finally:
        kernel.unmount(str(blobs))


@pytest.mark.usefixtures("unchanged")
def test_malformed_http_gets_400_and_is_closed(gateway: Gateway) -> None:
    """Requests that a proxy could read otherwise are not guessed at (rows 24 and 25)."""
    for request in (
        head("Content-Length: 2", "Content-Length: 3") + b"{}",
        head("Content-Length: -1"),
        head("Content-Length: 2", "Transfer-Encoding: chunked") + b"0\r\n\r\n",
        head("X: " + "x" * 9000),
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
    ):
        assert raw_exchange(gateway, request)[:12] in BAD_REQUEST, request[-60:]
    chunked = head("Transfer-Encoding: chunked", "Connection: close")
    assert raw_exchange(gateway, chunked + b"zz\r\nnonsense")[:12] in BAD_REQUEST


@pytest.mark.usefixtures("unchanged")
def test_random_bytes_never_make_a_server_error(gateway: Gateway) -> None:
    """Damaged good requests get an answer below 500, and the gateway lives."""
    chance = random.Random(7)
    good = b'{"databoard_sf_id": 12, "databoard_s_id": "x", "train_is": "eJw=", "force": "all", "files": {"a": "b"}}'
    for _ in range(300):
        body = bytearray(good)
        for _ in range(chance.randint(1, 6)):
            body[chance.randrange(len(body))] = chance.choice(b'{}[]",:\\0a\x00\xff\xed')
        got = gateway.post(
            chance.choice([RAW, SPLIT, CUSTOM, FOLD]), data=bytes(body), headers={"Content-Type": "application/json"}
        )
        assert 400 <= got.status_code < 500, (bytes(body), got.text)
    assert gateway.process.poll() is None


def test_good_neighbours_of_bad_input_are_accepted(gateway: Gateway) -> None:
    """What only looks odd is accepted: the documented priorities, digits as text, quoted commas, a byte order mark."""
    quoted = '\ufeffa,species\r\n"1,5",x\r\n\r\n"line\nbreak",y\r\n'
    assert gateway.post(RAW, data_body(name="a-b_c. d", files={"é x.csv": packed(quoted)})).status_code == 201
    assert gateway.post(FOLD, fold_body(99, 30, 2)).status_code == 201
    for number, priority in enumerate(("L", "H", "low", "high"), 100):
        got = gateway.post(FOLD, fold_body(str(number), 30, priority=priority))
        assert got.status_code == 201, got.text
        assert got.json()["priority"] == ("low" if priority in ("L", "low") else "high")
    assert gateway.post(FOLD, fold_body(110, 30, 2)).status_code == 201


def test_the_same_split_twice_is_one(gateway: Gateway) -> None:
    """A repeated split answers the same task and emits nothing (row 58)."""
    count = "select count(*) from intake.outbox where topic ~ 'data-requests$'"
    raw_data_id = gateway.upload("again")
    first = gateway.post(SPLIT, {"raw_data_id": raw_data_id, "held_out_test": 0.3, "random_state": 7})
    before = gateway.query(count)
    second = gateway.post(SPLIT, {"raw_data_id": raw_data_id, "random_state": 7, "held_out_test": 0.3})
    assert first.json() == second.json()
    assert gateway.query(count) == before
    other = gateway.post(SPLIT, {"raw_data_id": raw_data_id, "held_out_test": 0.4})
    assert other.status_code == 200
    assert other.json() != first.json()
