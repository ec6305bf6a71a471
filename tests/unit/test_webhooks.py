"""The pure parts of webhooks: addresses, signatures, pauses, and who is told what."""

from __future__ import annotations

import base64
import re
import time
from dataclasses import replace
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from datarun.errors import DatarunError
from datarun.events import FoldFailed, FoldFenced, FoldTested, PredictionsFetched
from datarun.settings import WebhookSettings, webhook_settings
from services.ingest.v1.webhooks import signing
from services.ingest.v1.webhooks.addresses import is_allowed
from services.ingest.v1.webhooks.models import ChangedWebhook
from services.ingest.v1.webhooks.notices import KINDS, notice, wants
from services.ingest.v1.webhooks.retrying import pause
from tests.histories import CATALOGUE, Log, run_event

DOCUMENT = Path(__file__).parents[2] / "docs" / "webhooks.md"


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "127.8.9.1", "0.0.0.1", "10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.1.1", "100.64.0.1",
        "169.254.169.254", "169.254.0.1", "100.100.100.200", "168.63.129.16", "192.0.0.192", "198.18.0.1", "224.0.0.1",
        "239.255.255.250", "255.255.255.255", "240.0.0.1", "192.0.2.1", "::", "::1", "fe80::1", "fe80::1%eth0",
        "fc00::1", "fd00:ec2::254", "fec0::1", "ff02::1", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "::127.0.0.1",
        "64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe", "2002:7f00:1::", "2002:a9fe:a9fe::1", "2001:db8::1",
        "2001:0:7f00:1::", "::ffff:169.254.169.254",
    ],
)  # fmt: skip
def test_addresses_that_are_not_public_are_refused(address: str) -> None:
    """However they are written."""
    assert not is_allowed(address, ())


@pytest.mark.parametrize("address", ["93.184.216.34", "8.8.8.8", "2606:4700::1111", "64:ff9b::808:808"])
def test_public_addresses_are_allowed(address: str) -> None:
    """Those that are translated on their way too."""
    assert is_allowed(address, ())


def test_networks_can_be_named() -> None:
    """What is in them is allowed, in an IPv6 coat too, and nothing beside."""
    networks = (ip_network("10.1.0.0/16"), ip_network("::1/128"))
    assert is_allowed("10.1.2.3", networks)
    assert is_allowed("::ffff:10.1.2.3", networks)
    assert is_allowed("::1", networks)
    assert not is_allowed("10.2.0.1", networks)
    assert not is_allowed("127.0.0.1", networks)


def test_networks_are_read_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """A list with commas; what is no network is said."""
    monkeypatch.setenv("DATARUN_WEBHOOK_NETWORKS", "10.0.0.0/8, ::1/128")
    assert webhook_settings().networks == (ip_network("10.0.0.0/8"), ip_network("::1/128"))
    monkeypatch.setenv("DATARUN_WEBHOOK_NETWORKS", "10.0.0.1/8")
    with pytest.raises(DatarunError, match="DATARUN_WEBHOOK_NETWORKS"):
        webhook_settings()


@pytest.mark.parametrize(
    "url",
    [
        "ftp://example.org/x", "file:///etc/passwd", "//example.org", "example.org", "http://", "http:///x",
        "http://user:secret@example.org/", "http://user@example.org", "http://exa mple.org/", "http://example.org:x/",
        "http://example.org:99999/", "http://example.org/#a", "http://example.org\\@10.0.0.1/", "http://example.org\r\n/",
        "http://[::1/", "http://éxample.org/", "gopher://example.org/", "http://example.org/" + "x" * 2000,
    ],
)  # fmt: skip
def test_what_is_no_receiver_is_refused_unsaid(url: str) -> None:
    """Other schemes, credentials, what parsers read in two ways; and the refusal does not repeat it."""
    with pytest.raises(ValidationError) as refused:
        ChangedWebhook(url=url)
    assert "secret" not in str(refused.value.errors(include_url=False, include_input=False, include_context=False))


def test_a_signature_is_that_of_the_specification() -> None:
    """The example of Standard Webhooks."""
    told = signing.headers(
        [base64.b64decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")],
        message_id="msg_p5jXN8AQM9LWM0D4loKWxJek",
        timestamp=1614265330,
        body=b'{"test": 2432232314}',
    )
    assert told["webhook-signature"] == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_both_secrets_sign_while_both_hold() -> None:
    """The newest first."""
    told = signing.headers([b"new", b"old"], message_id="1", timestamp=2, body=b"{}")
    alone = [signing.headers([key], message_id="1", timestamp=2, body=b"{}") for key in (b"new", b"old")]
    assert told["webhook-signature"] == " ".join(one["webhook-signature"] for one in alone)


@given(st.integers(1, 10_000), st.floats(0, 1), st.none() | st.floats(0, 1e9))
def test_pauses_are_bounded(attempt: int, chance: float, asked: float | None) -> None:
    """Never longer than the longest, whatever the receiver asks for, never shorter than half of what is due."""
    settings = WebhookSettings(retry_seconds=5, longest_retry_seconds=3600)
    seconds = pause(settings, attempt=attempt, chance=chance, asked=asked)
    assert 2.5 <= seconds <= 3600
    if attempt < 9:
        assert seconds >= 2.5 * 2 ** (attempt - 1)


def test_pauses_double() -> None:
    """From a few seconds to an hour."""
    settings = WebhookSettings()
    assert [round(pause(settings, attempt=number, chance=1.0)) for number in (1, 2, 3, 10, 11, 50)] == [
        5, 10, 20, 2560, 3600, 3600,
    ]  # fmt: skip


def test_a_notice_says_no_more_than_the_stream() -> None:
    """Numbers, names and links: nothing that the submission said, no predictions."""
    log = Log()
    told = notice(log.append(run_event(FoldFailed, 7)), CATALOGUE)
    assert told is not None
    body = told.message.body.decode()
    assert '"type":"FoldFailed"' in body
    assert '"fold":"/v1/folds/7"' in body
    assert "it broke" not in body
    tested = notice(log.append(run_event(FoldTested, 7, mark=3)), CATALOGUE)
    assert tested is not None
    assert "/v1/folds/7/predictions/test" in tested.message.body.decode()
    assert f"{3:064x}" not in tested.message.body.decode()


def test_the_same_fact_has_the_same_id_and_body_length() -> None:
    """However often the log has it; other facts have others."""
    log = Log()
    ids = [
        notice(log.append(run_event(kind, 7)), CATALOGUE).message.id for kind in (FoldTested, FoldTested, FoldFailed)
    ]
    assert ids[0] == ids[1] != ids[2]


def test_what_does_not_say_whose_it_is_cannot_be_asked_for() -> None:
    """Fetches and fences."""
    assert not {PredictionsFetched.__name__, FoldFenced.__name__} & set(KINDS)
    assert {"FoldStarted", "FoldTrained", "FoldTested", "FoldFailed", "FoldCancelled", "FoldLost"} <= set(KINDS)


def test_conditions_hold_together(stored_webhook) -> None:
    """Kind, dataset, submission, fold; and a participant's owner."""
    told = notice(Log().append(run_event(FoldTested, 7)), CATALOGUE)
    assert told is not None
    hook = stored_webhook

    def is_told(role: str | None = "organiser", owner: str | None = None, **wanted: object) -> bool:
        return wants(replace(hook, wanted=replace(hook.wanted, **wanted)), role, replace(told, owner=owner))

    assert is_told()
    assert is_told(fold_id=7, raw_data_id=1, submission_id=2)
    assert not is_told(fold_id=8)
    assert not is_told(raw_data_id=2)
    assert not is_told(submission_id=1)
    assert not is_told(kinds=("FoldFailed",))
    assert not is_told(role=None)
    assert not is_told(role="participant")
    assert not is_told(role="participant", owner="another")
    assert is_told(role="participant", owner="ada")


@pytest.fixture
def stored_webhook():
    """Return a webhook of ada's that wants FoldTested."""
    from datetime import UTC, datetime

    from datarun.intake.webhooks import Wanted, Webhook

    return Webhook(
        webhook_id=1,
        username="ada",
        url="https://example.org/",
        description="",
        wanted=Wanted(("FoldTested",)),
        secrets=[b"x"],
        offsets=[0] * 12,
        generation=1,
        attempts=0,
        failing_since=None,
        next_try_at=None,
        pause_seconds=0,
        last_error=None,
        delivered_at=None,
        disabled_at=None,
        disabled_reason=None,
        created_at=datetime(2026, 1, 1, tzinfo=UTC),
    )


def test_the_documented_check_accepts_what_is_sent_and_nothing_else() -> None:
    """The Python of docs/webhooks.md, as it stands there."""
    [code] = re.findall(r"```python\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)
    known: dict[str, Any] = {}
    exec(code, known)  # noqa: S102 - our own document
    keys, body, now = [signing.make_secret(), signing.make_secret()], b'{"type": "ping"}', int(time.time())
    for signing_keys in (keys, keys[:1], keys[1:]):
        headers = dict(signing.headers(signing_keys, message_id="1", timestamp=now, body=body))
        for key in keys:
            assert known["is_genuine"](signing.shown(key), headers, body) == (key in signing_keys)
        assert not known["is_genuine"](signing.shown(signing_keys[0]), headers, body + b" ")
        assert not known["is_genuine"](signing.shown(signing_keys[0]), headers | {"webhook-id": "2"}, body)
    old = dict(signing.headers(keys, message_id="1", timestamp=now - 600, body=body))
    assert not known["is_genuine"](signing.shown(keys[0]), old, body)
