"""Who is let in, how often who is not may try, and whose work an account sees."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from datarun import accounts, tokens
from datarun.accounts import InvalidAccount
from datarun.events import PredictionsFetched
from datarun.log.admin import create_topics
from tests.gateways import (
    Gateway,
    fold_body,
    give_result,
    pretend_projected,
    query,
    read_events,
    running_gateway,
    wait_until,
)

ALICE, BOB, CHIEF = ("alice", "alice's"), ("bob", "bob's"), ("chief", "chief's")
FORBIDDEN = {"detail": "You do not have permission to perform this action."}
FORCE_BOTH = "submission, submission_fold"


@pytest.fixture
def gateway(kafka: str, postgres_url: str, topic_prefix: str, blobs_url: str, tmp_path: Path) -> Iterator[Gateway]:
    """Run a gateway with two participants and an organiser beside the test's own account; nothing is projected."""
    create_topics(kafka, prefix=topic_prefix)
    pretend_projected(postgres_url, topic_prefix)
    for (name, password), role in ((ALICE, "participant"), (BOB, "participant"), (CHIEF, "organiser")):
        accounts.add(postgres_url, name, password, role)
    servers = {"kafka": kafka, "postgres_url": postgres_url, "blobs_url": blobs_url, "prefix": topic_prefix}
    with running_gateway(tmp_path / "gateway", **servers) as running:
        yield running


def _tries(gateway: Gateway, name: str, passwords: list[str]) -> list[requests.Response]:
    return [gateway.get("rawdata/", auth=(name, password)) for password in passwords]


def test_the_eleventh_wrong_password_in_a_minute_is_not_looked_at(gateway: Gateway) -> None:
    """429 says how long; who was let in before stays in, and others come in as ever (row 6)."""
    assert gateway.get("rawdata/", auth=ALICE).status_code == 200
    for name in ("alice", "nobody"):
        answers = _tries(gateway, name, [f"guess {number}" for number in range(11)])
        assert [answer.status_code for answer in answers] == [401] * 10 + [429]
        seconds = answers[-1].headers["Retry-After"]
        assert 30 <= int(seconds) <= 60
        assert answers[-1].json() == {"detail": f"Too many failed logins. Try again in {seconds} s."}
    assert gateway.get("rawdata/", auth=ALICE).status_code == 200
    assert gateway.get("rawdata/", auth=BOB).status_code == 200
    # The right password of a name nobody was let in with yet waits too: otherwise guessing would go on.
    assert [answer.status_code for answer in _tries(gateway, "chief", ["x"] * 10)] == [401] * 10
    assert gateway.get("rawdata/", auth=CHIEF).status_code == 429


def test_another_participants_work_is_out_of_reach(gateway: Gateway) -> None:
    """A participant neither sees nor touches what another one sent; an organiser does both (row 7)."""
    raw_data_id = gateway.upload()
    for number, account in ((1, ALICE), (2, BOB)):
        sent = gateway.post("submissionfold/", fold_body(number, number, raw_data_id), auth=account)
        assert sent.status_code == 201
    everything = {"list_submission_fold": [1, 2]}
    for account, seen in ((ALICE, [1]), (BOB, [2]), (CHIEF, [1, 2])):
        listed = gateway.post("testpredictions/list/", everything, auth=account)
        for answer in (
            gateway.get("submissionfold/", auth=account),
            gateway.get("submissionfold-light/", auth=account),
            listed,
        ):
            assert [fold["databoard_sf_id"] for fold in answer.json()] == seen
        shown = [gateway.get(f"submissionfold/{number}/", auth=account).status_code for number in (1, 2)]
        assert shown == [200 if number in seen else 404 for number in (1, 2)]
    refused = (
        fold_body(3, 1),
        fold_body(1, 1, force="submission_fold"),
        fold_body(1, 1, raw_data_id, force=FORCE_BOTH),
        fold_body(1, 2, force="submission_fold"),
    )
    for body in refused:
        answer = gateway.post("submissionfold/", body, auth=BOB)
        assert (answer.status_code, answer.json()) == (403, FORBIDDEN)
    split = {"raw_data_id": raw_data_id, "held_out_test": 0.5}
    assert gateway.post("rawdata/split/", split, auth=BOB).json() == FORBIDDEN
    taken = gateway.post("submissionfold/", fold_body(1, 2), auth=BOB)
    assert (taken.status_code, list(taken.json())) == (400, ["databoard_sf_id"])
    assert gateway.query("select fold_id, attempt, submission_id from intake.fold order by 1") == [(1, 1, 1), (2, 1, 2)]
    forced = gateway.post("submissionfold/", fold_body(1, 1, raw_data_id, force=FORCE_BOTH), auth=CHIEF)
    assert forced.status_code == 201
    # Whoever runs it again, it is hers.
    assert gateway.get("submissionfold/1/", auth=ALICE).status_code == 200
    assert gateway.post("submissionfold/", fold_body(4, 1), auth=ALICE).status_code == 201


def _new(gateway: Gateway, account: tuple[str, str], **body: Any) -> list[int]:
    return [fold["databoard_sf_id"] for fold in gateway.post("testpredictions/new/", body, auth=account).json()]


def test_what_is_new_to_a_participant_is_their_own_matter(
    gateway: Gateway, blobs_url: str, kafka: str, topic_prefix: str
) -> None:
    """Each gets their own once, which takes nothing from the other or from the organiser, in whatever order."""
    raw_data_id = gateway.upload()
    for number, account in ((1, ALICE), (2, BOB)):
        gateway.post("submissionfold/", fold_body(number, number, raw_data_id), auth=account)
        give_result(gateway.postgres_url, blobs_url, number)
    assert _new(gateway, BOB, raw_data_id=raw_data_id) == [2]
    assert _new(gateway, BOB) == []
    assert gateway.get("submissionfold/2/", auth=BOB).json()["new"] is False
    assert gateway.get("submissionfold/2/", auth=CHIEF).json()["new"] is True
    assert _new(gateway, CHIEF) == [1, 2]
    assert _new(gateway, CHIEF) == []
    wait_until(lambda: len(read_events(kafka, topic_prefix, PredictionsFetched)) == 2, seconds=5)
    query(gateway.postgres_url, "update rm.fold set fetched_attempt = 1")
    assert gateway.get("submissionfold-light/", auth=ALICE).json()[0]["new"] is True
    assert _new(gateway, ALICE) == [1]
    assert _new(gateway, ALICE) == []
    final = "select view, fold_id from intake.fetch_claim where claimed_until = 'infinity' order by 1, 2"
    wait_until(lambda: gateway.query(final) == [("", 1), ("", 2), ("alice", 1), ("bob", 2)], seconds=5)
    assert len(read_events(kafka, topic_prefix, PredictionsFetched)) == 2


def test_an_account_that_is_revoked_is_out_with_its_tokens(gateway: Gateway) -> None:
    """Within seconds, although its password was let in a moment ago; added again, it has its work back."""
    url, token = gateway.postgres_url, tokens.make()
    tokens.add(url, token, "alice")
    gateway.post("submissionfold/", fold_body(1, 1, gateway.upload()), auth=ALICE)
    assert gateway.get("submissionfold/1/", auth=("alice", token)).status_code == 200
    accounts.revoke(url, "alice")
    for credentials in (ALICE, ("alice", token)):
        wait_until(lambda credentials=credentials: gateway.get("rawdata/", auth=credentials).status_code == 401)
    with pytest.raises(InvalidAccount, match="exists already"):
        accounts.add(url, "alice", "another")
    with pytest.raises(InvalidAccount, match="no account alice"):
        tokens.add(url, tokens.make(), "alice")
    accounts.add(url, "alice", "another", "participant", revoked_too=True)
    assert gateway.get("submissionfold/1/", auth=("alice", "another")).status_code == 200
    assert gateway.get("rawdata/", auth=ALICE).status_code == 401
    assert gateway.get("rawdata/", auth=("alice", token)).status_code == 401


def test_the_longest_name_works_and_a_longer_one_is_refused_at_once(gateway: Gateway) -> None:
    """A name fits the events that say who asked, or no account and no token gets it."""
    url, longest = gateway.postgres_url, "é" * 200
    accounts.add(url, longest, "secret")
    # requests would send Latin-1 of text.
    auth = (longest.encode(), b"secret")
    raw_data_id = gateway.upload(auth=auth)
    assert gateway.post("submissionfold/", fold_body(1, 1, raw_data_id), auth=auth).status_code == 201
    with pytest.raises(InvalidAccount, match="at most 200 characters"):
        accounts.add(url, "x" * 201, "secret")
    with pytest.raises(InvalidAccount, match="at most 200 characters"):
        tokens.add(url, tokens.make(), "x" * 201, role="runner")
    assert gateway.get("rawdata/", auth=("x" * 201, "secret")).status_code == 401


def test_the_command_line_adds_lists_and_revokes(postgres_url: str, tmp_path: Path) -> None:
    """Neither a password nor the database's URL need stand on a command line."""
    password, url = tmp_path / "password", tmp_path / "url"
    password.write_text("pässwörd\n", encoding="utf-8")
    url.write_text(f"{postgres_url}\n", encoding="utf-8")

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        argv = [sys.executable, "-m", "datarun.cli", "user", *arguments]
        environment = {"PATH": "", "DATARUN_POSTGRES_URL_FILE": str(url)}
        return subprocess.run(argv, check=False, capture_output=True, text=True, timeout=60, env=environment)

    assert run("add", "ada", "--role", "organiser", "--password-file", str(password)).stdout == "added ada\n"
    [(stored,)] = query(postgres_url, "select password_hash from intake.account")
    assert accounts.verify(stored, "pässwörd")
    made = run("add", "bob").stdout.strip()
    assert len(made) >= 20
    assert run("revoke", "bob").stdout == "revoked bob\n"
    listed = run("ls").stdout
    assert [line.split()[:2] for line in listed.splitlines()[1:]] == [["ada", "organiser"], ["bob", "participant"]]
    assert made not in listed
    unknown = run("revoke", "carol")
    assert (unknown.returncode, "no account carol" in unknown.stderr) == (1, True)
    missing = run("add", "carol", "--password-file", str(tmp_path / "nothing"))
    assert (missing.returncode, "cannot be read" in missing.stderr) == (1, True)
