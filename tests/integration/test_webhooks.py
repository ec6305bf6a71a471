"""Webhooks on a real log, a real database and a real receiver: nothing is lost, nothing comes out of order."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from datarun.blobs import LocalBlobs
from datarun.events import Event, FoldFailed, FoldStarted, FoldTested, FoldTrained
from datarun.intake.deliveries import KEPT
from datarun.log.admin import create_topics
from datarun.log.kafka import KafkaLog
from datarun.topics import Catalogue
from tests.gateways import pretend_projected, query, running_gateway, wait_until
from tests.histories import cancelled, run_event
from tests.projecting import Installation
from tests.receivers import Received, Receiver, running_receiver
from tests.sites import Site, running_site

SHORT = {
    "DATARUN_WEBHOOK_NETWORKS": "127.0.0.0/8",
    "DATARUN_WEBHOOK_RETRY_SECONDS": "0.1",
    "DATARUN_WEBHOOK_LONGEST_RETRY_SECONDS": "0.4",
}
KINDS = ["FoldStarted", "FoldTrained", "FoldTested", "FoldFailed", "FoldCancelled"]


@pytest.fixture(scope="module")
def site(kafka: str, module_postgres_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Run a gateway beside a projector; webhooks may go to this machine, and are tried again soon."""
    folder = tmp_path_factory.mktemp("webhooks")
    with running_site(
        kafka, module_postgres_url, folder, "webhooks.", **SHORT, DATARUN_WEBHOOK_TIMEOUT_SECONDS="3"
    ) as running:
        yield running


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    """Run a receiver that takes everything, unless it is told otherwise."""
    with running_receiver() as running:
        yield running


@contextmanager
def lone_gateway(kafka: str, postgres_url: str, folder: Path, prefix: str, **environment: str) -> Iterator[Site]:
    """Run a gateway without a projector, with settings of its own."""
    create_topics(kafka, prefix=prefix)
    pretend_projected(postgres_url, prefix)
    blobs, log = folder / "blobs", KafkaLog(kafka)
    blobs.mkdir()
    servers = {"kafka": kafka, "postgres_url": postgres_url, "blobs_url": blobs.as_uri(), "prefix": prefix}
    try:
        with running_gateway(folder / "gateway", **servers, **environment) as gateway:
            yield Site(Installation(kafka, postgres_url, Catalogue(prefix), folder), gateway, log, LocalBlobs(blobs))
    finally:
        log.close()


@pytest.fixture(autouse=True)
def _none_left(site: Site) -> Iterator[None]:
    yield
    query(site.installation.postgres_url, "delete from intake.webhook; delete from intake.webhook_delivery")


def create(site: Site, url: str, **fields: Any) -> dict[str, Any]:
    """Create a webhook and return what was answered."""
    role = fields.pop("role", None)
    made = site.ask("POST", "webhooks", json={"url": url} | fields, role=role)
    assert made.status_code == 201, made.text
    return made.json()


def append(site: Site, *events: Event) -> None:
    """Append events, where nothing is projected."""
    site.installation.append(site.log, events)


def show(site: Site, made: dict[str, Any], **options: Any) -> dict[str, Any]:
    """Return a webhook as it is now."""
    return site.get(f"webhooks/{made['id']}", **options)


def tries(site: Site, made: dict[str, Any]) -> list[dict[str, Any]]:
    """Return what was tried of a webhook, the newest first."""
    return site.get(f"webhooks/{made['id']}/deliveries")["items"]


def test_what_happens_is_posted_signed_and_in_order(site: Site, receiver: Receiver) -> None:
    """Each event of each fold once, in the order of its fold; the body says what the stream says, with links."""
    made = create(site, receiver.url, events=KINDS)
    assert made["secret"].startswith("whsec_")
    folds = [site.fold(), site.fold()]
    for kind in (FoldStarted, FoldTrained, FoldTested):
        site.append(*[run_event(kind, fold) for fold in folds])
    got = receiver.wait(6)
    for fold in folds:
        assert [one.told["type"] for one in receiver.of_fold(fold)] == ["FoldStarted", "FoldTrained", "FoldTested"]
    assert all(one.is_signed_with(made["secret"]) for one in got)
    assert all(abs(int(one.headers["webhook-timestamp"]) - time.time()) < 60 for one in got)
    assert len({one.id for one in got}) == 6
    assert got[-1].data["links"] == {
        "fold": f"/v1/folds/{got[-1].data['fold_id']}",
        "predictions": f"/v1/folds/{got[-1].data['fold_id']}/predictions/test",
    }
    assert {"attempt", "delivery", "submission_id", "raw_data_id", "runner_id", "position", "at"} <= got[-1].data.keys()
    wait_until(lambda: len(tries(site, made)) == 6)
    assert len(receiver.got) == 6
    assert {(one["delivered"], one["status"], one["attempt"]) for one in tries(site, made)} == {(True, 204, 1)}
    seen = show(site, made)
    assert (seen["state"], seen["attempts"], seen["reason"]) == ("active", 0, None)
    assert "secret" not in seen


def test_a_message_is_tried_until_it_is_taken(site: Site, receiver: Receiver) -> None:
    """After an error, a cut connection, a silence, a redirect, a long answer: with the same id, nothing before it."""
    silent = threading.Event()
    answers: Iterator[Any] = iter(
        [500, None, "silence", (302, {"Location": "/elsewhere"}, b""), (503, {}, b"x" * 10**6)]
    )

    def answer(_: Received) -> Any:
        said = next(answers, 200)
        if said == "silence":
            silent.wait(20)
            return None
        return said

    receiver.answer = answer
    made = create(site, receiver.url)
    first, second = site.fold(), site.fold()
    site.append(run_event(FoldTested, first))
    receiver.wait(1)
    site.append(run_event(FoldFailed, second))
    wait_until(lambda: show(site, made)["state"] == "failing")
    got = receiver.wait(7)
    silent.set()
    assert [one.data["fold_id"] for one in got] == [first] * 6 + [second]
    assert len({one.id for one in got[:6]}) == 1
    assert len({one.body for one in got[:6]}) == 1
    assert {one.path for one in got} == {"/hook"}
    wait_until(lambda: len(tries(site, made)) == 7)
    assert show(site, made)["state"] == "active"
    told = list(reversed(tries(site, made)))
    assert [one["status"] for one in told] == [500, None, None, 302, 503, 200, 200]
    assert [one["attempt"] for one in told] == [1, 2, 3, 4, 5, 6, 1]
    assert [one["error"] for one in told[:3]] == [
        "It answered 500.",
        "It closed the connection.",
        "It did not answer in time.",
    ]
    assert all(one["next_try_at"] for one in told[:5])


def test_a_slow_receiver_delays_nobody_else(site: Site, receiver: Receiver) -> None:
    """One that never answers holds its own messages alone."""
    held = threading.Event()
    with running_receiver(lambda _: held.wait(30) and None) as slow:
        create(site, slow.url)
        create(site, receiver.url)
        folds = [site.fold() for _ in range(5)]
        site.append(*[run_event(FoldTested, fold) for fold in folds])
        receiver.wait(5)
        assert len({one.id for one in slow.got}) == 1
        held.set()


def test_conditions_narrow_what_is_told(site: Site, receiver: Receiver) -> None:
    """Kinds, a dataset, a submission, a fold."""
    dataset = site.dataset()
    one, other, foreign = site.fold(dataset), site.fold(dataset), site.fold()
    # What is written of folds by hand says submission fold % 3 + 1 and dataset 1.
    with running_receiver() as by_fold, running_receiver() as by_submission, running_receiver() as by_dataset:
        create(site, receiver.url)
        create(site, by_fold.url, fold_id=other)
        create(site, by_submission.url, submission_id=one % 3 + 1)
        create(site, by_dataset.url, dataset_id=2)
        site.append(*[run_event(kind, fold) for fold in (one, other, foreign) for kind in (FoldStarted, FoldTested)])
        site.append(run_event(FoldTested, foreign).model_copy(update={"attempt": 2, "raw_data_id": 2}))
        receiver.wait(4)
        by_dataset.wait(1)
        wait_until(lambda: by_fold.got and by_submission.got)
        assert {received.told["type"] for received in receiver.got} == {"FoldTested"}
        assert [received.data["fold_id"] for received in by_fold.got] == [other]
        assert {received.data["submission_id"] for received in by_submission.got} == {one % 3 + 1}
        assert [received.data["attempt"] for received in by_dataset.got] == [2]


def test_a_webhook_may_begin_at_the_beginning(site: Site, receiver: Receiver) -> None:
    """All that ever happened comes, the newest at the end; and once more when it is told to begin anew."""
    fold = site.fold()
    site.append(run_event(FoldTested, fold), cancelled(fold, attempt=2))
    made = create(site, receiver.url, start="beginning", fold_id=fold)
    assert [one.told["type"] for one in receiver.wait(2)] == ["FoldTested", "FoldCancelled"]
    wait_until(lambda: len(tries(site, made)) == 2)
    assert site.ask("PATCH", f"webhooks/{made['id']}", json={"start": "beginning"}).status_code == 200
    again = receiver.wait(4)
    assert [one.id for one in again[:2]] == [one.id for one in again[2:]]


def test_who_never_takes_anything_is_given_up_and_can_go_on(
    kafka: str, postgres_url: str, tmp_path: Path, receiver: Receiver
) -> None:
    """After the bound it is disabled with the reason, its last tries are kept, and enabled it lacks nothing."""
    settings = {**SHORT, "DATARUN_WEBHOOK_GIVE_UP_SECONDS": "1.5"}
    with lone_gateway(kafka, postgres_url, tmp_path, "hooksup.", **settings) as site:
        receiver.answer = lambda _: 500
        made = create(site, receiver.url)
        folds = [site.fold(), site.fold()]
        append(site, *[run_event(FoldTested, fold) for fold in folds])
        wait_until(lambda: show(site, made)["state"] == "disabled", seconds=30)
        told = show(site, made)
        assert told["reason"] == "It took nothing for too long. It answered 500."
        assert (told["next_try_at"], tries(site, made)[0]["next_try_at"]) == (None, None)
        assert told["attempts"] == len(receiver.got)
        assert len({one.id for one in receiver.got}) == 1
        count = len(receiver.got)
        receiver.answer = lambda _: 200
        assert site.ask("PATCH", f"webhooks/{made['id']}", json={"enabled": True}).json()["state"] == "active"
        later = receiver.wait(count + 2)[count:]
        assert {one.data["fold_id"] for one in later} == set(folds)
        assert later[0].id == receiver.got[0].id
        receiver.answer = lambda _: 410
        append(site, run_event(FoldTested, site.fold()))
        wait_until(lambda: show(site, made)["state"] == "disabled")
        assert show(site, made)["reason"] == "It answered 410: it is gone."
        _not_sent_again(site, receiver, made)


def _not_sent_again(site: Site, receiver: Receiver, made: dict[str, Any]) -> None:
    """Another webhook gets what the disabled one does not."""
    count = len(receiver.got)
    with running_receiver() as other:
        create(site, other.url)
        append(site, run_event(FoldFailed, site.fold()))
        other.wait(1)
    assert len(receiver.got) == count
    assert tries(site, made)[0]["status"] == 410


def test_a_ping_says_at_once_whether_it_works(site: Site, receiver: Receiver) -> None:
    """It is signed like everything; what it came to is answered and kept."""
    made = create(site, receiver.url)
    told = site.ask("POST", f"webhooks/{made['id']}/ping").json()
    assert (told["delivered"], told["status"], told["event"], told["cause"]) == (True, 204, "ping", "ping")
    [got] = receiver.got
    assert (got.told["type"], got.id, got.is_signed_with(made["secret"])) == ("ping", told["message_id"], True)
    receiver.answer = lambda _: 404
    told = site.ask("POST", f"webhooks/{made['id']}/ping").json()
    assert (told["delivered"], told["error"]) == (False, "It answered 404.")
    assert [one["delivered"] for one in tries(site, made)] == [False, True]
    assert show(site, made)["state"] == "active"


def test_a_message_can_be_had_once_more(site: Site, receiver: Receiver) -> None:
    """With its id and its bytes, and a timestamp and signature of now."""
    made = create(site, receiver.url)
    site.append(run_event(FoldTested, site.fold()))
    [first] = receiver.wait(1)
    wait_until(lambda: tries(site, made))
    [known] = tries(site, made)
    told = site.ask("POST", f"webhooks/{made['id']}/deliveries/{known['id']}/redeliver").json()
    assert (told["delivered"], told["cause"], told["attempt"]) == (True, "redelivery", 2)
    again = receiver.wait(2)[1]
    assert (again.id, again.body) == (first.id, first.body)
    assert again.is_signed_with(made["secret"])
    other = create(site, receiver.url)
    assert site.ask("POST", f"webhooks/{other['id']}/deliveries/{known['id']}/redeliver").status_code == 404


def test_a_secret_is_shown_once_and_can_be_changed(site: Site, receiver: Receiver) -> None:
    """Both hold for a day; no other answer, no log and no kept first answer has one."""
    made = site.ask("POST", "webhooks", json={"url": receiver.url}, headers={"Idempotency-Key": "hook"})
    again = site.ask("POST", "webhooks", json={"url": receiver.url}, headers={"Idempotency-Key": "hook"})
    assert (again.status_code, again.json()["id"], again.json()["secret"]) == (201, made.json()["id"], None)
    assert again.headers["Idempotency-Replayed"] == "true"
    secret, number = made.json()["secret"], made.json()["id"]
    rotated = site.ask("POST", f"webhooks/{number}/rotate").json()
    assert rotated["secret"] not in (None, secret)
    site.append(run_event(FoldTested, site.fold()))
    [got] = receiver.wait(1)
    assert got.is_signed_with(rotated["secret"])
    assert got.is_signed_with(secret)
    query(site.installation.postgres_url, "update intake.webhook set old_secret_until = now()")
    site.ask("POST", f"webhooks/{number}/ping")
    assert not receiver.got[-1].is_signed_with(secret)
    told = [site.ask("GET", path).text for path in ("webhooks", f"webhooks/{number}", f"webhooks/{number}/deliveries")]
    told += [str(row) for row in query(site.installation.postgres_url, "select body from intake.answered")]
    told.append(site.gateway.log.read_text())
    assert not [text for text in told for one in (secret, rotated["secret"]) if one.removeprefix("whsec_") in text]


def test_participants_are_told_of_their_own_work_alone(site: Site, receiver: Receiver) -> None:
    """Their webhooks too are their own; an admin sees all of them, an organiser theirs."""
    made = create(site, receiver.url, role="participant")
    organisers = create(site, receiver.url.replace("hook", "organiser"), role="organiser")
    own, other = site.fold(), site.fold()
    site.give_to("participant", own)
    site.append(run_event(FoldTested, other), run_event(FoldTested, own))
    receiver.wait(3)
    assert [one.data["fold_id"] for one in receiver.got if one.path == "/hook"] == [own]
    listed = {
        role: [one["id"] for one in site.get("webhooks", role=role)["items"]] for role in ("participant", "organiser")
    }
    assert listed == {"participant": [made["id"]], "organiser": [organisers["id"]]}
    assert [one["id"] for one in site.get("webhooks")["items"]] == [made["id"], organisers["id"]]
    number = organisers["id"]
    for method, path in (
        ("GET", ""), ("PATCH", ""), ("DELETE", ""), ("POST", "/ping"), ("POST", "/rotate"), ("GET", "/deliveries"),
        ("POST", "/deliveries/1/redeliver"),
    ):  # fmt: skip
        options: dict[str, Any] = {"json": {}} if method == "PATCH" else {}
        assert site.ask(method, f"webhooks/{number}{path}", role="participant", **options).status_code == 404
    assert site.ask("GET", "webhooks", role="runner").status_code == 403
    assert site.ask("DELETE", f"webhooks/{made['id']}", role="participant").status_code == 204
    assert site.ask("GET", f"webhooks/{made['id']}").status_code == 404


def test_a_revoked_account_is_told_nothing_more(site: Site, receiver: Receiver) -> None:
    """Its webhooks are disabled with the reason."""
    made = create(site, receiver.url, role="organiser")
    site.append(run_event(FoldTested, site.fold()))
    receiver.wait(1)
    try:
        query(site.installation.postgres_url, "update intake.token set revoked_at = now() where username = 'organiser'")
        wait_until(lambda: show(site, made)["state"] == "disabled")
    finally:
        query(site.installation.postgres_url, "update intake.token set revoked_at = null where username = 'organiser'")
    assert show(site, made)["reason"] == "Its account is gone."


def test_a_webhook_can_be_stopped_and_changed(site: Site, receiver: Receiver) -> None:
    """Disabled it is told nothing; enabled it gets what came meanwhile, or from now on, by its new conditions."""
    made = create(site, receiver.url)
    path = f"webhooks/{made['id']}"
    told = site.ask("PATCH", path, json={"enabled": False}).json()
    assert (told["state"], told["reason"]) == ("disabled", "Disabled by ada.")
    missed = site.fold()
    site.append(run_event(FoldStarted, missed), run_event(FoldTested, missed))
    changed = site.ask(
        "PATCH", path, json={"url": f"{receiver.url}/two?x=1", "events": ["FoldStarted"], "enabled": True}
    )
    assert changed.json()["url"].endswith("/hook/two?x=1")
    [got] = receiver.wait(1)
    assert (got.path, got.told["type"], got.data["fold_id"]) == ("/hook/two?x=1", "FoldStarted", missed)
    site.ask("PATCH", path, json={"enabled": False})
    left_out, later = site.fold(), site.fold()
    site.append(run_event(FoldStarted, left_out))
    site.ask("PATCH", path, json={"enabled": True, "start": "now"})
    site.append(run_event(FoldStarted, later))
    assert receiver.wait(2)[1].data["fold_id"] == later


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1@10.0.0.1/", "http://10.0.0.1/", "http://169.254.169.254/latest", "https://[::1]/",
        "http://[::ffff:10.0.0.1]/", "ftp://example.org/", "http://127.1/", "http://2130706433/", "http://0x7f.0.0.0x1",
    ],
)  # fmt: skip
def test_addresses_inside_are_refused_at_once(site: Site, url: str) -> None:
    """400 with the place of the mistake, when the address stands in the URL itself."""
    refused = site.ask("POST", "webhooks", json={"url": url})
    assert (refused.status_code, refused.json()["errors"][0]["pointer"]) == (400, "/url")
    assert url not in refused.text


def test_names_that_mean_an_address_inside_are_refused_when_they_are_called(
    kafka: str, postgres_url: str, tmp_path: Path, receiver: Receiver
) -> None:
    """By hand and by themselves; no connection is made."""
    refusal = "Its address is not one that webhooks may be sent to."
    with lone_gateway(kafka, postgres_url, tmp_path, "hookssr.") as site:
        assert site.ask("POST", "webhooks", json={"url": receiver.url}).status_code == 400
        made = create(site, receiver.url.replace("127.0.0.1", "localhost"))
        told = site.ask("POST", f"webhooks/{made['id']}/ping").json()
        assert (told["delivered"], told["status"], told["error"]) == (False, None, refusal)
        append(site, run_event(FoldTested, site.fold()))
        wait_until(lambda: show(site, made)["state"] == "failing")
        assert show(site, made)["reason"] == refusal
    assert receiver.got == []


def test_an_account_has_so_many_webhooks(site: Site, receiver: Receiver) -> None:
    """The twenty-first is refused, whoever else has some."""
    for _ in range(20):
        create(site, receiver.url, role="participant")
    refused = site.ask("POST", "webhooks", json={"url": receiver.url}, role="participant")
    assert (refused.status_code, refused.json()["detail"]) == (409, "An account has 20 webhooks at the most.")
    create(site, receiver.url, role="organiser")


def test_what_is_kept_of_deliveries_is_bounded(site: Site, receiver: Receiver) -> None:
    """The newest hundred tries, of each webhook for itself."""
    made, other = create(site, receiver.url), create(site, receiver.url)
    site.ask("POST", f"webhooks/{other['id']}/ping")
    query(
        site.installation.postgres_url,
        """insert into intake.webhook_delivery (webhook_id, message_id, kind, body, cause, attempt, seconds)
        select %s, 'old', 'ping', '{}', 'ping', 1, 0 from generate_series(1, %s)""",
        made["id"],
        KEPT + 50,
    )
    site.ask("POST", f"webhooks/{made['id']}/ping")
    found = query(site.installation.postgres_url, "select webhook_id, count(*) from intake.webhook_delivery group by 1")
    assert sorted(found) == [(made["id"], KEPT), (other["id"], 1)]
    assert tries(site, made)[0]["message_id"] != "old"
    assert site.ask("DELETE", f"webhooks/{made['id']}").status_code == 204
    assert query(site.installation.postgres_url, "select distinct webhook_id from intake.webhook_delivery") == [
        (other["id"],)
    ]


@pytest.mark.parametrize("crash_at", ["webhook.before_post:3", "webhook.after_post:3", "held"])
def test_a_killed_gateway_loses_nothing(
    kafka: str, postgres_url: str, tmp_path: Path, topic_prefix: str, receiver: Receiver, crash_at: str
) -> None:
    """Before a message is posted, after, and while the receiver still has it: the next gateway goes on in order.

    What may have been taken comes once more with the same id; nothing else does.
    """
    held = threading.Event()
    with lone_gateway(kafka, postgres_url, tmp_path, topic_prefix, **SHORT, DATARUN_CRASH_AT=crash_at) as site:
        made = create(site, receiver.url, events=KINDS)
        fold = site.fold()
        if crash_at == "held":
            receiver.answer = lambda _: (held.wait(20) and 200) if len(receiver.got) == 3 else 200
        names = (FoldStarted, FoldTrained, FoldTested)
        append(site, *[run_event(kind, fold, attempt=attempt) for attempt in (1, 2) for kind in names])
        if crash_at == "held":
            receiver.wait(3)
            site.gateway.kill()
        site.gateway.process.wait(30)
        held.set()
        restarted = {"kafka": kafka, "postgres_url": postgres_url, "blobs_url": (tmp_path / "blobs").as_uri()}
        with running_gateway(tmp_path / "second", prefix=topic_prefix, **restarted, **SHORT) as second:
            site.gateway = second
            doubled = 0 if crash_at.startswith("webhook.before") else 1
            got = receiver.wait(6 + doubled)
            wait_until(lambda: len(tries(site, made)) >= 6)
            assert len(receiver.got) == 6 + doubled
        order = list(dict.fromkeys(one.id for one in got))
        assert [(one["attempt"], one["type"]) for one in _told(got, order)] == [
            (attempt, kind.__name__) for attempt in (1, 2) for kind in names
        ]
        ids = [one.id for one in got]
        assert ids == (order[:3] + order[2:] if doubled else order)


def _told(got: list[Received], order: list[str]) -> list[dict[str, Any]]:
    first = {one.id: one for one in reversed(got)}
    return [{"attempt": first[key].data["attempt"], "type": first[key].told["type"]} for key in order]


def test_two_gateways_send_everything_once(
    kafka: str, postgres_url: str, tmp_path: Path, topic_prefix: str, receiver: Receiver
) -> None:
    """While both work, and when the one that sends is stopped in order amid it: the other goes on, without a double."""
    receiver.answer = lambda _: time.sleep(0.05) or 200
    servers = {"kafka": kafka, "postgres_url": postgres_url, "blobs_url": (tmp_path / "blobs").as_uri()}
    folds = list(range(1, 41))
    with lone_gateway(kafka, postgres_url, tmp_path, topic_prefix, **SHORT) as site:
        create(site, receiver.url)
        with running_gateway(tmp_path / "second", prefix=topic_prefix, **servers, **SHORT) as second:
            append(site, *[run_event(FoldTested, fold) for fold in folds[:10]])
            receiver.wait(10)
            [(first,)] = query(postgres_url, "select owner from intake.office")
            append(site, *[run_event(FoldTested, fold) for fold in folds[10:]])
            receiver.wait(15)
            site.gateway.process.terminate()
            assert site.gateway.process.wait(15) == 0
            assert len(receiver.got) < len(folds)
            receiver.wait(len(folds))
            assert query(postgres_url, "select owner from intake.office") != [(first,)]
            site.gateway = second
            wait_until(lambda: len(site.get("webhooks/1/deliveries")["items"]) == len(folds))
    assert sorted(one.data["fold_id"] for one in receiver.got) == folds


def test_metrics_tell_of_webhooks(site: Site, receiver: Receiver) -> None:
    """How many there are in which state, what was tried, and how far the furthest is behind."""
    from tests.integration.test_metrics import read

    receiver.answer = lambda _: 500
    create(site, receiver.url)
    disabled = create(site, receiver.url)
    site.ask("PATCH", f"webhooks/{disabled['id']}", json={"enabled": False})
    site.append(run_event(FoldTested, site.fold()))
    wait_until(lambda: read(site).get(("datarun_webhooks", "failing")) == 1)
    found = read(site)
    assert (found["datarun_webhooks", "disabled"], found["datarun_webhooks", "active"]) == (1, 0)
    assert found["datarun_webhook_tries_total", "failed"] >= 1
    assert found["datarun_webhook_behind_records",] >= 1
    receiver.answer = lambda _: 200
    wait_until(lambda: read(site)["datarun_webhook_behind_records",] == 0)
    assert read(site)["datarun_webhook_tries_total", "delivered"] >= 1
