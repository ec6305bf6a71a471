"""Tokens at a real gateway: who is let in, where, and for how long."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from datarun import accounts, tokens
from datarun.accounts import InvalidAccount
from datarun.log.admin import create_topics
from datarun.tokens import UnknownToken
from tests.gateways import Gateway, pretend_projected, query, running_gateway, wait_until


def _status(gateway: Gateway, token: str, path: str = "rawdata/") -> int:
    headers = {"Authorization": f"Bearer {token}"}
    return gateway.get(path, auth=None, headers=headers).status_code


def test_a_token_opens_what_its_role_may_until_it_is_revoked(
    kafka: str, postgres_url: str, topic_prefix: str, blobs_url: str, tmp_path: Path
) -> None:
    """A person's token is as good as their password; a runner's opens nothing of people's; a revoked one nothing."""
    create_topics(kafka, prefix=topic_prefix)
    pretend_projected(postgres_url, topic_prefix)
    with running_gateway(
        tmp_path, kafka=kafka, postgres_url=postgres_url, blobs_url=blobs_url, prefix=topic_prefix
    ) as gateway:
        person, runner, late = tokens.make(), tokens.make(), tokens.make()
        tokens.add(postgres_url, person, "ada")
        tokens.add(postgres_url, runner, "runner-1", role="runner")
        tokens.add(postgres_url, late, "ada", days=1)
        query(postgres_url, "update intake.token set expires_at = now() where expires_at is not null")
        assert [_status(gateway, token) for token in (person, runner, late, tokens.make())] == [200, 403, 401, 401]
        assert gateway.get("rawdata/", auth=("ada", person)).status_code == 200
        tokens.revoke(postgres_url, person)
        wait_until(lambda: _status(gateway, person) == 401)


def test_tokens_are_stored_as_digests_and_told_apart(postgres_url: str) -> None:
    """The table cannot give a token away; the role is the account's; a prefix must name exactly one."""
    accounts.add(postgres_url, "ada", "secret", "organiser")
    made = [tokens.make(), tokens.make()]
    for token in made:
        tokens.add(postgres_url, token, "ada")
    with pytest.raises(InvalidAccount, match="is organiser"):
        tokens.add(postgres_url, tokens.make(), "ada", role="admin")
    with pytest.raises(InvalidAccount, match="there is no account"):
        tokens.add(postgres_url, tokens.make(), "bob")
    stored = query(postgres_url, "select token::text from intake.token")
    assert not any(token.removeprefix("dr_")[10:] in row for (row,) in stored for token in made)
    for wrong in ("dr_", "nothing"):
        with pytest.raises(UnknownToken):
            tokens.revoke(postgres_url, wrong)
    assert [known.revoked_at for known in tokens.ls(postgres_url)] == [None, None]


def test_the_command_line_makes_lists_and_revokes(postgres_url: str) -> None:
    """What `token add` prints is the token; `ls` shows its beginning only, and whether it is revoked."""

    def run(*arguments: str) -> str:
        argv = [sys.executable, "-m", "datarun.cli", "token", *arguments, "--postgres", postgres_url]
        return subprocess.run(argv, check=True, capture_output=True, text=True, timeout=60).stdout

    token = run("add", "runner-1", "--role", "runner").strip()
    listed = run("ls")
    assert token[: tokens.SHOWN_CHARACTERS] in listed
    assert token not in listed
    run("revoke", token[: tokens.SHOWN_CHARACTERS])
    assert "revoked" in run("ls")
