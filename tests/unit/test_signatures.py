"""Who wrote an event: what is signed by who may passes, whatever else comes in is forged; without keys nobody asks."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from datarun import envelope
from datarun.errors import DatarunError, Forged
from datarun.events import FoldTested
from datarun.log import Record, StoredRecord
from datarun.projection.at_home import at_home
from datarun.signatures import SIGNATURE, Key, Signatures
from datarun.signing_keys import ROLES, load_keys, new_file
from datarun.topics import Catalogue
from tests.histories import requested, run_event

CONTEXT = envelope.Context(source="test", time=envelope.now())
NOW_MS = 2_000_000
RUNNER = Key(b"r" * 32, frozenset({"FoldTested"}))
PRODUCER = Key(b"p" * 32, frozenset({"FoldRequested"}))
OLD = replace(RUNNER, secret=b"o" * 32, until_ms=1_500_000)
KEYS = Signatures({"runner": RUNNER, "producer": PRODUCER, "old": OLD}, since_ms=1_000_000, signs_as="runner")
CATALOGUE = Catalogue("t.", KEYS)
TESTED = run_event(FoldTested, 11)


def signed(by: str | None, *, keys: Signatures = KEYS) -> Record:
    """Return a result's record, signed by somebody or by nobody."""
    catalogue = Catalogue("t.", replace(keys, signs_as=by) if by else None)
    return envelope.encode(TESTED, catalogue=catalogue, context=CONTEXT)


def stored(record: Record, *, at_ms: int = NOW_MS) -> StoredRecord:
    """Return a record as the log has it."""
    partition = envelope.partition_of(record.key, 12)
    return StoredRecord(record.topic, partition, 0, record.key, record.value, record.headers, at_ms)


def header(record: Record, name: str, value: bytes) -> Record:
    """Return a record with another header in the place of one of its own."""
    return replace(record, headers=tuple((given, value if given == name else own) for given, own in record.headers))


def assert_passes(record: StoredRecord) -> None:
    """Both ways to read it let it pass."""
    envelope.check_route(TESTED, record, catalogue=CATALOGUE)
    assert at_home(CATALOGUE)([record]) != [None]


def test_what_is_signed_by_who_may_write_it_passes() -> None:
    """In any topic with its key, also with headers that say where it has been."""
    record = signed("runner")
    assert_passes(stored(record))
    assert_passes(stored(replace(record, headers=(*record.headers, ("datarun-requeued", b"0:1")))))


def test_what_is_from_before_signatures_or_before_the_end_of_a_key_passes() -> None:
    """By the broker's clock, which no writer sets."""
    assert_passes(stored(signed(None), at_ms=999_999))
    assert_passes(stored(signed("old"), at_ms=1_499_999))


SPOILED: dict[str, tuple[str | None, Callable[[Record], Record], str]] = {
    "nobody": (None, lambda record: record, "not signed"),
    "an empty signature": ("runner", lambda record: header(record, SIGNATURE, b""), "not signed"),
    "a stranger": ("runner", lambda record: header(record, SIGNATURE, b"me:00"), "not known here: 'me'"),
    "bytes": ("runner", lambda record: header(record, SIGNATURE, b"runner:\xff\xfe"), "not that of runner"),
    "no colon": ("runner", lambda record: header(record, SIGNATURE, b"runner"), "not known here: ''"),
    "another value": (
        "runner",
        lambda record: replace(record, value=record.value.replace(b"11", b"12")),
        "not that of",
    ),
    "another id": ("runner", lambda record: header(record, "ce_id", b"x"), "not that of runner"),
    "another type": (
        "runner",
        lambda record: header(record, "ce_type", b"datarun.FoldFailed.v1"),
        "not that of runner",
    ),
    "another source": ("runner", lambda record: header(record, "ce_source", b"x"), "not that of runner"),
    "another time": ("runner", lambda record: header(record, "ce_time", b"x"), "not that of runner"),
    "who may not": ("producer", lambda record: record, "producer may not write FoldTested"),
    "who may not any more": ("old", lambda record: record, "the key old is not in use any more"),
}


@pytest.mark.parametrize("case", SPOILED)
def test_whatever_else_comes_in_is_forged(case: str) -> None:
    """Nobody, a stranger, one changed byte, one who may write other events, a key that has ended."""
    by, spoil, reason = SPOILED[case]
    record = stored(spoil(signed(by)))
    with pytest.raises(Forged, match=reason):
        envelope.check_route(TESTED, record, catalogue=CATALOGUE)
    assert at_home(CATALOGUE)([record]) == [None]


def test_a_signature_is_of_its_record_alone() -> None:
    """Taken from one record, it does not fit another whose bytes are the same in a row."""
    one = KEYS.sign(b"1", b"23", ())
    assert one != KEYS.sign(b"12", b"3", ())
    assert one == KEYS.sign(b"1", b"23", [("traceparent", b"x")])


def test_without_keys_nobody_signs_and_nobody_asks() -> None:
    """As before there were signatures."""
    plain = Catalogue("t.")
    record = stored(signed(None))
    assert SIGNATURE not in dict(record.headers)
    envelope.check_route(TESTED, record, catalogue=plain)
    assert at_home(plain)([record]) != [None]


def test_a_process_that_can_only_check_does_not_write() -> None:
    """It says what it lacks."""
    with pytest.raises(DatarunError, match="DATARUN_SIGNING_AS"):
        envelope.encode(requested(1), catalogue=Catalogue("t.", replace(KEYS, signs_as=None)), context=CONTEXT)


def test_a_new_file_of_keys_is_read_again(tmp_path: Path) -> None:
    """The only key signs; a role's key may sign what the role may write."""
    path = tmp_path / "keys.json"
    path.write_text(new_file("all", ROLES))
    whole = load_keys(path)
    assert whole.signs_as == "all"
    assert {"DataUploaded", "FoldRequested", "FoldTested", "RunnerHeartbeat"} <= whole.keys["all"].events
    path.write_text(new_file("databoard", ["producer"]))
    assert load_keys(path).keys["databoard"].events == {
        "SplitRequested", "DataUploaded", "DataSplit", "SplitFailed", "FoldRequested",
    }  # fmt: skip
    assert path.read_text() != new_file("databoard", ["producer"])


WRONG = {
    "not JSON": ("{", "Invalid JSON"),
    "no keys": (json.dumps({"since": "2026-01-01T00:00:00Z", "keys": {}}), "keys"),
    "no moment": (json.dumps({"since": "soon", "keys": {}}), "since"),
    "a short secret": (json.dumps({"since": "2026-01-01T00:00:00Z", "keys": {"a": {"roles": ["runner"], "secret": "YQ=="}}}), "secret"),  # noqa: E501
    "no such role": (new_file("a", ["king"]), "no role 'king'"),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_file_of_keys_is_said_with_its_place(case: str, tmp_path: Path) -> None:
    """Never with a secret."""
    text, reason = WRONG[case]
    path = tmp_path / "keys.json"
    path.write_text(text)
    with pytest.raises(DatarunError, match=reason) as refused:
        load_keys(path)
    assert "YQ==" not in str(refused.value)


def test_a_missing_file_or_name_is_said(tmp_path: Path) -> None:
    """With what is wrong."""
    with pytest.raises(DatarunError, match="cannot be read"):
        load_keys(tmp_path / "none.json")
    path = tmp_path / "keys.json"
    path.write_text(new_file("all", ROLES))
    with pytest.raises(DatarunError, match="none that is called me"):
        load_keys(path, signs_as="me")
