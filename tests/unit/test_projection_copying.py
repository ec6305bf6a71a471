"""Rows in COPY's binary format: what does not fit is refused before Postgres sees it, and text is made fit."""

import pytest

from datarun.projection.copying import Unfit
from datarun.projection.whole import ASKED, RAN


@pytest.mark.parametrize(
    ("part", "row"),
    [(ASKED, {"fold_id": 2**31}), (ASKED, {"request_delivery": 2**15}), (RAN, {"full_train_shape": (2**31,)})],
)
def test_a_number_beyond_its_column_is_refused(part, row):
    """The stretch it is in then goes the slow way, which buries it."""
    with pytest.raises(Unfit):
        part.encoded([dict.fromkeys(part.columns[:8], 1) | row])


@pytest.mark.parametrize("text", ["a\x00b", "a\ud800b"])
def test_text_that_postgres_cannot_store_is_replaced(text):
    """As in the JSON of the other rows."""
    [encoded] = RAN.encoded([{"log": text}])
    assert [encoded] in [RAN.encoded([{"log": f"a{mark}b"}]) for mark in ("\ufffd", "?")]
