"""What is published about the events is as declared, and whatever was ever written can be read."""

import copy
import json
from pathlib import Path

import pytest

from datarun import envelope
from datarun.events import EVENT_TYPES, FoldTested, SplitRequested
from datarun.published import files, golden
from datarun.published.asyncapi import document, message_name
from datarun.published.compatibility import breaks
from datarun.published.examples import EXAMPLES
from datarun.published.json_schema import schema_of
from datarun.topics import Catalogue

ROOT = Path(__file__).parents[2]
GOLDEN = sorted((ROOT / files.GOLDEN).glob("*.record"))


def test_nothing_published_is_stale():
    """Schemas, examples, AsyncAPI and the page are what `datarun schemas write` writes."""
    assert files.problems(ROOT) == []


def test_every_event_has_an_example_that_comes_back():
    """An example is decoded from the JSON that is published of it."""
    assert set(EXAMPLES) == set(EVENT_TYPES)
    for cls, event in EXAMPLES.items():
        text = (ROOT / files.EXAMPLES_OF / f"{message_name(cls)}.json").read_bytes()
        assert envelope.decode(text, [("ce_type", cls.type_name().encode())]) == event


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.stem)
def test_a_record_of_any_version_is_decoded_for_ever(path):
    """Its event has the id and the key it was written with, and belongs where it lay."""
    record = golden.loaded(path.read_bytes())
    event = envelope.decode(record.value, record.headers)
    assert str(event.event_id) == envelope.header(record.headers, "ce_id")
    envelope.check_route(event, record, catalogue=Catalogue())
    assert type(event).__name__ == path.name.partition(".")[0]


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.stem)
def test_a_record_says_what_its_event_says(path):
    """Every field of a current version arrives with the value that was written."""
    record = golden.loaded(path.read_bytes())
    event = envelope.decode(record.value, record.headers)
    if envelope.header(record.headers, "ce_type") == event.type_name():
        said = event.model_dump(mode="json")
        assert {name: said[name] for name in json.loads(record.value)} == _with_defaults(record.value, type(event))


@pytest.mark.parametrize(
    ("name", "plan"),
    [
        ("SplitRequested.v1", {"kind": "standard", "held_out_test": 0.3, "random_state": 42}),
        ("SplitRequested.v1.custom", {"kind": "custom"}),
        ("SplitRequested.v1.unseeded", {"kind": "standard", "held_out_test": 0.3, "random_state": 42}),
    ],
)
def test_the_first_version_of_a_split_request_is_upcast(name, plan):
    """Its loose fields become a plan; all else is as the second version says it."""
    record = golden.loaded((ROOT / files.GOLDEN / f"{name}.record").read_bytes())
    event = envelope.decode(record.value, record.headers)
    assert isinstance(event, SplitRequested)
    assert event.plan.model_dump() == plan
    assert event.requested_by == "ada"


def _removed(schema):
    del schema["properties"]["log"]


def _required(schema):
    schema["required"].append("log")


def _narrowed_type(schema):
    schema["properties"]["fold_id"]["type"] = "string"


def _narrowed_bound(schema):
    schema["properties"]["attempt"]["maximum"] = 9


def _narrowed_list(schema):
    schema["properties"]["test_shape"]["items"]["minimum"] = 1


def _not_null_any_more(schema):
    schema["properties"]["provenance"] = {"$ref": "#/$defs/Provenance", "default": None}


def _narrowed_inside(schema):
    schema["$defs"]["Blob"]["properties"]["sha256"]["pattern"] = "^[0-9a-f]{128}$"


def _another_default(schema):
    schema["properties"]["log"]["default"] = "nothing"


def _another_key(schema):
    schema["x-key"] = "submission_id"


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (_removed, "/log: removed"),
        (_required, "/log: required now, was not"),
        (_narrowed_type, "/fold_id: string now, was integer"),
        (_narrowed_bound, "/attempt: maximum 9 now, was 2147483647"),
        (_narrowed_list, "/test_shape/*: minimum 1 now, was 0"),
        (_not_null_any_more, "/provenance: object now, was null"),
        (_narrowed_inside, "/test_predictions/sha256: pattern"),
        (_another_default, "/log: left out it meant '', now 'nothing'"),
        (_another_key, "/: x-key was fold_id, now submission_id"),
    ],
)
def test_a_breaking_change_is_refused(change, why):
    """What makes published events wrong, or other ones, is said with its place."""
    published = schema_of(FoldTested)
    changed = copy.deepcopy(published)
    change(changed)
    assert any(why in one for one in breaks(published, changed)), breaks(published, changed)


def test_a_wider_declaration_is_no_breaking_change():
    """A new optional field, a larger bound, one more alternative, a new kind: old events stay right."""
    published = schema_of(SplitRequested)
    wider = copy.deepcopy(published)
    wider["properties"]["reason"] = {"type": "string", "default": ""}
    wider["properties"]["task_id"]["maxLength"] = 500
    wider["properties"]["attempt"] = {"anyOf": [wider["properties"]["attempt"], {"type": "null"}]}
    wider["$defs"]["Split"]["properties"]["kind"]["enum"].append("third")
    assert breaks(published, wider) == []


def test_a_breaking_declaration_is_not_written(tmp_path):
    """The command refuses, says why, and leaves the published files as they are."""
    files.write(tmp_path)
    path = tmp_path / files.SCHEMAS / "FoldLost.v1.json"
    published = json.loads(path.read_text())
    published["properties"]["reason"] = {"type": "string", "default": ""}
    path.write_text(json.dumps(published))
    with pytest.raises(files.SchemaBroken, match=r"FoldLost\.v1/reason: removed"):
        files.write(tmp_path)
    assert json.loads(path.read_text()) == published
    assert "FoldLost.v1/reason: removed" in files.problems(tmp_path)


def test_a_golden_record_is_never_written_anew(tmp_path):
    """A record that is kept stays as it was written, whatever examples become."""
    files.write(tmp_path)
    path = tmp_path / files.GOLDEN / "FoldLost.v1.record"
    path.write_bytes(b"as it was")
    assert files.write(tmp_path) == []
    assert path.read_bytes() == b"as it was"


def test_every_reference_of_the_asyncapi_document_leads_somewhere():
    """Channels, messages and schemas that are named are there."""
    told = document()
    for reference in _references(told):
        place, _, pointer = reference.partition("#")
        found = told if not place else json.loads((ROOT / "schemas" / place).read_text())
        for part in filter(None, pointer.split("/")):
            found = found[part]
        assert found
    assert {name for channel in told["channels"].values() for name in channel["messages"]} == set(
        map(message_name, EVENT_TYPES)
    )


def _references(found):
    if isinstance(found, dict):
        if "$ref" in found:
            yield found["$ref"]
        for value in found.values():
            yield from _references(value)


def _with_defaults(value, cls):
    """Return the fields of a value, with what is left out inside them as it is meant."""
    written = json.loads(value)
    full = cls.model_validate(written).model_dump(mode="json")
    return {name: full[name] if isinstance(written[name], (dict, list)) else written[name] for name in written}
