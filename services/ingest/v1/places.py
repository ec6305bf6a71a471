"""A place in the log of folds, as clients hold it: an offset for each partition, in a word they need not understand."""

from __future__ import annotations

import base64
import binascii
import struct
from collections.abc import Mapping, Sequence
from typing import Annotated

from pydantic import StringConstraints

from datarun.errors import LogUnavailable
from datarun.log import StoredRecord, TopicPartition
from datarun.topics import FOLD_EVENTS, Catalogue
from services.ingest.refusals import Refusal, detail

COUNT = FOLD_EVENTS.partitions
_FORM = struct.Struct(f">{COUNT}Q")
WORD_LENGTH = _FORM.size * 4 // 3
Word = Annotated[str, StringConstraints(pattern=rf"^[A-Za-z0-9_-]{{{WORD_LENGTH}}}$")]
MAX_OFFSET = 2**62


class Place:
    """A place that moves on as records are seen."""

    def __init__(self, offsets: list[int]) -> None:
        self.offsets = offsets

    @classmethod
    def beginning(cls) -> Place:
        """Return the place before all records."""
        return cls([0] * COUNT)

    @classmethod
    def behind(cls, ends: Mapping[TopicPartition, int]) -> Place:
        """Return the place behind all records that are there; raises LogUnavailable if a partition is missing."""
        if len(ends) != COUNT:
            raise LogUnavailable(f"{FOLD_EVENTS.name} has {len(ends)} of {COUNT} partitions")
        return cls([end for _, end in sorted(ends.items())])

    @classmethod
    def of(cls, word: str) -> Place:
        """Return the place that a word stands for; raises Refusal."""
        try:
            offsets = list(_FORM.unpack(base64.b64decode(word.encode("ascii"), b"-_", validate=True)))
        except (binascii.Error, ValueError, struct.error) as error:
            raise wrong_place() from error
        if max(offsets) > MAX_OFFSET:
            raise wrong_place()
        return cls(offsets)

    @property
    def word(self) -> str:
        """What clients get."""
        return base64.urlsafe_b64encode(_FORM.pack(*self.offsets)).decode()

    def start(self, catalogue: Catalogue) -> dict[TopicPartition, int]:
        """Return where to read on from."""
        topic = catalogue.full_name(FOLD_EVENTS)
        return {TopicPartition(topic, partition): offset for partition, offset in enumerate(self.offsets)}

    def pass_by(self, record: StoredRecord) -> None:
        """Move behind a record."""
        self.offsets[record.partition] = record.offset + 1

    def furthest(self, offsets: Sequence[int]) -> Place:
        """Return the place that is as far as this one and another together."""
        return Place([max(pair) for pair in zip(self.offsets, offsets, strict=True)])


def wrong_place() -> Refusal:
    """Refuse a word that this service did not give."""
    return detail(400, "This is no place in the log.")
