"""An installation whose events are signed: what its services write is taken, what others write is forged."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from datarun.envelope import check_route, decode, encode
from datarun.events import DataSplit, FoldRequested, FoldTested, Split
from datarun.signatures import SIGNATURE, Signatures
from datarun.signing_keys import ROLES, load_keys, new_file
from datarun.topics import Catalogue
from tests.gateways import fold_body, wait_until
from tests.histories import run_event
from tests.projecting import CONTEXT
from tests.sites import Site, running_site


@pytest.fixture
def keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Signatures:
    """Let every process of a test sign and check with one new key."""
    path = tmp_path / "keys.json"
    path.write_text(new_file("datarun", ROLES))
    monkeypatch.setenv("DATARUN_SIGNING_KEYS", str(path))
    return load_keys(path)


@pytest.fixture
def site(kafka: str, postgres_url: str, topic_prefix: str, tmp_path: Path, keys: Signatures) -> Iterator[Site]:
    """Run a gateway and a projector that have the key."""
    with running_site(kafka, postgres_url, tmp_path, topic_prefix) as running:
        running.installation.catalogue = Catalogue(topic_prefix, keys)
        yield running


def test_all_that_the_services_write_is_signed(site: Site) -> None:
    """Also a request that was owed while its dataset was being split, and sent as another than it was signed as."""
    number = site.gateway.upload()
    assert site.gateway.post("rawdata/split/", {"raw_data_id": number, "held_out_test": 0.5}).ok
    waiting = site.gateway.post("submissionfold/", fold_body(1, 1, number))
    assert waiting.headers["Datarun-Position"] == "pending"
    parts = (site.blobs.put(b"train"), site.blobs.put(b"test"))
    split = Split(kind="standard", task_id="t", train=parts[0], test=parts[1], train_rows=75, test_rows=75)
    site.append(DataSplit(raw_data_id=number, attempt=1, task_id="t", split=split, runner_id="runner"))
    wait_until(lambda: site.get("folds?limit=10")["items"] != [] and site.installation.caught_up(site.log), seconds=30)
    wait_until(
        lambda: any(b"FoldRequested" in dict(one.headers)["ce_type"] for one in site.installation.stored(site.log))
    )
    records = site.installation.stored(site.log)
    for record in records:
        check_route(decode(record.value, record.headers), record, catalogue=site.installation.catalogue)
    requested = [decode(one.value, one.headers) for one in records if b"FoldRequested" in dict(one.headers)["ce_type"]]
    assert [one.dataset.split for one in requested if isinstance(one, FoldRequested)] == [split]
    wait_until(lambda: site.installation.caught_up(site.log))
    assert site.get("dead-letters")["items"] == []


def test_a_result_that_nobody_signed_or_who_may_not_is_a_dead_letter(site: Site, keys: Signatures) -> None:
    """With its reason; the fold is as it was, and tells nothing of it, until the true result comes."""
    prefix = site.installation.catalogue.prefix
    fold_id = site.fold()
    event = run_event(FoldTested, fold_id)
    producer = replace(keys.keys["datarun"], events=frozenset({"FoldRequested"}))
    stranger = Signatures({"datarun": replace(producer, secret=b"x" * 32)}, signs_as="datarun")
    for signatures in (None, stranger):
        record = encode(event, catalogue=Catalogue(prefix, signatures), context=CONTEXT)
        site.log.append(record).result(10)
    wait_until(lambda: site.installation.caught_up(site.log))
    letters = site.get("dead-letters")["items"]
    assert [letter["reason"] for letter in letters] == ["forged", "forged"]
    assert sorted(letter["detail"] for letter in letters) == [
        "it is not signed",
        "the signature is not that of datarun",
    ]
    assert site.get(f"folds/{fold_id}")["state"] == "TODO"
    told = [happening["event"] for happening in site.get(f"folds/{fold_id}/history")["events"]]
    assert told == ["FoldRequested"]
    site.tested(fold_id)
    assert site.get(f"folds/{fold_id}")["state"] == "TESTED"
    assert SIGNATURE in dict(encode(event, catalogue=site.installation.catalogue, context=CONTEXT).headers)
