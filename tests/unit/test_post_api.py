"""The client of 2016 against a server that remembers what it was sent."""

from __future__ import annotations

import base64
import inspect
import json
import subprocess
import sys
import threading
import zlib
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests

from datarun import post_api

USER = ("user", "pässwörd")


class Memory:
    """What a server was asked, and what it answers."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, str, Any, str]] = []
        self.statuses: list[int] = []
        self.url = ""

    @property
    def last(self) -> tuple[str, str, Any, str]:
        """(method, path, body, authorization) of the newest request."""
        return self.requests[-1]


@pytest.fixture
def server() -> Iterator[Memory]:
    """Run a server that answers 200 unless it is told otherwise."""
    memory = Memory()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _answer(self) -> None:
            length = int(self.headers.get("Content-Length", 0))
            body = json.loads(self.rfile.read(length)) if length else None
            memory.requests.append((self.command, self.path, body, self.headers["Authorization"]))
            content = b'{"ok":true}'
            self.send_response(memory.statuses.pop(0) if memory.statuses else 200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = _answer  # noqa: N815 - the base class's names

        def log_message(self, *_: object) -> None:
            """Stay silent."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        running.daemon_threads = True
        threading.Thread(target=running.serve_forever, daemon=True).start()
        memory.url = f"http://127.0.0.1:{running.server_port}"
        yield memory
        running.shutdown()


def unpacked(text: str) -> bytes:
    """Undo base64(zlib())."""
    return zlib.decompress(base64.b64decode(text))


SIGNATURES = {
    "post_data": "host_url username password data_name target_column workflow_elements data_file extra_files=None",
    "post_split": "host_url username password held_out_test raw_data_id random_state=42",
    "custom_post_split": "host_url username password raw_data_id",
    "post_submission_fold": "host_url username password sub_id sub_fold_id train_is test_is priority='L' "
    "raw_data_id=None list_submission_files=None force=None",
    "get_prediction_list": "host_url username password list_submission_fold_id",
    "get_prediction_new": "host_url username password raw_data_id",
    "get_raw_data": "host_url username password",
    "get_submission_fold": "host_url username password",
    "get_submission_fold_light": "host_url username password",
    "get_submission_fold_detail": "host_url username password submission_fold_id",
    "read_compress": "file_name",
    "url_post": "url1 url2 username password data",
    "url_get": "url1 url2 username password r_id=None",
}


@pytest.mark.parametrize(("name", "expected"), SIGNATURES.items())
def test_signatures_are_the_originals(name: str, expected: str) -> None:
    """Names, order and defaults of the arguments are as they were."""
    parameters = inspect.signature(getattr(post_api, name)).parameters.values()
    shown = [p.name if p.default is p.empty else f"{p.name}={p.default!r}" for p in parameters]
    assert " ".join(shown) == expected


def test_importing_it_loads_nothing_heavy() -> None:
    """A client that only sends needs neither numpy nor pandas nor pydantic."""
    heavy = "{'numpy', 'pandas', 'pydantic', 'confluent_kafka'}"
    code = f"import sys, datarun.post_api; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_dataset_is_sent_whole_and_in_binary(server: Memory, tmp_path: Path) -> None:
    """Files travel under their base names, byte for byte."""
    content = bytes(range(256)) * 5
    for name in ("iris.csv.gz", "specific.py"):
        (tmp_path / name).write_bytes(content)
    answer = post_api.post_data(
        server.url, *USER, "iris", "species", "classifier", tmp_path / "iris.csv.gz", [str(tmp_path / "specific.py")]
    )
    assert isinstance(answer, requests.Response)
    assert answer.ok
    method, path, body, authorization = server.last
    assert (method, path) == ("POST", "/runapp/rawdata/")
    assert base64.b64decode(authorization.split()[1]) == "user:pässwörd".encode()
    assert {name: unpacked(text) for name, text in body.pop("files").items()} == {
        "iris.csv.gz": content,
        "specific.py": content,
    }
    assert body == {"name": "iris", "target_column": "species", "workflow_elements": "classifier"}


def test_splits_and_reads(server: Memory) -> None:
    """Every other call sends what the original sent, to the same path."""
    post_api.post_split(server.url, *USER, 0.7, 3)
    assert server.last[1:3] == ("/runapp/rawdata/split/", {"random_state": 42, "held_out_test": 0.7, "raw_data_id": 3})
    post_api.custom_post_split(server.url, *USER, 3)
    assert server.last[1:3] == ("/runapp/rawdata/customsplit/", {"raw_data_id": 3})
    post_api.get_prediction_list(server.url, *USER, range(2))
    assert server.last[1:3] == ("/runapp/testpredictions/list/", {"list_submission_fold": [0, 1]})
    post_api.get_prediction_new(server.url, *USER, 3)
    assert server.last[1:3] == ("/runapp/testpredictions/new/", {"raw_data_id": 3})
    for call, path in (
        (post_api.get_raw_data, "rawdata"),
        (post_api.get_submission_fold, "submissionfold"),
        (post_api.get_submission_fold_light, "submissionfold-light"),
    ):
        call(server.url, *USER)
        assert server.last[:3] == ("GET", f"/runapp/{path}/", None)
    post_api.get_submission_fold_detail(f"{server.url}/", *USER, 11)
    assert server.last[1] == "/runapp/submissionfold/11/"


INDICES = [[2, 0, 1], (2, 0, 1), np.array([2, 0, 1]), np.array([2, 0, 1], dtype="i4"), np.array([2, 0, 1], dtype=">i8")]


@pytest.mark.parametrize("train_is", INDICES, ids=lambda value: f"{type(value).__name__}")
def test_indices_are_little_endian_int64(server: Memory, train_is: Any) -> None:
    """Lists, tuples and arrays of any integer make the same bytes, and so do ranges."""
    post_api.post_submission_fold(
        server.url, *USER, 24, 11, train_is, range(3, 5), priority="H", force="submission_fold"
    )
    _, path, body, _ = server.last
    assert path == "/runapp/submissionfold/"
    assert unpacked(body.pop("train_is")) == np.array([2, 0, 1], dtype="<i8").tobytes()
    assert unpacked(body.pop("test_is")) == np.array([3, 4], dtype="<i8").tobytes()
    assert body == {"databoard_sf_id": 11, "databoard_s_id": 24, "priority": "H", "force": "submission_fold"}


def test_a_first_fold_brings_dataset_and_files(server: Memory, tmp_path: Path) -> None:
    """Both are sent, or neither: one without the other means nothing."""
    file = tmp_path / "classifier.py"
    file.write_text("class Classifier: ...")
    post_api.post_submission_fold(server.url, *USER, 24, 11, [0], [1], raw_data_id=3, list_submission_files=[file])
    assert server.last[2]["raw_data"] == 3
    assert unpacked(server.last[2]["files"]["classifier.py"]) == b"class Classifier: ..."
    post_api.post_submission_fold(server.url, *USER, 24, 12, [0], [1], raw_data_id=3)
    assert not {"raw_data", "files", "force"} & server.last[2].keys()


def test_a_float_is_no_index(server: Memory) -> None:
    """What is not an integer is refused before anything is sent."""
    with pytest.raises(AttributeError, match="__index__"):
        post_api.post_submission_fold(server.url, *USER, 24, 11, [0.5], [1])
    assert server.requests == []


def test_reads_are_tried_again_and_writes_are_not(server: Memory) -> None:
    """A 503 is no answer to a GET; a POST is told of it."""
    server.statuses = [503, 503]
    assert post_api.get_raw_data(server.url, *USER).status_code == 200
    assert len(server.requests) == 3
    server.statuses = [503]
    assert post_api.get_prediction_new(server.url, *USER, 1).status_code == 503
    assert len(server.requests) == 4


def test_predictions_are_decoded_to_a_writable_array() -> None:
    """The bytes come back as float64 in the shape the caller knows."""
    values = np.random.default_rng(0).random((4, 3))
    text = base64.b64encode(zlib.compress(values.tobytes())).decode()
    decoded = post_api.decode_predictions(text, (4, 3))
    assert decoded.tobytes() == values.tobytes()
    decoded[0, 0] = 1
    assert post_api.decode_predictions(text).shape == (12,)
