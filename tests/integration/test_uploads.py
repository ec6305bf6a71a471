"""Large uploads at a real gateway: they take little memory, leave nothing when refused, and are whole when accepted."""

from __future__ import annotations

import base64
import hashlib
import json
import random
import socket
import zlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import requests

from datarun.log.admin import create_topics
from tests.gateways import USER, Gateway, fold_body, packed, pretend_projected, running_gateway, wait_until

MIB = 1 << 20
LARGEST = 16 * MIB
SPECIFIC = "".join(
    f"def {name}(*args): ...\n"
    for name in ("prepare_data", "get_train_data", "get_test_data", "train_submission", "test_submission")
)


@pytest.fixture(scope="module")
def blobs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the gateway's blob folder."""
    return tmp_path_factory.mktemp("blobs")


@pytest.fixture(scope="module")
def gateway(
    kafka: str,
    fresh_database: Callable[[], AbstractContextManager[str]],
    blobs: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Gateway]:
    """Run one gateway that has accepted something already."""
    prefix = f"t{random.getrandbits(32):08x}."
    create_topics(kafka, prefix=prefix)
    with fresh_database() as url:
        pretend_projected(url, prefix)
        servers = {"kafka": kafka, "postgres_url": url, "blobs_url": blobs.as_uri(), "prefix": prefix}
        with running_gateway(tmp_path_factory.mktemp("gateway"), **servers) as running:
            running.upload("small")
            yield running


def _memory(gateway: Gateway, name: str) -> int:
    """Return a line of the process's status in bytes."""
    status = Path(f"/proc/{gateway.process.pid}/status").read_text(encoding="utf-8")
    (line,) = (line for line in status.splitlines() if line.startswith(f"{name}:"))
    return int(line.split()[1]) * 1024


def _stored(blobs: Path) -> set[str]:
    return {path.name for path in blobs.rglob("*") if path.is_file()}


def test_a_large_upload_takes_little_memory_and_is_whole(gateway: Gateway, blobs: Path) -> None:
    """The process grows by less than twice the largest file, of which there are three, and every byte is stored."""
    chance = random.Random(1)
    files = {f"part{number}.bin": chance.randbytes(LARGEST) for number in range(3)}
    files |= {"specific.py": SPECIFIC.encode()}
    fields = {"name": "large", "target_column": "y", "workflow_elements": "classifier"}
    body = json.dumps(fields | {"files": {name: packed(content) for name, content in files.items()}})
    # From here on the peak is a new one.
    Path(f"/proc/{gateway.process.pid}/clear_refs").write_text("5", encoding="ascii")
    before = _memory(gateway, "VmRSS")
    answer = gateway.post("rawdata/", data=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == 201, answer.text
    assert _memory(gateway, "VmHWM") - before <= 2 * LARGEST
    assert {hashlib.sha256(content).hexdigest() for content in files.values()} <= _stored(blobs)
    [(stored,)] = gateway.query("select files from intake.dataset where name = 'large'")
    assert [(file["name"], file["blob"]["size"]) for file in stored] == [
        (name, len(files[name])) for name in sorted(files)
    ]


def test_a_large_submission_takes_little_memory_and_is_whole(gateway: Gateway, blobs: Path) -> None:
    """The same of a fold that brings large files, whichever of its fields come before them."""
    made = gateway.upload("submitted to")
    chance = random.Random(4)
    contents = {f"weights{number}.bin": chance.randbytes(LARGEST) for number in range(3)}
    body = fold_body(1, 1, made)
    body["files"] |= {name: packed(content) for name, content in contents.items()}
    body["train_is"] = body.pop("train_is")
    text = json.dumps(body)
    Path(f"/proc/{gateway.process.pid}/clear_refs").write_text("5", encoding="ascii")
    before = _memory(gateway, "VmRSS")
    answer = gateway.post("submissionfold/", data=text, headers={"Content-Type": "application/json"})
    assert answer.status_code == 201, answer.text
    assert _memory(gateway, "VmHWM") - before <= 2 * LARGEST
    assert answer.json()["train_is"] == body["train_is"]
    assert {hashlib.sha256(content).hexdigest() for content in contents.values()} <= _stored(blobs)
    [(stored,)] = gateway.query("select files from intake.submission where submission_id = 1")
    assert [(file["name"], file["blob"]["size"]) for file in stored] == [
        ("classifier.py", len("class Classifier: ...\n")),
        *((name, LARGEST) for name in sorted(contents)),
    ]


def test_a_submission_that_is_read_as_it_comes_is_answered_as_a_small_one(gateway: Gateway) -> None:
    """Whether the body's length is told beforehand makes no difference to what is wrong with it."""
    made = gateway.upload("answered alike")
    assert gateway.post("submissionfold/", fold_body(2, 2, made)).status_code == 201
    good = packed("class Classifier: ...\n")

    def files(**contents: Any) -> dict[str, Any]:
        return fold_body(3, 3, made, files={name.replace("_", "."): text for name, text in contents.items()})

    long = base64.b64encode(b"\0" * 600_000).decode()
    wrong: list[Any] = [
        {},
        [1],
        fold_body(2, 2, made),
        fold_body(2, 3, made),
        fold_body(3, 3, 2_000_000),
        fold_body(3, 3, made, train_is="!", force="what"),
        fold_body(3, 3, made, train_is=long, test_is=packed(b"\1" * 7)),
        fold_body(2, 2, files={"classifier.py": packed("class Another: ...\n")}),
        files(classifier_py=5),
        files(classifier_py=["eJ"]),
        files(classifier_py="!"),
        files(classifier_py=good[:-8]),
        files(classifier_py=good, more_bin=None),
        files(other_py=good),
        {**fold_body(3, 3, made), "files": {"../classifier.py": good}},
        {**fold_body(3, 3, made), "files": "classifier.py"},
    ]
    texts = [json.dumps(body).encode() for body in wrong]
    texts += [b"", b"{", b'{"files": {"a": "', b'{"a": 1, "a": 2}', b"\xff", b'{"files": {"a": "x"}, "a": 01}']
    for text in texts:
        small, streamed = (_post(gateway, data) for data in (text, iter([text[:100], text[100:]])))
        assert small.status_code in (400, 413), small.text
        assert (streamed.status_code, streamed.content) == (small.status_code, small.content), text[:200]


def _post(gateway: Gateway, data: bytes | Iterator[bytes]) -> requests.Response:
    return gateway.post("submissionfold/", data=data, headers={"Content-Type": "application/json"})


def test_a_large_table_is_checked_in_little_memory(gateway: Gateway) -> None:
    """Line by line: its rows are counted without its being read into memory."""
    row = b"1.5,2.5,setosa\n"
    rows = LARGEST // len(row)
    table = packed(b"a,b,species\n" + row * rows)
    Path(f"/proc/{gateway.process.pid}/clear_refs").write_text("5", encoding="ascii")
    before = _memory(gateway, "VmRSS")
    gateway.upload("table", files={"table.csv": table})
    assert _memory(gateway, "VmHWM") - before <= 2 * LARGEST
    assert gateway.query("select rows from intake.dataset where name = 'table'") == [(rows,)]


@pytest.mark.parametrize(
    ("spoil", "status"),
    [
        (lambda text: text[:-8], "Truncated zlib data."),
        (lambda text: text[:5_000_000] + "!" + text[5_000_001:], "Not valid base64."),
        (lambda text: text[:5_000_000] + "AAAAAAAA" + text[5_000_008:], "Not valid zlib data."),
    ],
)
def test_what_is_wrong_in_the_middle_is_said_and_leaves_nothing(
    gateway: Gateway, blobs: Path, spoil: Callable[[str], str], status: str
) -> None:
    """Of a file that went to the disk already no byte stays."""
    before = _stored(blobs)
    content = zlib.compress(random.Random(2).randbytes(5 * MIB), 0)
    text = spoil(base64.b64encode(content).decode())
    body = {"name": "spoilt", "target_column": "y", "workflow_elements": "classifier"}
    answer = gateway.post("rawdata/", body | {"files": {"d.bin": text, "specific.py": packed(SPECIFIC)}})
    assert (answer.status_code, answer.json()) == (400, {"files": {"d.bin": [status]}})
    assert _stored(blobs) == before


def test_a_known_name_is_refused_before_its_files_come(gateway: Gateway) -> None:
    """The answer does not wait for the files; a name that comes after them is refused all the same."""
    begun = b'{"name": "small", "target_column": "y", "workflow_elements": "classifier", "files": {"a.csv": "eJ'
    taken = b'{"name":["RawData with this name already exists."]}'
    parts = urlsplit(gateway.url)
    credentials = base64.b64encode(":".join(USER).encode())
    head = b"POST /runapp/rawdata/ HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n"
    with socket.create_connection((parts.hostname, parts.port), timeout=10) as connection:
        connection.sendall(head % (200 * MIB) + b"Authorization: Basic %s\r\n\r\n" % credentials + begun)
        answer = connection.recv(65536)
    assert answer.startswith(b"HTTP/1.1 400")
    assert answer.endswith(taken)
    late = {"files": {"a.csv": packed("a,b\n1,2\n")}, "name": "small", "target_column": "a"}
    answer = gateway.post("rawdata/", late | {"workflow_elements": "classifier"})
    assert (answer.status_code, answer.content) == (400, taken)


def test_a_client_that_goes_away_leaves_nothing(gateway: Gateway, blobs: Path) -> None:
    """What had come of its files is deleted."""
    before = _stored(blobs)
    parts = urlsplit(gateway.url)
    credentials = base64.b64encode(":".join(USER).encode())
    head = b"POST /runapp/rawdata/ HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n"
    text = packed(random.Random(3).randbytes(4 * MIB)).encode()
    with socket.create_connection((parts.hostname, parts.port), timeout=10) as connection:
        connection.sendall(head % (20 * MIB) + b"Authorization: Basic %s\r\n\r\n" % credentials)
        connection.sendall(b'{"name": "gone", "files": {"a.bin": "' + text)
        wait_until(lambda: _stored(blobs) != before)
    wait_until(lambda: _stored(blobs) == before)
