"""Events become records and come back; whatever else comes in is refused with its reason."""

from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datarun import envelope, events
from datarun.errors import Misrouted, Rejected, SchemaMismatch, Undecodable, UnknownType, UnknownVersion
from datarun.events import EVENT_TYPES, Blob, Event, FoldLost, Priority
from datarun.log import StoredRecord
from datarun.partitioner import partition_of, partitions_of
from datarun.topics import FOLD_EVENTS, Catalogue

CATALOGUE = Catalogue("t.")
CONTEXT = envelope.Context(source="test", time=datetime(2026, 1, 2, tzinfo=UTC), correlation_id="c1")
LOST = FoldLost(fold_id=11, attempt=1, delivery=1, submission_id=7, raw_data_id=1, runner_id="r")
LOST_TYPE = [("ce_type", b"datarun.FoldLost.v1")]


def test_an_event_comes_back_from_its_record():
    """Decoding the record of an event gives an equal event, with its key, topic and id."""
    record = envelope.encode(LOST, catalogue=CATALOGUE, context=CONTEXT)
    assert envelope.decode(record.value, record.headers) == LOST
    assert record.topic == "t.fold-events"
    assert record.key == b"11"
    assert not record.single
    assert envelope.header(record.headers, "ce_id") == str(LOST.event_id)
    assert envelope.header(record.headers, "ce_correlationid") == "c1"


@pytest.mark.parametrize(
    ("priority", "topic"), [(Priority.HIGH, "t.fold-requests.high"), (Priority.LOW, "t.fold-requests.low")]
)
def test_a_fold_waits_in_the_queue_of_its_priority(priority, topic):
    """FoldRequested goes alone in its batch to the topic of its priority."""
    record = envelope.encode(fold_requested(priority=priority), catalogue=CATALOGUE, context=CONTEXT)
    assert (record.topic, record.single) == (topic, True)


def test_ids_depend_on_the_fact_alone():
    """The same fact has the same id; another delivery has another."""
    again = LOST.model_copy()
    assert again.event_id == LOST.event_id
    assert LOST.model_copy(update={"delivery": 2}).event_id != LOST.event_id


@pytest.mark.parametrize(
    ("value", "headers", "error"),
    [
        (None, LOST_TYPE, Undecodable),
        (b"", LOST_TYPE, Undecodable),
        (b"\xff\xfe", LOST_TYPE, Undecodable),
        (b"{}", [], Undecodable),
        (b"{}", LOST_TYPE, SchemaMismatch),
        (b"[]", LOST_TYPE, SchemaMismatch),
        (b"{}", [("ce_type", b"datarun.FoldLost.v2")], UnknownVersion),
        (b"{}", [("ce_type", b"datarun.FoldEaten.v1")], UnknownType),
        (b"{}", [("ce_type", b"\xff.v\xb2")], UnknownType),
    ],
)
def test_what_is_no_event_is_refused(value, headers, error):
    """Each kind of foreign record has its own refusal."""
    with pytest.raises(error):
        envelope.decode(value, headers)


def test_an_unknown_field_is_refused_with_its_pointer():
    """Extra fields do not pass silently."""
    value = LOST.model_dump_json().replace("{", '{"extra":1,', 1).encode()
    with pytest.raises(SchemaMismatch, match="/extra"):
        envelope.decode(value, LOST_TYPE)


@given(
    value=st.binary(max_size=200),
    wire_type=st.sampled_from([cls.type_name() for cls in EVENT_TYPES]) | st.text(max_size=30),
)
def test_any_bytes_are_decoded_or_rejected(value, wire_type):
    """No bytes raise anything but a Rejected."""
    try:
        event = envelope.decode(value, [("ce_type", wire_type.encode("utf-8", "replace"))])
    except Rejected:
        return
    assert isinstance(event, Event)


def test_a_record_in_another_topic_partition_or_under_another_key_is_misrouted():
    """Key, topic and partition must be those of the event."""
    at_home = StoredRecord("t.fold-events", partition_of(b"11", FOLD_EVENTS.partitions), 0, b"11", b"")
    envelope.check_route(LOST, at_home, catalogue=CATALOGUE)
    with pytest.raises(Misrouted):
        envelope.check_route(LOST, at_home._replace(topic="t.data-events"), catalogue=CATALOGUE)
    with pytest.raises(Misrouted):
        envelope.check_route(LOST, at_home._replace(key=b"12"), catalogue=CATALOGUE)
    with pytest.raises(Misrouted, match="murmur2_random"):
        envelope.check_route(LOST, at_home._replace(partition=at_home.partition - 1), catalogue=CATALOGUE)


def test_every_event_has_a_topic_and_a_sentence():
    """An event nobody placed, or nobody explained, is an omission."""
    from datarun.topics import TOPICS

    placed = {cls for topic in TOPICS for cls in topic.carries}
    assert placed == set(EVENT_TYPES)
    assert all((cls.__doc__ or "").strip().endswith(".") for cls in EVENT_TYPES)


def fold_requested(*, fold_id=11, attempt=1, delivery=1, priority=Priority.LOW):
    """Return a FoldRequested with small made-up parts."""
    blob = Blob(sha256="0" * 64, size=8)
    return events.FoldRequested(
        fold_id=fold_id,
        attempt=attempt,
        delivery=delivery,
        submission_id=7,
        priority=priority,
        dataset=events.Dataset(
            raw_data_id=1, name="iris", target_column="species", workflow_elements="classifier", files=()
        ),
        files=(events.NamedBlob(name="classifier.py", blob=blob),),
        train_is=blob,
        test_is=blob,
        task_id="t",
        requested_by="u",
    )


@settings(max_examples=50, deadline=None)
@given(st.sets(st.binary(max_size=11), max_size=200), st.integers(1, 13))
def test_many_keys_together_are_where_each_is_alone(keys, partitions):
    """However many there are, of whatever lengths."""
    assert partitions_of(keys, partitions) == {key: partition_of(key, partitions) for key in keys}
