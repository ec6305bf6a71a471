"""Rows in COPY's binary format: what does not fit is refused before Postgres sees it, and text is made fit."""

import pytest

from datarun.projection.copying import Unfit
from datarun.projection.statements import FOLDS


@pytest.mark.parametrize(
    "row",
    [{"fold_id": 2**31}, {"fold_id": 1, "request_delivery": 2**15}, {"fold_id": 1, "full_train_shape": (2**31,)}],
)
def test_a_number_beyond_its_column_is_refused(row):
    """The stretch it is in then goes the slow way, which buries it."""
    with pytest.raises(Unfit):
        FOLDS.copied([row])


@pytest.mark.parametrize("text", ["a\x00b", "a\ud800b"])
def test_text_that_postgres_cannot_store_is_replaced(text):
    """As in the JSON of the other rows."""
    copied = FOLDS.copied([{"fold_id": 1, "log": text}])
    assert copied in {FOLDS.copied([{"fold_id": 1, "log": f"a{mark}b"}]) for mark in ("\ufffd", "?")}
