"""Made-up requests, drawn from the OpenAPI document and against it: none is answered 5xx, each as the document says."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    response_schema_conformance,
    status_code_conformance,
)

from services.ingest.gateway import MIN_POSITION
from services.ingest.v1.openapi import build
from services.ingest.v1.routes import OPERATIONS
from tests.sites import Site, running_site

EXAMPLES = int(os.environ.get("DATARUN_FUZZ_EXAMPLES", "6"))
"""Of each operation, as it says and against what it says; `make fuzz` draws more."""
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
    negative_data_rejection,
]
document = schemathesis.openapi.from_dict(build(OPERATIONS)).exclude(path="/v1/events")
"""Without the stream that has no end."""


@pytest.fixture(scope="module")
def site(kafka: str, module_postgres_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Run a gateway beside a projector, with a fold that was tested."""
    with running_site(kafka, module_postgres_url, tmp_path_factory.mktemp("v1"), "v1fuzz.") as running:
        running.tested(running.fold())
        yield running


@pytest.mark.parametrize("mode", list(GenerationMode), ids=lambda mode: mode.value)
def test_whatever_is_sent_is_answered_as_the_document_says(
    site: Site, mode: GenerationMode, capsys: pytest.CaptureFixture[str]
) -> None:
    """Requests that keep to the document, and requests that do not: 0 answers from 500 on."""
    answers: Counter[int] = Counter()
    for result in document.get_all_operations():
        operation = result.ok()

        @settings(
            max_examples=EXAMPLES,
            deadline=None,
            database=None,
            derandomize=EXAMPLES < 20,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(case=operation.as_strategy(generation_mode=mode))
        def send(case: schemathesis.Case) -> None:
            # A position nobody has reached is answered 503 after a second, as it is said; that has a test of its own.
            case.headers.pop(MIN_POSITION, None)
            # As is a wait for what is new.
            case.headers.pop("Prefer", None)
            headers = {"Authorization": f"Bearer {site.token('admin')}"}
            answer = case.call(base_url=site.gateway.url, headers=headers, timeout=30)
            answers[answer.status_code] += 1
            case.validate_response(answer, checks=CHECKS)

        # An operation without parameters and body can only be asked as it says.
        with suppress(Unsatisfiable):
            send()
    with capsys.disabled():
        print(f"\n{mode.value}: {sum(answers.values())} requests, {dict(sorted(answers.items()))}")  # noqa: T201 - what was tried
    assert sum(answers.values()) >= EXAMPLES * len(OPERATIONS) / 2
    assert not [status for status in answers if status >= 500]
