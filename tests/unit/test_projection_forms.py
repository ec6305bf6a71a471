"""Forms take nothing their events refuse, and say the same; what they leave is left to the events."""

import json
import operator
from typing import Annotated

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.json import Decoder
from pydantic import BaseModel, Field

from datarun.envelope import MAX_VALUE_BYTES, check_route, decode
from datarun.errors import Rejected
from datarun.events import EVENT_TYPES, Event, FoldTested, SplitRequested
from datarun.projection.at_home import at_home
from datarun.projection.digests import has_sound_digests
from datarun.projection.forms import FORMS, UNREADABLE, form_of
from datarun.published.json_schema import schema_of
from datarun.topics import TOPICS
from tests.drawing import values
from tests.histories import CATALOGUE, Log, logs, requested, run_event, story

EVENTS = list(FORMS)
DECODERS = {event: Decoder(form) for event, form in FORMS.items()}
STRICT = {event: Decoder(form_of(event)) for event in EVENTS}
DRAWN = {event: values(schema_of(event), schema_of(event)) for event in EVENTS}
ODD = (
    "null", "true", "0", "1", "-1", "1.0", "-0.0", "0.5", "1e0", "1E400", "-1e-400", "01", "1.", "+1", "NaN",
    "Infinity", "2147483647", "2147483648", "9223372036854775807", "9223372036854775808", "1" * 400, '"1"', '""',
    '"H"', '"train"', '"\\ud800"', '"\\ud83d\\ude00"', '"\\u0000"', '"a\tb"', '"\x7f"', "[]", "{}", "[1]", '["a"]',
    '"' + "0" * 64 + '"', '"' + "0" * 64 + '\\n"', '"' + "A" * 64 + '"', '"' + "x" * 200 + '"', '"' + "x" * 201 + '"',
    '"' + "é" * 200 + '"', '"' + "\U0001f600" * 200 + '"',
)  # fmt: skip
"""Values at and beyond the edges of JSON and of the fields' rules."""
HEADERS = [(("ce_type", event.type_name().encode()),) for event in EVENT_TYPES]


def says_the_same(form, event):
    """Tell whether a form has the fields of its event, of the same types, with the same values."""
    if isinstance(event, BaseModel):
        return all(says_the_same(getattr(form, name), getattr(event, name)) for name in type(event).model_fields)
    if isinstance(event, tuple):
        return len(form) == len(event) and all(map(says_the_same, form, event))
    return type(form) is type(event) and form == event


def taken(event, value):
    """Return a value as the form of an event, or None for one that it leaves."""
    try:
        form = DECODERS[event].decode(value)
        return form if has_sound_digests([value]) else STRICT[event].decode(value)
    except UNREADABLE:
        return None


def places(value, path=()):
    """Yield the paths of everything in a JSON value."""
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, content in items:
        yield from places(content, (*path, name))


@st.composite
def spoiled(draw, event):
    """Draw a value that was one of the event until something in it was replaced, doubled, added or cut."""
    said = draw(DRAWN[event])
    mark = "<here>"
    path = draw(st.sampled_from(list(places(said))[1:]))
    holder = said
    for name in path[:-1]:
        holder = holder[name]
    how, odd, name = draw(st.sampled_from(("replace", "double", "add", "bytes"))), draw(st.sampled_from(ODD)), path[-1]
    if how == "add" and isinstance(holder, dict):
        holder["unknown"] = mark
    elif how != "bytes":
        before, holder[name] = json.dumps(holder[name]), mark
    text = json.dumps(said, ensure_ascii=draw(st.booleans()))
    if how == "double" and isinstance(name, str):
        pair = (before, odd) if draw(st.booleans()) else (odd, before)
        odd = f'{pair[0]}, "{name}": {pair[1]}'
    value = text.replace(f'"{mark}"', odd).encode("utf-8", "surrogatepass")
    if how == "bytes":
        at = draw(st.integers(0, len(value) - 1))
        value = value[:at] + draw(st.binary(max_size=2)) + value[at + draw(st.integers(0, 2)) :]
    return value


@pytest.mark.parametrize("event", EVENTS, ids=operator.attrgetter("__name__"))
@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_what_the_published_schema_allows_says_the_same_in_both_ways(event, data):
    """Nothing that is written as declared goes the slow way."""
    value = json.dumps(data.draw(DRAWN[event])).encode()
    assert says_the_same(taken(event, value), event.model_validate_json(value))


@pytest.mark.parametrize("event", EVENTS, ids=operator.attrgetter("__name__"))
@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_what_a_form_takes_its_event_takes_and_says_the_same(event, data):
    """Numbers, texts and objects at the edges of what they may be; a form may leave more, and never takes more."""
    value = data.draw(spoiled(event))
    form = taken(event, value)
    if form is not None:
        assert says_the_same(form, event.model_validate_json(value))


@pytest.mark.parametrize("odd", ODD)
@pytest.mark.parametrize("field", ["fold_id", "runner_id", "metrics", "test_shape", "log", "sandbox"])
def test_every_odd_value_in_every_kind_of_field(odd, field):
    """The same, of one event and without chance."""
    said = run_event(FoldTested, 1).model_dump(mode="json") | {field: "<here>"}
    value = json.dumps(said).replace('"<here>"', odd).encode()
    form = taken(FoldTested, value)
    if form is not None:
        assert says_the_same(form, FoldTested.model_validate_json(value))


@settings(max_examples=100, deadline=None)
@given(log=logs(), data=st.data())
def test_what_is_taken_is_where_it_belongs(log, data):
    """Topic, key, partition and type are as strictly looked at as in the events' own way."""
    read = at_home(CATALOGUE)
    for record in log:
        topic = data.draw(st.sampled_from([record.topic, *map(CATALOGUE.full_name, TOPICS)]))
        moved = record._replace(
            topic=topic,
            partition=data.draw(st.sampled_from((record.partition, 0, 5))),
            key=data.draw(st.sampled_from((record.key, b"1", b"01", b"", None))),
            headers=data.draw(st.sampled_from((record.headers, (), (("ce_type", None),), *HEADERS))),
        )
        [form] = read([moved])
        if form is not None:
            event = decode(moved.value, moved.headers)
            check_route(event, moved, catalogue=CATALOGUE)
            assert says_the_same(form, event)


def test_every_sound_record_of_a_fold_is_taken():
    """Otherwise a rebuild would be slow, and nobody would notice."""
    log, read = Log(), at_home(CATALOGUE)
    for number in range(1, 40):
        for event in story(number):
            log.append(event)
    assert None not in read(list(log))


def test_a_value_larger_than_any_event_is_left():
    """However sound it is otherwise."""
    record = Log().append(requested(1))
    padded = record._replace(value=(record.value or b"") + b" " * MAX_VALUE_BYTES)
    assert at_home(CATALOGUE)([padded]) == [None]


def test_one_bad_digest_among_many_is_found_alone():
    """Of the others everything is taken, wherever in a value the digest is and however it is written."""
    good = [Log().append(run_event(FoldTested, number)) for number in (1, 2, 3)]
    sound, key = good[1].value or b"", b'"sha256":"'
    before, _, after = sound.partition(key)
    for bad in (
        before + key + b"g" + after[1:],
        before + key + after[:63].upper().replace(b"0", b"A") + after[63:],
        before + key + after[1:],
        before + key + b"0" + after,
        before + b'"sha256" : "' + b"g" + after[1:],
        before + rb'"sh\u0061256":"' + b"g" + after[1:],
        before + key + rb"\u0030" + b"g" + after[2:],
    ):
        forms = at_home(CATALOGUE)([good[0], good[1]._replace(value=bad), good[2]])
        assert [form is None for form in forms] == [False, True, False], bad
        with pytest.raises(Rejected):
            decode(bad, good[1].headers)


def test_a_rule_no_form_has_is_refused():
    """Somebody who gives a declaration a new kind of rule learns that its form would not keep it."""

    class Odd(Event):
        key_field = "number"
        identity = ("number",)
        number: Annotated[int, Field(multiple_of=2)]

    with pytest.raises(TypeError, match="multiple_of"):
        form_of(Odd)
    with pytest.raises(TypeError):
        form_of(SplitRequested)
