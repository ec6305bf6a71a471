"""What Prometheus reads of a gateway: the installation at this moment, and what was answered."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import requests
from prometheus_client.parser import text_string_to_metric_families

from datarun.events import FoldFailed
from tests.gateways import query, wait_until
from tests.histories import heartbeat, run_event
from tests.sites import Site, running_site


@pytest.fixture(scope="module")
def site(kafka: str, module_postgres_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Run a gateway beside a projector."""
    with running_site(kafka, module_postgres_url, tmp_path_factory.mktemp("metrics"), "metrics.") as running:
        yield running


def read(site: Site) -> dict[tuple[str, ...], float]:
    """Return every sample by its name and the values of its labels, in the order of their names."""
    answer = requests.get(f"{site.gateway.url}/metrics", timeout=30)
    assert answer.status_code == 200, answer.text
    assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
    samples = [sample for family in text_string_to_metric_families(answer.text) for sample in family.samples]
    return {(sample.name, *sample.labels.values()): sample.value for sample in samples}


def test_metrics_tell_how_the_installation_stands(site: Site) -> None:
    """Queues with depth and oldest wait, folds by state and cause, runners, the outbox, how far the projection is."""
    raw_data_id = site.dataset()
    first = site.fold(raw_data_id)
    others = [site.fold(submission=first) for _ in range(3)]
    assert site.gateway.post("rawdata/split/", {"raw_data_id": site.dataset(), "held_out_test": 0.5}).ok
    site.append(run_event(FoldFailed, others[0]), heartbeat("runner-1", 1))
    query(site.installation.postgres_url, "update rm.fold set requested_at = now() - interval '1 h'")
    # Folds are counted anew every 15 s, and acknowledgements marked a moment later.
    wait_until(lambda: ("datarun_folds", "user_error", "ERROR") in read(site), seconds=40)
    wait_until(lambda: read(site)["datarun_outbox_records",] == 0)
    query(site.installation.postgres_url, "update rm.runner set seen_at = now()")
    found = read(site)
    assert (found["datarun_queue_folds", "L"], found["datarun_queue_folds", "H"]) == (3, 0)
    assert 3600 <= found["datarun_queue_oldest_seconds", "L"] < 3700
    assert found["datarun_folds", "user_error", "ERROR"] == 1
    assert found["datarun_folds", "", "TODO"] == 3
    assert (found["datarun_runners_alive",], found["datarun_runner_slots",]) == (1, 1)
    assert (found["datarun_postgres_up",], found["datarun_kafka_up",]) == (1, 1)
    assert (found["datarun_outbox_waiting_for_split_records",], found["datarun_dead_letters",]) == (0, 0)
    topic = site.installation.catalogue.prefix + "fold-events"
    assert found["datarun_projection_lag_records", topic] == 0
    query(site.installation.postgres_url, "update rm.projection_offset set next_offset = 0 where topic = %s", topic)
    assert read(site)["datarun_projection_lag_records", topic] == 1


def test_requests_are_counted_by_route_and_status(site: Site) -> None:
    """By the route's pattern, never by what a client wrote in its place."""
    for number in (999_998, 999_999):
        assert site.ask("GET", f"folds/{number}").status_code == 404
    assert requests.get(f"{site.gateway.url}/nothing-{'x' * 50}", timeout=30).status_code == 404
    found = read(site)
    assert found["datarun_http_requests_total", "GET", "/v1/folds/{fold_id}", "404"] == 2
    assert found["datarun_http_requests_total", "any", "none", "404"] >= 1
    assert found["datarun_http_request_seconds_count", "/v1/folds/{fold_id}"] == 2
    assert not [key for key in found if "nothing-" in "".join(key) or "999" in "".join(key)]


def test_readiness_names_each_dependency(site: Site) -> None:
    """All of them are there."""
    ready = requests.get(f"{site.gateway.url}/readyz", timeout=30)
    assert (ready.status_code, ready.json()) == (200, {"postgres": "ok", "kafka": "ok", "blobs": "ok"})


def test_metrics_are_answered_while_postgres_is_away(site: Site) -> None:
    """What it would tell is left out; the gateway's own counters are there."""
    read(site)
    query(site.installation.postgres_url, "alter schema rm rename to gone")
    try:
        found = read(site)
    finally:
        query(site.installation.postgres_url, "alter schema gone rename to rm")
    assert found["datarun_postgres_up",] == 0
    assert ("datarun_runners_alive",) not in found
    assert found["datarun_http_requests_total", "GET", "/metrics", "200"] >= 1
