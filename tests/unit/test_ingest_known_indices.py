"""What a gateway remembers of folds for a while: the indices that come again."""

from __future__ import annotations

import base64
import zlib
from collections.abc import Sequence

import pytest

from datarun.events import Blob
from services.ingest import known_indices
from services.ingest.known_indices import KNOWN_SECONDS, KnownIndices


def indices(values: Sequence[int]) -> tuple[str, bytes, Blob]:
    """Return indices as they are sent, as they are, and as a blob."""
    content = b"".join(value.to_bytes(8, "little") for value in values)
    return base64.b64encode(zlib.compress(content)).decode(), content, Blob(sha256="0" * 64, size=len(content))


class Clock:
    """A time that moves when it is told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_known_indices_are_those_that_fit_the_dataset() -> None:
    """A blob is known for every dataset with rows enough, and for one whose rows are not known yet."""
    known = KnownIndices()
    encoded, content, blob = indices([4, 0, 2])
    assert known.find(encoded, rows=None) is None
    known.keep(encoded, content, blob)
    assert known.find(encoded, rows=None) == known.find(encoded, rows=5) == blob
    assert known.find(encoded, rows=4) is None
    assert known.find(indices([4, 0, 1])[0], rows=5) is None
    assert known.find("\ud800", rows=5) is None


def test_no_indices_are_never_known() -> None:
    """Whether there may be none is another question for train_is than for test_is."""
    known = KnownIndices()
    encoded, content, blob = indices([])
    known.keep(encoded, content, blob)
    assert known.find(encoded, rows=None) is None


def test_indices_are_looked_for_again_after_a_while() -> None:
    """Bytes that somebody deleted are stored again by who sends them then."""
    clock = Clock()
    known = KnownIndices(clock=clock)
    encoded, content, blob = indices([1])
    known.keep(encoded, content, blob)
    clock.now = KNOWN_SECONDS - 0.1
    assert known.find(encoded, rows=2) == blob
    clock.now = KNOWN_SECONDS
    assert known.find(encoded, rows=2) is None


def test_the_oldest_indices_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is remembered has a bound."""
    monkeypatch.setattr(known_indices, "MOST", 3)
    known = KnownIndices()
    sent = [indices([number]) for number in range(5)]
    for one in sent:
        known.keep(*one)
    assert [known.find(encoded, rows=None) is not None for encoded, _, _ in sent] == [False, False, True, True, True]
