"""Records read as the forms of their events, if they are where these belong: nearly all of a log.

Whatever else they are is left to `datarun.envelope`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any

from msgspec.json import Decoder

from datarun.envelope import MAX_VALUE_BYTES
from datarun.events import FoldRequested
from datarun.log import StoredRecord
from datarun.partitioner import partitions_of
from datarun.projection.digests import has_sound_digests
from datarun.projection.forms import FORMS, UNREADABLE, form_of
from datarun.topics import FOLD_EVENTS, QUEUE_OF, Catalogue

Decode = Callable[[bytes], Any]

_QUICK: dict[bytes | None, Decode] = {event.type_name().encode(): Decoder(form).decode for event, form in FORMS.items()}
_STRICT: dict[bytes | None, Decode] = {event.type_name().encode(): Decoder(form_of(event)).decode for event in FORMS}
_REQUEST: Any = FORMS[FoldRequested]
_LONGEST_KEY = 10
"""The digits of a fold's number at the most."""


@cache
def at_home(catalogue: Catalogue) -> Callable[[Sequence[StoredRecord]], list[Any]]:
    """Return what reads records as the forms of their events, or as None: it is not one, not here, or has no form."""
    queues = {priority: catalogue.full_name(topic) for priority, topic in QUEUE_OF.items()}
    events, partitions = catalogue.full_name(FOLD_EVENTS), FOLD_EVENTS.partitions
    signatures = catalogue.signatures

    def read(records: Sequence[StoredRecord]) -> list[Any]:
        is_sound = has_sound_digests([one.value for one in records if one.value])
        keys = {one.key for one in records if one.topic == events and one.key and len(one.key) <= _LONGEST_KEY}
        homes = partitions_of(keys, partitions)
        forms = [_form(one, is_sound=is_sound) for one in records]
        return [
            form if form is not None and belongs(form, record, homes) else None
            for form, record in zip(forms, records, strict=True)
        ]

    def belongs(form: Any, record: StoredRecord, homes: Mapping[bytes, int]) -> bool:
        topic, partition, _, key, *_ = record
        if key != b"%d" % form.fold_id or (signatures is not None and not signatures.accepts(record)):
            return False
        if type(form) is _REQUEST:
            return topic == queues[form.priority]
        return topic == events and partition == homes[key]

    return read


def _form(record: StoredRecord, *, is_sound: bool) -> Any:
    value, wire_type = record[4], None
    for name, content in record[5]:
        if name == "ce_type":
            wire_type = content
            break
    decode = _QUICK.get(wire_type)
    if decode is None or value is None or len(value) > MAX_VALUE_BYTES:
        return None
    try:
        form = decode(value)
        if not (is_sound or has_sound_digests([value])):
            _STRICT[wire_type](value)
    except UNREADABLE:
        return None
    return form
