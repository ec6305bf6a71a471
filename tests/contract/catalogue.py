"""The catalogue of bad input: 105 rows, each with its requests and their answers, or with the test that holds it."""

from __future__ import annotations

import base64
import zlib
from dataclasses import dataclass, field
from typing import Any

from tests.gateways import CSV, fold_body, indices, packed

MIB = 1024 * 1024
REQUIRED = ["This field is required."]
NOT_INTEGER = ["A valid integer is required."]
BAD_NAME = ["Only letters, digits, space, '_', '-' and '.'; must start with a letter or digit."]
OUT_OF_RANGE = ["Ensure this value is between 1 and 2147483647."]
SHARE = {"held_out_test": ["Must be greater than 0 and less than 1."]}
SEED = {"random_state": ["Must be an integer from 0 to 4294967295."]}
NO_AUTH = {"detail": "Authentication credentials were not provided."}
WRONG_AUTH = {"detail": "Invalid username/password."}
NOT_FOUND = {"detail": "Not found."}
SPECIFIC = "".join(
    f"def {name}(*args): ...\n"
    for name in ("prepare_data", "get_train_data", "get_test_data", "train_submission", "test_submission")
)


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

PLAIN = {"Content-Type": "text/plain"}
BROTLI = {"Content-Type": "application/json", "Content-Encoding": "br"}
TYPE_ROWS = [
    (10, PLAIN, {"detail": 'Unsupported media type "text/plain" in request.'}),
    (11, BROTLI, {"detail": 'Unsupported content encoding "br".'}),
]


@dataclass(frozen=True, slots=True)
class Case:
    """A request, and the status and body of its answer."""

    row: int
    path: str
    status: int
    answer: Any
    method: str = "POST"
    content: Any = field(default=None, repr=False)
    """JSON, or bytes that are sent as they are."""
    headers: dict[str, str] | None = None
    """In place of the test's own credentials, if they are given and name none."""

    def __str__(self) -> str:
        return f"{self.row}-{self.method}-{self.path}"


JSON_TYPE = {"Content-Type": "application/json"}
CASES = [
    *(Case(row, RAW, 401, answer, "GET", headers=headers) for row, headers, answer in AUTH_ROWS),
    *(Case(8, path, 404, NOT_FOUND, "GET") for path in ("nothing/", "", "rawdata/x/", "rawdata//")),
    *(
        Case(9, path, 405, {"detail": f'Method "{method}" not allowed.'}, method)
        for path in (RAW, FOLD)
        for method in ("PUT", "DELETE", "PATCH")
    ),
    *(Case(row, RAW, 415, answer, content=b"{}", headers=headers) for row, headers, answer in TYPE_ROWS),
    *(
        Case(row, path, 400, answer, content=content, headers=JSON_TYPE)
        for row, content, answer in BYTES_ROWS
        for path in (RAW, FOLD, NEW)
    ),
    *(
        Case(27, f"submissionfold/{number}/", 404, NOT_FOUND, "GET")
        for number in ("0", "-1", "2147483648", "1.0", "\uff11", "9" * 5000, "01", "%31;")
    ),
    *(Case(row, path, status, answer, content=body) for row, path, body, status, answer in JSON_ROWS),
    Case(77, LIST, 204, None, content={}),
]
"""Every row that is one request; nothing is recorded by any of them."""

_HERE = "tests/contract/test_bad_input.py"
_GATEWAY = "tests/integration/test_gateway.py"
_LOGINS = "tests/integration/test_logins.py"
_SLOW = "tests/integration/test_slow_clients.py"
_HOSTILE = "tests/integration/test_execution_hostile.py"
_GOLDEN = "tests/integration/test_execution_golden.py"
_TIME = "tests/integration/test_execution_time.py"
_PROJECTOR = "tests/integration/test_projector.py"
_ENVELOPE = "tests/unit/test_envelope.py"
_ORPHANS = "tests/integration/test_orphans.py"
_EVERY = "tests/integration/test_every_dead_letter.py"
_EVOLVE = "tests/unit/test_projection_evolve.py"
_DEAD = "test_what_cannot_be_applied_becomes_a_dead_letter_and_the_partition_goes_on"
HELD_BY: dict[int, tuple[str, ...]] = {
    6: (f"{_LOGINS}::test_the_eleventh_wrong_password_in_a_minute_is_not_looked_at",),
    7: (f"{_LOGINS}::test_another_participants_work_is_out_of_reach",),
    21: (f"{_HERE}::test_a_body_announced_too_large_is_refused_at_once",),
    22: (f"{_HERE}::test_a_chunked_body_that_grows_too_large_is_refused",),
    23: (f"{_HERE}::test_bombs_are_refused_in_little_memory",),
    24: (f"{_HERE}::test_malformed_http_gets_400_and_is_closed",),
    25: (f"{_HERE}::test_malformed_http_gets_400_and_is_closed",),
    26: (f"{_SLOW}::test_half_a_head_is_closed", f"{_SLOW}::test_half_a_body_is_answered_408"),
    28: (f"{_HERE}::test_paths_without_their_slash_are_served",),
    29: (
        f"{_GATEWAY}::test_what_a_broker_missed_is_sent_once_when_it_is_back",
        f"{_GATEWAY}::test_a_database_that_hangs_makes_503_in_time",
        f"{_GATEWAY}::test_a_database_that_refuses_makes_503_and_comes_back",
    ),
    33: (f"{_HERE}::test_names_that_are_commands_start_nothing",),
    36: (f"{_GATEWAY}::test_one_of_twenty_equal_names_is_accepted",),
    42: (f"{_HERE}::test_bombs_are_refused_in_little_memory",),
    43: (f"{_HERE}::test_files_that_are_too_large_together_are_refused",),
    53: (f"{_HERE}::test_a_full_disk_is_said_and_nothing_is_recorded",),
    58: (f"{_HERE}::test_the_same_split_twice_is_one",),
    64: (f"{_GATEWAY}::test_one_of_fifty_equal_folds_is_accepted",),
    71: (
        f"{_HERE}::test_an_index_beyond_a_split_that_is_not_done_is_accepted",
        "tests/integration/test_execution_data.py::test_an_index_out_of_range_is_named",
    ),
    76: ("tests/integration/test_v1_writes.py::test_a_key_gives_the_first_answer_again",),
    81: (f"{_GATEWAY}::test_a_cut_connection_leaves_the_folds_new",),
    82: (f"{_HOSTILE}::test_a_broken_submission_ends_with_its_reason",),
    83: (f"{_HOSTILE}::test_a_broken_submission_ends_with_its_reason",),
    84: (f"{_HOSTILE}::test_a_broken_submission_ends_with_its_reason",),
    85: (
        f"{_HOSTILE}::test_a_broken_submission_ends_with_its_reason",
        f"{_GOLDEN}::test_a_list_and_a_sparse_matrix_are_numbers",
    ),
    86: (
        f"{_HOSTILE}::test_a_lying_header_is_a_protocol_error",
        f"{_HOSTILE}::test_a_huge_claim_costs_the_runner_nothing",
        f"{_HOSTILE}::test_predictions_over_the_limit_are_refused",
    ),
    87: (f"{_HOSTILE}::test_meddling_with_the_channel_is_a_protocol_error",),
    88: (
        f"{_HOSTILE}::test_meddling_with_the_channel_is_a_protocol_error",
        f"{_GOLDEN}::test_metrics_are_measured_from_outside",
    ),
    89: (f"{_HOSTILE}::test_a_broken_submission_ends_with_its_reason",),
    90: (
        f"{_HOSTILE}::test_a_broken_submission_ends_with_its_reason",
        f"{_HOSTILE}::test_the_last_byte_before_a_crash_is_kept",
    ),
    91: (
        f"{_HOSTILE}::test_an_endless_submission_is_stopped",
        f"{_TIME}::test_the_hard_limit_ends_what_cannot_be_interrupted",
    ),
    92: (f"{_HOSTILE}::test_a_memory_bomb_meets_its_limit",),
    93: (
        f"{_HOSTILE}::test_a_fork_bomb_stays_in_its_fold",
        f"{_HOSTILE}::test_too_many_files_are_refused_inside",
    ),
    94: (f"{_HOSTILE}::test_a_full_disk_is_the_folds_own",),
    95: (f"{_HOSTILE}::test_a_flood_of_output_is_bounded",),
    96: (
        "tests/integration/test_attacks.py::test_an_attack_is_held",
        "tests/integration/test_attacks.py::test_at_least_forty_attacks_are_held",
    ),
    97: (f"{_ENVELOPE}::test_what_is_no_event_is_refused", f"{_PROJECTOR}::{_DEAD}"),
    98: (f"{_ENVELOPE}::test_what_is_no_event_is_refused", f"{_PROJECTOR}::{_DEAD}"),
    99: (
        f"{_ENVELOPE}::test_a_record_in_another_topic_partition_or_under_another_key_is_misrouted",
        f"{_PROJECTOR}::{_DEAD}",
    ),
    100: (
        "tests/unit/test_signatures.py::test_whatever_else_comes_in_is_forged",
        "tests/unit/test_runner_service.py::test_a_request_that_is_not_signed_does_not_run",
        "tests/integration/test_signed.py::test_a_result_that_nobody_signed_or_who_may_not_is_a_dead_letter",
    ),
    101: ("tests/integration/test_projection_apply.py::test_known_records_are_skipped_and_counted",),
    102: (
        f"{_EVOLVE}::test_the_first_terminal_of_an_attempt_wins_whatever_its_delivery",
        f"{_EVOLVE}::test_a_newer_attempt_replaces_a_terminal_one",
    ),
    103: (
        f"{_EVOLVE}::test_a_result_seen_before_its_request_makes_the_row",
        f"{_ORPHANS}::test_a_run_waits_a_minute_for_its_request",
        f"{_ORPHANS}::test_a_result_without_a_request_is_a_dead_letter_in_the_end",
        f"{_ORPHANS}::test_no_list_of_folds_shows_a_result_without_a_request",
        f"{_ORPHANS}::test_a_request_that_comes_later_completes_the_fold_and_there_is_no_letter_any_more",
    ),
    104: (f"{_EVOLVE}::test_any_reading_of_a_log_gives_the_same_rows",),
    105: (
        "tests/integration/test_producer.py::test_the_example_runs_and_what_must_not_be_written_is_set_aside",
        f"{_EVERY}::test_every_kind_is_a_dead_letter_with_its_reason_and_what_follows_goes_on",
        "tests/integration/test_execution_data.py::test_a_missing_blob_is_the_platforms_fault",
        "tests/integration/test_execution_data.py::test_a_corrupt_blob_is_the_platforms_fault",
    ),
}
"""Rows that are more than one request, or happen behind the gateway, and the tests that hold them."""
