"""Every kind of record that nobody can apply or run is a dead letter with its reason, and nothing waits behind it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from prometheus_client.parser import text_string_to_metric_families

from datarun.dead_letters.letters import text_of
from datarun.envelope import encode
from datarun.events import FoldRequested
from datarun.signing_keys import ROLES, load_keys, new_file
from datarun.topics import Catalogue
from tests.gateways import fold_body, packed, read_events, wait_until
from tests.integration.test_other_host import CLASSIFIER, running
from tests.projecting import CONTEXT
from tests.sites import Site, running_site
from tests.spoiled import Known, Stranger, fold, spoiled

SECONDS = 60


@pytest.fixture
def site(
    kafka: str, postgres_url: str, topic_prefix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Site]:
    """Run a gateway, a projector and a runner whose events are signed."""
    keys = tmp_path / "keys.json"
    keys.write_text(new_file("datarun", ROLES))
    monkeypatch.setenv("DATARUN_SIGNING_KEYS", str(keys))
    with running_site(kafka, postgres_url, tmp_path, topic_prefix) as running_one:
        running_one.installation.catalogue = Catalogue(topic_prefix, load_keys(keys))
        command = [sys.executable, "-m", "services.runner", "--kafka", kafka, "--topic-prefix", topic_prefix]
        command += ["--blobs", (tmp_path / "blobs").as_uri(), "--slots", "1", "--sandbox-min", "1"]
        with running([*command, "--dir", str(tmp_path / "runner")], tmp_path / "runner.log") as runner:
            yield running_one
            assert runner.poll() is None


def _known(site: Site) -> Known:
    """Have a fold tested, and a dataset uploaded."""
    gateway = site.gateway
    iris = gateway.upload("iris")
    assert gateway.post("rawdata/split/", {"raw_data_id": iris, "held_out_test": 0.5}).ok
    body = fold_body(1, 1, iris, files={"classifier.py": packed(CLASSIFIER)}, priority="H")
    assert gateway.post("submissionfold/", body).status_code == 201
    wait_until(lambda: site.get("folds/1")["state"] == "TESTED", seconds=SECONDS)
    [accepted] = read_events(site.installation.kafka, site.installation.catalogue.prefix, FoldRequested)
    assert isinstance(accepted, FoldRequested)
    return Known(site.installation.catalogue, site.blobs, accepted, gateway.upload("another"))


def _letters(site: Site) -> dict[str, dict[str, Any]]:
    return {one["position"]: one for one in site.get("dead-letters?limit=1000")["items"]}


def _unread(site: Site) -> float:
    """Return how many records projector and gateway have not looked at."""
    text = requests.get(f"{site.gateway.url}/metrics", timeout=30).text
    samples = [one for family in text_string_to_metric_families(text) for one in family.samples]
    lags = ("datarun_projection_lag_records", "datarun_claims_lag_records")
    assert {one.name for one in samples} >= set(lags)
    return sum(one.value for one in samples if one.name in lags)


def test_every_kind_is_a_dead_letter_with_its_reason_and_what_follows_goes_on(site: Site) -> None:
    """Each once, found by all who should find it; then nothing is left unread, and a fold behind them all is tested."""
    known, stranger = _known(site), Stranger(site.installation.kafka)
    sent = {text_of(stranger.append(one.record, partition=one.partition)): one for one in spoiled(known, 1_000_000_100)}
    last = fold(known, 1_000_000_200)
    stranger.append(encode(last, catalogue=known.catalogue, context=CONTEXT))
    wait_until(lambda: sent.keys() <= _letters(site).keys(), seconds=SECONDS)
    expected = {one.name: (one.reason, set(one.found_by)) for one in sent.values()}

    def told() -> dict[str, tuple[str, set[str]]]:
        letters = _letters(site)
        return {one.name: (letters[at]["reason"], set(letters[at]["found_by"])) for at, one in sent.items()}

    wait_until(lambda: told() == expected, seconds=SECONDS)
    wait_until(lambda: site.get(f"folds/{last.fold_id}")["state"] == "TESTED", seconds=SECONDS)
    wait_until(lambda: _unread(site) == 0, seconds=SECONDS)


def test_a_request_that_lost_its_claim_changes_nothing_that_is_told_of_the_fold(
    kafka: str, module_postgres_url: str, tmp_path: Path
) -> None:
    """Though it is the last of its attempt in the queue: whose the fold is, and what was asked for, stays."""
    with running_site(kafka, module_postgres_url, tmp_path, "lost.") as site:
        number = site.fold(site.dataset(is_split=True))
        [accepted] = read_events(kafka, "lost.", FoldRequested)
        assert isinstance(accepted, FoldRequested)
        told, legacy = site.get(f"folds/{number}"), site.gateway.get(f"submissionfold/{number}/").json()
        other = {"task_id": "another", "submission_id": 99_999, "requested_by": "stranger"}
        site.append(accepted.model_copy(update=other))
        wait_until(lambda: [one["reason"] for one in _letters(site).values()] == ["claimed"], seconds=SECONDS)
        after = site.get(f"folds/{number}")
        assert {name for name in told if told[name] != after[name]} <= {"requested_at", "queue"}
        assert site.gateway.get(f"submissionfold/{number}/").json() == legacy
        assert [one["id"] for one in site.get(f"folds?submission_id={told['submission_id']}")["items"]] == [number]
