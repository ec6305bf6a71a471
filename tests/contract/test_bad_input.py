"""The catalogue of bad input against a real gateway: each request gets its answer, and nothing is recorded."""

from __future__ import annotations

import base64
import gzip
import random
import socket
import time
import uuid
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil
import pytest
import requests

from datarun.log.admin import create_topics
from datarun.stack.postgres import Postgres
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
REQUIRED = ["This field is required."]
NOT_INTEGER = ["A valid integer is required."]
BAD_NAME = ["Only letters, digits, space, '_', '-' and '.'; must start with a letter or digit."]
OUT_OF_RANGE = ["Ensure this value is between 1 and 2147483647."]
SHARE = {"held_out_test": ["Must be greater than 0 and less than 1."]}
SEED = {"random_state": ["Must be an integer from 0 to 4294967295."]}
NO_AUTH = {"detail": "Authentication credentials were not provided."}
WRONG_AUTH = {"detail": "Invalid username/password."}
BAD_REQUEST = (b"HTTP/1.0 400", b"HTTP/1.1 400")
NOT_FOUND = {"detail": "Not found."}
SPECIFIC = "".join(
    f"def {name}(*args): ...\n"
    for name in ("prepare_data", "get_train_data", "get_test_data", "train_submission", "test_submission")
)


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


def data_body(**fields: Any) -> dict[str, Any]:
    """Return a good dataset's body with some fields changed; a field that is ... is left out."""
    body: dict[str, Any] = {
        "name": "fresh",
        "target_column": "species",
        "workflow_elements": "classifier",
        "files": {"fresh.csv": packed(CSV)},
    }
    return {name: value for name, value in (body | fields).items() if value is not ...}


def one_file(value: Any, name: str = "iris.csv") -> dict[str, Any]:
    """Return a dataset's body with one file."""
    return data_body(files={name: value})


def csv(text: str | bytes) -> dict[str, Any]:
    """Return a dataset's body with this CSV."""
    return one_file(packed(text))


def file_error(message: str, name: str = "iris.csv") -> dict[str, Any]:
    """Return the answer about one file."""
    return {"files": {name: [message]}}


def with_specific(source: str | bytes) -> dict[str, Any]:
    """Return a dataset's body with a specific.py."""
    return data_body(files={"specific.py": packed(source), "d.csv": packed(CSV)})


def next_fold(**fields: Any) -> dict[str, Any]:
    """Return a good next fold of submission 24 with some fields changed; a field that is ... is left out."""
    return {name: value for name, value in (fold_body(12, 24) | fields).items() if value is not ...}


def new_fold(**fields: Any) -> dict[str, Any]:
    """Return a good first fold of a new submission with some fields changed."""
    return {name: value for name, value in (fold_body(13, 25, 1) | fields).items() if value is not ...}


RAW, SPLIT, CUSTOM, FOLD = "rawdata/", "rawdata/split/", "rawdata/customsplit/", "submissionfold/"
LIST, NEW = "testpredictions/list/", "testpredictions/new/"

JSON_ROWS = [
    (30, RAW, {}, 400, dict.fromkeys(("name", "workflow_elements", "target_column", "files"), REQUIRED)),
    (31, RAW, data_body(name=""), 400, {"name": ["This field may not be blank."]}),
    (31, RAW, data_body(name="x" * 41), 400, {"name": ["Ensure this field has no more than 40 characters."]}),
    (31, RAW, data_body(name=3), 400, {"name": ["Not a valid string."]}),
    (31, RAW, data_body(name=[]), 400, {"name": ["Not a valid string."]}),
    *(
        (32, RAW, data_body(name=name), 400, {"name": BAD_NAME})
        for name in ("../../etc/x", "/etc/x", "a/b", "..", "x; touch pwned", "$(id)", "`id`", "-rf", "a\nb", "\u202ea")
    ),
    (34, RAW, data_body(name="'); drop table rawdata;--"), 400, {"name": BAD_NAME}),
    (35, RAW, data_body(name="iris"), 400, {"name": ["RawData with this name already exists."]}),
    (37, RAW, data_body(files=...), 400, {"files": REQUIRED}),
    (37, RAW, data_body(files={}), 400, {"files": ["This dictionary may not be empty."]}),
    (37, RAW, data_body(files=[]), 400, {"files": ['Expected a dictionary of items but got type "list".']}),
    (37, RAW, data_body(files="x"), 400, {"files": ['Expected a dictionary of items but got type "str".']}),
    *((38, RAW, one_file(value), 400, file_error("Not a valid string.")) for value in (3, None, {})),
    *(
        (39, RAW, one_file(value), 400, file_error("Not valid base64."))
        for value in ("!!!!", "eJwrSS0uAQ==x", "-_-_", "eJ wr", "eJwrS\n", "ü")
    ),
    (40, RAW, one_file(base64.b64encode(b"a,b,species\n1,2,3\n").decode()), 400, file_error("Not valid zlib data.")),
    (40, RAW, one_file(""), 400, file_error("Not valid zlib data.")),
    (
        41,
        RAW,
        one_file(base64.b64encode(zlib.compress(CSV.encode())[:-3]).decode()),
        400,
        file_error("Truncated zlib data."),
    ),
    (
        41,
        RAW,
        one_file(base64.b64encode(zlib.compress(CSV.encode()) + b"x").decode()),
        400,
        file_error("Data after the end of the zlib stream."),
    ),
    *(
        (44, RAW, one_file(packed(CSV), name), 400, file_error("Not a valid file name.", shown))
        for name, shown in (
            ("../../x.py", "../../x.py"),
            ("/etc/passwd", "/etc/passwd"),
            ("a/b.py", "a/b.py"),
            ("..", ".."),
            ("", ""),
            ("a\0b", "a\\x00b"),
            ("x" * 300, "x" * 300),
            ("-rf", "-rf"),
            (".hidden", ".hidden"),
            ("x\n.py", "x\\n.py"),
            ("C:\\x", "C:\\x"),
            ("%2e%2e%2f", "%2e%2e%2f"),
            ("\uff41.py", "\uff41.py"),
            ("\u202eyp.x", "\\u202eyp.x"),
        )
    ),
    (
        45,
        RAW,
        data_body(files={"A.csv": packed(CSV), "a.csv": packed(CSV)}),
        400,
        {"files": ["Names differ only by case or accents: A.csv, a.csv."]},
    ),
    (
        45,
        RAW,
        data_body(files={"é.csv": packed(CSV), "e\u0301.csv": packed(CSV)}),
        400,
        file_error("Not a valid file name.", "e\u0301.csv"),
    ),
    (46, RAW, data_body(files={f"f{n}": packed("") for n in range(101)}), 400, {"files": ["At most 100 files."]}),
    (
        47,
        RAW,
        data_body(files={"a.csv": packed(CSV), "b.csv": packed(CSV)}),
        406,
        {"error": "Submit a specific.py" + " " * 48 + "when submitting several files"},
    ),
    (
        48,
        RAW,
        data_body(files={"a.py": packed(""), "b.py": packed("")}),
        400,
        {"files": ["Which file is the specific.py? Found a.py, b.py."]},
    ),
    (
        49,
        RAW,
        with_specific(SPECIFIC.replace("get_test_data", "get_tset_data")),
        400,
        file_error("Missing function get_test_data.", "specific.py"),
    ),
    (49, RAW, with_specific("import os\n\ndef x(:\n"), 400, file_error("line 3: invalid syntax", "specific.py")),
    (
        49,
        RAW,
        with_specific(b"\0"),
        400,
        file_error("source code string cannot contain null bytes", "specific.py"),
    ),
    (50, RAW, csv(""), 400, file_error("No data rows.")),
    (50, RAW, csv("a,species\n"), 400, file_error("No data rows.")),
    (50, RAW, csv("a,species\n1,2\n1,2,3\n"), 400, file_error("Line 3 has 3 fields, header has 2.")),
    (50, RAW, csv("a,species\n1,2\n1\n"), 400, file_error("Line 3 has 1 fields, header has 2.")),
    (50, RAW, csv(b"a,species\n1,\xff\n"), 400, file_error("Line 2 is not UTF-8.")),
    (50, RAW, csv(b"a,species\n1,\0\n"), 400, file_error("Line 2 has a null byte.")),
    (50, RAW, csv("a,a,species\n1,2,3\n"), 400, file_error('Column "a" appears twice.')),
    (
        51,
        RAW,
        data_body(target_column="specie"),
        400,
        {"target_column": ['"specie" is not a column: a, b, species.']},
    ),
    (
        52,
        RAW,
        data_body(workflow_elements="clasifier"),
        400,
        {
            "workflow_elements": [
                '"clasifier" is not one of feature_extractor, classifier, calibrator, regressor.',
            ]
        },
    ),
    (52, RAW, data_body(workflow_elements=""), 400, {"workflow_elements": ["This field may not be blank."]}),
    (
        52,
        RAW,
        data_body(workflow_elements="classifier, classifier"),
        400,
        {"workflow_elements": ['"classifier" appears twice.']},
    ),
    (54, SPLIT, {"held_out_test": 0.5}, 400, {"raw_data_id": REQUIRED}),
    (54, SPLIT, {"raw_data_id": "abc", "held_out_test": 0.5}, 400, {"raw_data_id": NOT_INTEGER}),
    (54, SPLIT, {"raw_data_id": True, "held_out_test": 0.5}, 400, {"raw_data_id": NOT_INTEGER}),
    (54, SPLIT, {"raw_data_id": 99, "held_out_test": 0.5}, 404, NOT_FOUND),
    (54, SPLIT, {"raw_data_id": 2**63, "held_out_test": 0.5}, 404, NOT_FOUND),
    (54, SPLIT, {"raw_data_id": -1, "held_out_test": 0.5}, 404, NOT_FOUND),
    (54, CUSTOM, {}, 400, {"raw_data_id": REQUIRED}),
    (54, CUSTOM, {"raw_data_id": 99}, 404, NOT_FOUND),
    (55, SPLIT, {"raw_data_id": 2}, 400, SHARE),
    *((55, SPLIT, {"raw_data_id": 2, "held_out_test": v}, 400, SHARE) for v in (0, 1, 1.5, -0.1, True, "x", None)),
    *(
        (56, SPLIT, {"raw_data_id": 2, "held_out_test": 0.5, "random_state": v}, 400, SEED)
        for v in (-1, 2**32, 1.5, "x", None, True)
    ),
    (
        57,
        SPLIT,
        {"raw_data_id": 2, "held_out_test": 0.999},
        400,
        {"held_out_test": ["The train part would be empty (150 rows)."]},
    ),
    (
        58,
        SPLIT,
        {"raw_data_id": 1, "held_out_test": 0.4},
        409,
        {"detail": "Dataset 1 is already split and has 1 folds."},
    ),
    (59, CUSTOM, {"raw_data_id": 2}, 400, {"raw_data_id": ['Dataset "other" has no specific.py.']}),
    (
        59,
        SPLIT,
        {"raw_data_id": 3, "held_out_test": 0.5},
        400,
        {"raw_data_id": ['Dataset "custom" is split by its specific.py: use customsplit.']},
    ),
    (60, FOLD, {}, 400, dict.fromkeys(("databoard_sf_id", "databoard_s_id", "train_is", "test_is"), REQUIRED)),
    (60, FOLD, next_fold(train_is=..., test_is=...), 400, {"train_is": REQUIRED, "test_is": REQUIRED}),
    *((61, FOLD, next_fold(databoard_sf_id=v), 400, {"databoard_sf_id": NOT_INTEGER}) for v in ("x", 1.0, True, [])),
    *((61, FOLD, next_fold(databoard_sf_id=v), 400, {"databoard_sf_id": OUT_OF_RANGE}) for v in (-1, 0, 2147483648)),
    (62, FOLD, next_fold(databoard_s_id="1; rm -rf /srv"), 400, {"databoard_s_id": NOT_INTEGER}),
    (
        63,
        FOLD,
        next_fold(databoard_sf_id=11),
        400,
        {"databoard_sf_id": ["SubmissionFold with this databoard sf id already exists."]},
    ),
    (65, FOLD, new_fold(files=...), 400, {"files": ["This field is required for a new submission."]}),
    (
        66,
        FOLD,
        new_fold(raw_data=9),
        400,
        {"databoard_s": ['Invalid pk "9" - object does not exist.']},
    ),
    (
        66,
        FOLD,
        new_fold(raw_data=2**40),
        400,
        {"databoard_s": ['Invalid pk "1099511627776" - object does not exist.']},
    ),
    (66, FOLD, new_fold(raw_data=...), 400, {"raw_data": ["This field is required for a new submission."]}),
    (67, FOLD, next_fold(raw_data=2), 400, {"raw_data": ["Submission 24 belongs to dataset 1."]}),
    (
        68,
        FOLD,
        next_fold(raw_data=1, files={"classifier.py": packed("pass\n")}),
        400,
        {"files": ['Submission 24 exists with other files; send force="submission, submission_fold".']},
    ),
    (69, FOLD, next_fold(train_is="!"), 400, {"train_is": ["Not valid base64."]}),
    (69, FOLD, next_fold(train_is=base64.b64encode(b"x" * 9).decode()), 400, {"train_is": ["Not valid zlib data."]}),
    (69, FOLD, next_fold(train_is=packed(b"x" * 13)), 400, {"train_is": ["Length 13 is not a multiple of 8."]}),
    (69, FOLD, next_fold(train_is=3), 400, {"train_is": ["Not a valid string."]}),
    (70, FOLD, next_fold(train_is=packed("")), 400, {"train_is": ["Empty."]}),
    (
        70,
        FOLD,
        next_fold(train_is=indices(-1)),
        400,
        {"train_is": ["Index -1 at position 0 is out of range 0..74."]},
    ),
    (
        70,
        FOLD,
        next_fold(train_is=indices(0, 75)),
        400,
        {"train_is": ["Index 75 at position 1 is out of range 0..74."]},
    ),
    (70, FOLD, next_fold(train_is=indices(1, 0, 2, 0)), 400, {"train_is": ["Index 0 appears twice."]}),
    (70, FOLD, next_fold(test_is=indices(5, 5)), 400, {"test_is": ["Index 5 appears twice."]}),
    (
        70,
        FOLD,
        next_fold(train_is=packed(b"\0\0\0\0\0\0\xf0\x3f")),
        400,
        {"train_is": ["Index 4607182418800017408 at position 0 is out of range 0..74."]},
    ),
    (72, FOLD, next_fold(priority="X"), 400, {"priority": ['"X" is not a valid choice.']}),
    (72, FOLD, next_fold(priority=None), 400, {"priority": ["This field may not be null."]}),
    (72, FOLD, next_fold(priority=1), 400, {"priority": ['"1" is not a valid choice.']}),
    (73, FOLD, next_fold(force="all"), 400, {"force": ['"all" is not a valid choice.']}),
    (73, FOLD, next_fold(force=["submission"]), 400, {"force": ['"list" is not a valid choice.']}),
    (74, FOLD, new_fold(files={"model.py": packed("")}), 400, {"files": ["Missing classifier.py."]}),
    *(
        (
            75,
            FOLD,
            new_fold(files={"classifier.py": packed(""), f"{name}.py": packed("")}),
            400,
            file_error("Hides an installed module.", f"{name}.py"),
        )
        for name in ("numpy", "sklearn", "sitecustomize", "os")
    ),
    (
        78,
        LIST,
        {"list_submission_fold": "11"},
        400,
        {"list_submission_fold": ['Expected a list of items but got type "str".']},
    ),
    (78, LIST, {"list_submission_fold": ["a"]}, 400, {"list_submission_fold": {"0": NOT_INTEGER}}),
    (78, LIST, {"list_submission_fold": [1, True]}, 400, {"list_submission_fold": {"1": NOT_INTEGER}}),
    (
        78,
        LIST,
        {"list_submission_fold": list(range(10_001))},
        400,
        {"list_submission_fold": ["At most 10000 ids."]},
    ),
    (79, LIST, {"list_submission_fold": [77, 2**63, -1]}, 200, []),
    (80, NEW, {"raw_data_id": "abc"}, 400, {"raw_data_id": NOT_INTEGER}),
    (80, NEW, {"raw_data_id": 99}, 200, []),
    (80, NEW, {"raw_data_id": 2**63}, 200, []),
]


@pytest.mark.usefixtures("unchanged")
@pytest.mark.parametrize(("row", "path", "body", "status", "answer"), JSON_ROWS)
def test_a_bad_body_is_refused(gateway: Gateway, row: int, path: str, body: Any, status: int, answer: Any) -> None:
    """Every field that is wrong is named, in the words of the catalogue."""
    got = gateway.post(path, body)
    assert (got.status_code, got.json()) == (status, answer), row
    assert got.headers["Content-Type"] == "application/json"


def basic(raw: bytes) -> dict[str, str]:
    """Return a header with these credentials."""
    return {"Authorization": "Basic " + base64.b64encode(raw).decode()}


AUTH_ROWS = [
    (1, {}, NO_AUTH),
    (1, {"Authorization": "Bearer x"}, NO_AUTH),
    (2, basic(b"ada:wrong"), WRONG_AUTH),
    (2, basic(b"nobody:wrong"), WRONG_AUTH),
    (2, basic(b"ada"), WRONG_AUTH),
    (3, {"Authorization": "Basic !!!"}, {"detail": "Invalid basic header. Credentials not correctly base64 encoded."}),
    (4, {"Authorization": "Basic"}, {"detail": "Invalid basic header. No credentials provided."}),
    (5, basic(b"ada:corr\0ect"), WRONG_AUTH),
    (5, basic(b"ada:" + b"x" * 3000), WRONG_AUTH),
    (5, basic(b"x" * 3000 + b":x"), WRONG_AUTH),
]


@pytest.mark.parametrize(("row", "headers", "answer"), AUTH_ROWS)
def test_a_stranger_is_turned_away(gateway: Gateway, row: int, headers: dict[str, str], answer: Any) -> None:
    """Who does not prove an account gets 401 and the challenge, whatever is sent instead."""
    got = requests.get(f"{gateway.url}/runapp/rawdata/", headers=headers, timeout=10)
    assert (got.status_code, got.json()) == (401, answer), row
    assert got.headers["WWW-Authenticate"] == 'Basic realm="api"'


def parse_error(text: str) -> dict[str, str]:
    """Return the answer to a body that is not JSON."""
    return {"detail": f"JSON parse error - {text}"}


BYTES_ROWS = [
    (12, b'{"a":', parse_error("Expecting value: line 1 column 6 (char 5)")),
    (12, b"", parse_error("Expecting value: line 1 column 1 (char 0)")),
    (13, b'{"name": "ab\xff"}', parse_error("not UTF-8 at byte 12")),
    *(
        (14, raw, {"non_field_errors": [f"Invalid data. Expected a dictionary, but got {kind}."]})
        for raw, kind in ((b"[]", "list"), (b"3", "int"), (b'"x"', "str"), (b"null", "NoneType"))
    ),
    (15, b"[" * 200_000, parse_error("nested deeper than 64")),
    (15, b'{"a":' + b"[" * 100 + b"]" * 100 + b"}", parse_error("nested deeper than 64")),
    (16, b'{"a": ' + b"9" * 5000 + b"}", parse_error("number too long")),
    *((17, b'{"a": %s}' % v, parse_error("NaN and Infinity are not JSON")) for v in (b"NaN", b"-Infinity", b"1e999")),
    (18, b'{"name": 1, "name": 2}', parse_error('duplicate key "name"')),
    (19, b'{"name": "\\ud800"}', {"name": ["Not valid text (lone surrogate)."]}),
    (20, b'{"name": "\\u0000"}', {"name": ["Null characters are not allowed."]}),
]


@pytest.mark.usefixtures("unchanged")
@pytest.mark.parametrize(("row", "content", "answer"), BYTES_ROWS, ids=lambda value: str(value)[:40])
@pytest.mark.parametrize("path", [RAW, FOLD, NEW])
def test_what_is_not_json_is_refused(gateway: Gateway, row: int, content: bytes, answer: Any, path: str) -> None:
    """A body that is not one plain JSON object is refused by every route alike."""
    got = gateway.post(path, data=content, headers={"Content-Type": "application/json"})
    assert (got.status_code, got.json()) == (400, answer), row


@pytest.mark.usefixtures("unchanged")
def test_other_media_types_and_encodings_are_refused(gateway: Gateway) -> None:
    """Only JSON is read, plain or packed by a known encoding (rows 10 and 11)."""
    plain = gateway.post(RAW, data=b"{}", headers={"Content-Type": "text/plain"})
    assert (plain.status_code, plain.json()) == (415, {"detail": 'Unsupported media type "text/plain" in request.'})
    json_type = {"Content-Type": "application/json"}
    brotli = gateway.post(RAW, data=b"{}", headers=json_type | {"Content-Encoding": "br"})
    assert (brotli.status_code, brotli.json()) == (415, {"detail": 'Unsupported content encoding "br".'})
    packed_body = gateway.post(RAW, data=gzip.compress(b"{}"), headers=json_type | {"Content-Encoding": "gzip"})
    assert packed_body.json()["name"] == REQUIRED
    broken = gateway.post(RAW, data=b"nonsense", headers=json_type | {"Content-Encoding": "gzip"})
    assert broken.status_code == 400


@pytest.mark.usefixtures("unchanged")
def test_unknown_paths_and_methods(gateway: Gateway) -> None:
    """What is not there is 404, what cannot be done to it 405 with what can (rows 8 and 9)."""
    for path in ("nothing/", "", "rawdata/x/", "rawdata//"):
        got = gateway.get(path)
        assert (got.status_code, got.json()) == (404, NOT_FOUND), path
    for method in ("PUT", "DELETE", "PATCH"):
        got = gateway.session.request(method, f"{gateway.url}/runapp/rawdata/", auth=USER, timeout=10)
        assert (got.status_code, got.json()) == (405, {"detail": f'Method "{method}" not allowed.'})
        assert {"GET", "POST"} <= set(got.headers["Allow"].split(","))


@pytest.mark.parametrize("number", ["0", "-1", "2147483648", "1.0", "\uff11", "9" * 5000, "01", "%31;"])
def test_ids_that_cannot_be(gateway: Gateway, number: str) -> None:
    """A path whose id is no id is not found, at once (row 27)."""
    got = gateway.get(f"submissionfold/{number}/")
    assert (got.status_code, got.json()) == (404, NOT_FOUND)
    assert got.elapsed.total_seconds() < 0.5


def test_paths_without_their_slash_are_served(gateway: Gateway) -> None:
    """A POST without the slash is not lost (row 28)."""
    assert gateway.get("rawdata").json() == gateway.get("rawdata/").json() != []
    assert gateway.get("submissionfold/11").json()["databoard_sf_id"] == 11
    assert gateway.post("testpredictions/new", {}).json() == []


def test_a_list_without_ids_is_no_content(gateway: Gateway) -> None:
    """The answer of 2016 to a missing list (row 77)."""
    got = gateway.post(LIST, {})
    assert (got.status_code, got.content) == (204, b"")


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
