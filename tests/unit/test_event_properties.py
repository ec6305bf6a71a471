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
from tests.drawing import values

CATALOGUE = Catalogue("t.")
CONTEXT = Context("test", now())
FIRST_VERSION = json.loads((Path(__file__).parents[2] / SCHEMAS / "SplitRequested.v1.json").read_text())
EXAMPLES = 30
LARGEST_SEED = 2**32 - 1


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
