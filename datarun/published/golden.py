"""Records as files: topic, key and headers a line each, an empty line, and the value's bytes as they were written."""

from __future__ import annotations

from datarun.log import Record

_TOPIC, _KEY = "topic", "key"


def dumped(record: Record) -> bytes:
    """Return the file of a record."""
    head = [(_TOPIC, record.topic.encode()), (_KEY, record.key), *record.headers]
    return b"".join(name.encode() + b": " + value + b"\n" for name, value in head) + b"\n" + record.value


def loaded(content: bytes) -> Record:
    """Return the record of a file."""
    head, _, value = content.partition(b"\n\n")
    pairs = [line.partition(b": ")[::2] for line in head.split(b"\n")]
    (_, topic), (_, key), *headers = pairs
    return Record(topic.decode(), key, value, tuple((name.decode(), said) for name, said in headers))
