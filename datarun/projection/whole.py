"""Folds as whole rows for COPY: what was asked for, what happened and what was fetched, each encoded by itself."""

from __future__ import annotations

from typing import Any

from datarun.projection import columns, statements
from datarun.projection.copying import Part, beginning
from datarun.projection.evolve import Registers
from datarun.readmodel import tables

Rows = dict[int, bytes]
"""Fold id -> its row."""

_ASKED_NUMBERS = ("submission_id", "submission_version", "raw_data_id", "request_partition", "request_offset")


def _part(*names: str, given: tuple[str, ...] = ()) -> Part:
    return Part(tables.fold, names, blank=statements.BLANK_FOLD, given=given)


ASKED = _part("fold_id", *statements.REQUEST.columns, given=_ASKED_NUMBERS)
RAN = _part(*statements.RUN.columns)
FETCHED = _part(*statements.FETCH.columns)
FOLD_COLUMNS = (*ASKED.columns, *RAN.columns, *FETCHED.columns)

COPY_FOLDS = f'copy "{{schema}}".fold ({", ".join(FOLD_COLUMNS)}) from stdin (format binary)'
"""Folds that nothing is known of: one row at once, not one for each register."""


def whole_folds(kept: Registers) -> Rows:
    """Return the rows of all folds that were asked for; raises Unfit."""
    begin = beginning(ASKED, RAN, FETCHED)
    asked = ASKED.encoded(map(columns.request, kept.requests.values()))
    ran = _by_fold(kept.runs, RAN.encoded(map(columns.run, kept.runs.values())))
    fetched = _by_fold(kept.fetches, FETCHED.encoded(map(columns.fetch, kept.fetches.values())))
    return {
        fold_id: b"".join((begin, first, ran.get(fold_id, RAN.blank), fetched.get(fold_id, FETCHED.blank)))
        for fold_id, first in zip(kept.requests, asked, strict=True)
    }


def _by_fold(register: dict[int, Any], encoded: list[bytes]) -> Rows:
    return dict(zip(register, encoded, strict=True))
