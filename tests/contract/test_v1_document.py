"""The OpenAPI document: it is what the code says, valid, no poorer than what was published, and its examples run."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from openapi_spec_validator import validate

from datarun.events import DataSplit, Split
from services.ingest.v1.__main__ import text
from services.ingest.v1.documents import render
from services.ingest.v1.operation import Operation
from services.ingest.v1.routes import OPERATIONS
from tests.compatibility import breaks
from tests.gateways import USER, wait_until
from tests.sites import Site, running_site

SCHEMAS = Path(__file__).parents[2] / "schemas"
CURRENT = json.loads((SCHEMAS / "openapi.json").read_text())
PUBLISHED = sorted(SCHEMAS.glob("openapi-*.json"))


@pytest.fixture(scope="module")
def site(kafka: str, module_postgres_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Run a fresh gateway beside a projector."""
    with running_site(kafka, module_postgres_url, tmp_path_factory.mktemp("v1"), "v1docs.") as running:
        yield running


def test_the_committed_document_is_what_the_code_says() -> None:
    """`make openapi` writes it."""
    assert (SCHEMAS / "openapi.json").read_text() == text()


def test_the_document_is_valid() -> None:
    """By the schema of OpenAPI 3.1, and every operation has a name of its own."""
    validate(CURRENT)
    names = [operation.name for operation in OPERATIONS]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("published", PUBLISHED, ids=lambda path: path.name)
def test_what_was_published_still_holds(published: Path) -> None:
    """A client of any published version finds all it knew; what changes otherwise needs a new path."""
    assert breaks(json.loads(published.read_text()), CURRENT) == []


def _schema(document: Any, name: str) -> Any:
    return document["components"]["schemas"][name]


BREAKING: dict[str, Callable[[Any], Any]] = {
    "an operation is gone": lambda doc: doc["paths"].pop("/v1/retry"),
    "a parameter is gone": lambda doc: doc["paths"]["/v1/folds"]["get"]["parameters"].pop(0),
    "a parameter is required": lambda doc: doc["paths"]["/v1/folds"]["get"]["parameters"][0].update(required=True),
    "a field of an answer is gone": lambda doc: _schema(doc, "Fold")["properties"].pop("state"),
    "a field of an answer may be absent": lambda doc: _schema(doc, "Fold")["required"].remove("state"),
    "a field is of another type": lambda doc: _schema(doc, "Fold")["properties"]["attempt"].update(type="string"),
    "a field of a body is required": lambda doc: _schema(doc, "RequestedFold")["required"].append("dataset_id"),
    "a field of a body is gone": lambda doc: _schema(doc, "RequestedFold")["properties"].pop("force"),
    "a body takes a word less": lambda doc: _schema(doc, "RequestedFold")["properties"]["priority"].update(enum=["H"]),
    "a bound is tighter": lambda doc: _schema(doc, "RequestedFold")["properties"]["id"].update(maximum=5),
    "an answer is gone": lambda doc: doc["paths"]["/v1/folds"]["post"]["responses"].pop("201"),
    "a body is required": lambda doc: doc["paths"]["/v1/folds/{fold_id}/cancel"]["post"]["requestBody"].update(
        required=True
    ),
}


@pytest.mark.parametrize("change", BREAKING)
def test_a_breaking_change_is_seen(change: str) -> None:
    """Each kind of it."""
    changed = copy.deepcopy(CURRENT)
    BREAKING[change](changed)
    assert breaks(CURRENT, changed) != []


def test_an_addition_breaks_nothing() -> None:
    """A new operation, a parameter that may be left out, a field more."""
    changed = copy.deepcopy(CURRENT)
    changed["paths"]["/v1/more"] = changed["paths"]["/v1/folds"]
    changed["paths"]["/v1/folds"]["get"]["parameters"].append(
        {"name": "more", "in": "query", "required": False, "schema": {"type": "string"}}
    )
    _schema(changed, "Fold")["properties"]["more"] = {"type": "string"}
    _schema(changed, "RequestedFold")["properties"]["more"] = {"type": "string"}
    assert breaks(CURRENT, changed) == []


def test_the_reference_page_needs_no_other_server(site: Site) -> None:
    """It tells of every operation, links to what is there, and loads and runs nothing."""
    answer = requests.get(f"{site.gateway.url}/v1/docs", timeout=30)
    assert answer.headers["Content-Type"].startswith("text/html")
    assert answer.headers["Content-Security-Policy"].startswith("default-src 'none'")
    page = answer.text
    assert page == render(CURRENT)
    # An example of a body may have a URL in it, as text.
    beside_examples = re.sub(r"<pre>[^<]*</pre>", "", page)
    assert not re.findall(r"<script|<img|<link|src=|@import|url\(|http://|https://", beside_examples)
    assert all(f'id="{operation.name}"' in page for operation in OPERATIONS)
    ids = set(re.findall(r'id="([^"]+)"', page))
    assert set(re.findall(r'href="#([^"]+)"', page)) <= ids
    assert requests.get(f"{site.gateway.url}/v1/openapi.json", timeout=30).json() == CURRENT


ORDER = (
    "upload_dataset", "list_datasets", "get_dataset", "split_dataset", "get_split", "list_splits", "find_split",
    "create_fold", "list_folds",
    "get_fold", "explain_fold", "get_history", "list_submissions", "get_submission", "change_fold", "cancel_fold",
    "retry_fold", "get_predictions", "get_fold_scores", "get_submission_scores", "get_leaderboard",
    "list_scoring_functions", "get_new", "acknowledge", "forget_cursor", "follow_events", "create_webhook",
    "list_webhooks", "ping_webhook", "list_deliveries", "redeliver", "change_webhook", "rotate_secret",
    "get_webhook", "delete_webhook", "retry_folds",
    "list_runners", "list_open", "list_dead_letters", "get_problem",
    "get_openapi", "get_reference",
)  # fmt: skip
"""The examples make one story: a dataset, a fold on it, and what becomes of that."""


def run_example(site: Site, operation: Operation) -> requests.Response:
    """Send an operation's example."""
    example = operation.example
    path = operation.path.format(**example.get("path", {}))
    body = example.get("body")
    options: dict[str, Any] = {"params": example.get("query", {}), "auth": USER}
    if operation.multipart and body is not None:
        options["files"] = {name: value if name == "files" else (None, value) for name, value in body.items()}
    elif body is not None:
        options["json"] = body
    return requests.request(operation.method, f"{site.gateway.url}{path}", timeout=30, stream=True, **options)


def test_every_example_runs(site: Site) -> None:
    """In the order of a story, each with an answer that is its own and as its model says."""
    operations = {operation.name: operation for operation in OPERATIONS}
    assert set(ORDER) == set(operations)
    for name in ORDER:
        if name == "create_fold":
            _split(site)
        if name == "get_predictions":
            site.tested(1, attempt=3)
        operation = operations[name]
        answer = run_example(site, operation)
        assert answer.status_code in operation.answers, f"{name}: {answer.status_code} {answer.text}"
        says = operation.answers[answer.status_code]
        if says.model is not None:
            says.model.model_validate(answer.json())
        if name == "cancel_fold":
            wait_until(lambda: site.get("folds/1")["state"] == "ERROR")


def _split(site: Site) -> None:
    blob = site.blobs.put(b"part")
    split = Split(kind="standard", task_id="t", train=blob, test=blob, train_rows=9, test_rows=9)
    site.append(DataSplit(raw_data_id=1, attempt=1, task_id="t", split=split, runner_id="runner"))
