"""Whatever the published schemas allow is decoded and comes back; old versions come back as the newest."""

import json
import operator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datarun.envelope import Context, decode, encode, now
from datarun.errors import Rejected
from datarun.events import EVENT_TYPES, SplitRequested
from datarun.published.files import SCHEMAS
from datarun.published.json_schema import schema_of
from datarun.topics import Catalogue

CATALOGUE = Catalogue("t.")
CONTEXT = Context("test", now())
FIRST_VERSION = json.loads((Path(__file__).parents[2] / SCHEMAS / "SplitRequested.v1.json").read_text())
SHA256 = "^[0-9a-f]{64}$"
LONGEST_TEXT = 20
EXAMPLES = 30
LARGEST_SEED = 2**32 - 1


def values(schema, root):
    """Return what draws values that a schema allows."""
    if "$ref" in schema:
        return values(root["$defs"][schema["$ref"].rpartition("/")[2]], root)
    if "anyOf" in schema or "oneOf" in schema:
        return st.one_of([values(branch, root) for branch in schema.get("anyOf") or schema["oneOf"]])
    if "const" in schema or "enum" in schema:
        return st.sampled_from(schema.get("enum") or [schema["const"]])
    return {
        "null": st.none,
        "boolean": st.booleans,
        "integer": lambda: st.integers(schema.get("minimum"), schema.get("maximum")),
        "number": lambda: numbers(schema),
        "string": lambda: texts(schema),
        "array": lambda: st.lists(values(schema["items"], root), max_size=3),
        "object": lambda: objects(schema, root),
    }[schema["type"]]()


def numbers(schema):
    """Return what draws numbers within bounds, whole ones among them."""
    low, high = (schema.get(name, schema.get(f"exclusive{name.title()}")) for name in ("minimum", "maximum"))
    options = {"exclude_min": "exclusiveMinimum" in schema, "exclude_max": "exclusiveMaximum" in schema}
    return st.floats(low, high, allow_nan=False, allow_infinity=False, **options)


def texts(schema):
    """Return what draws texts, of a pattern if there is one; as long as they may be only seldom matters."""
    if schema.get("pattern") == SHA256:
        # A hundred times as fast as drawing each character.
        return st.integers(0, 2**256 - 1).map("{:064x}".format)
    if "pattern" in schema:
        return st.from_regex(schema["pattern"], fullmatch=True)
    longest = min(schema.get("maxLength", LONGEST_TEXT), LONGEST_TEXT)
    return st.text(st.characters(codec="utf-8"), min_size=schema.get("minLength", 0), max_size=longest)


def objects(schema, root):
    """Return what draws objects, with any of the fields that may be left out."""
    if isinstance(schema.get("additionalProperties"), dict):
        return st.dictionaries(st.text(max_size=5), values(schema["additionalProperties"], root), max_size=3)
    fields = {name: values(rules, root) for name, rules in schema["properties"].items()}
    required = schema.get("required", [])
    optional = {name: drawn for name, drawn in fields.items() if name not in required}
    return st.fixed_dictionaries({name: fields[name] for name in required}, optional=optional)


OF_TYPE = {cls: values(schema_of(cls), schema_of(cls)) for cls in EVENT_TYPES}


@pytest.mark.parametrize("cls", EVENT_TYPES, ids=operator.attrgetter("__name__"))
@settings(max_examples=EXAMPLES, deadline=None)
@given(data=st.data())
def test_what_the_published_schema_allows_comes_back_from_its_record(cls, data):
    """decode(encode(e)) = e for every event, and the schema allows nothing that is refused."""
    said = data.draw(OF_TYPE[cls])
    event = decode(json.dumps(said).encode(), [("ce_type", cls.type_name().encode())])
    record = encode(event, catalogue=CATALOGUE, context=CONTEXT)
    assert decode(record.value, record.headers) == event
    assert record.key == str(said[cls.key_field]).encode()


@settings(max_examples=EXAMPLES, deadline=None)
@given(said=values(FIRST_VERSION, FIRST_VERSION))
def test_any_first_version_of_a_split_request_comes_back_as_the_second(said):
    """With the same id and all it said; only what no version could do, a split without a share, is refused."""
    headers = [("ce_type", b"datarun.SplitRequested.v1")]
    share, seed = said.get("held_out_test"), said.get("random_state")
    if said["kind"] == "standard" and (share is None or (seed or 0) > LARGEST_SEED):
        with pytest.raises(Rejected):
            decode(json.dumps(said).encode(), headers)
        return
    event = decode(json.dumps(said).encode(), headers)
    assert isinstance(event, SplitRequested)
    plan = event.plan.model_dump()
    assert plan["kind"] == said["kind"]
    assert said["kind"] == "custom" or (plan["held_out_test"], plan["random_state"]) == (
        share,
        42 if seed is None else seed,
    )
    again = encode(event, catalogue=CATALOGUE, context=CONTEXT)
    assert decode(again.value, again.headers) == event
    assert (event.raw_data_id, event.attempt, event.task_id) == (said["raw_data_id"], said["attempt"], said["task_id"])
