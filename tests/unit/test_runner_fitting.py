"""Whatever a submission prints, its result fits into a record; nothing is left out that need not be."""

import pytest

from datarun.envelope import MAX_VALUE_BYTES, Context, encode, now
from datarun.events import FoldFailed
from datarun.published.examples import EXAMPLES
from datarun.topics import Catalogue
from services.runner.fitting import fitted


@pytest.mark.parametrize("character", ["\x01", "\ufffd", "\U0001f600", '"', "\\"])
def test_a_result_with_the_longest_texts_is_taken_by_the_log(character):
    """Characters that take up to six bytes each: the event is smaller than a record may be, head and tail are there."""
    text = fitted(f"begin{character * 390_000}end")
    event = EXAMPLES[FoldFailed].model_copy(update={"message": text, "log": text})
    record = encode(event, catalogue=Catalogue(), context=Context("test", now()))
    assert len(record.value) < MAX_VALUE_BYTES
    assert text.startswith("begin")
    assert text.endswith("end")
    assert "characters left out" in text
    FoldFailed.model_validate(event.model_dump())


@pytest.mark.parametrize("text", ["", "\n\n", "x" * 390_000])
def test_what_fits_stays_as_it_is(text):
    """Usual logs are not touched."""
    assert fitted(text) == text


def test_two_texts_together_are_shortened_too():
    """A failed split says both in one field."""
    assert len(fitted("x" * 800_000)) < 400_000
