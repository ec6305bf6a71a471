"""Bagged predictions: per row the mean over the folds that predict it, and the score of that after each fold.

What is not a number does not count as long as another fold has one for the row; a row for which none has is not left
out, or a submission could choose the rows it is judged by: then there is no score.
"""

from __future__ import annotations

import numpy as np

from datarun.scoring.metrics import Array, Metric
from datarun.scoring.score import Score, score
from datarun.scoring.truth import Truth


class Bag:
    """A sum of predictions of one part, row by row."""

    def __init__(self) -> None:
        self.folds = 0
        self._truth: Truth | None = None
        self._missed: Score | None = None
        self._sums: Array = np.empty(0)
        self._counts: Array = np.empty(0)
        self._predicted: Array = np.empty(0)

    def add(self, truth: Truth, rows: Array | None, predictions: Array) -> None:
        """Add a fold's predictions of all rows of the part, of which only some rows count, None for all."""
        if self._truth is None:
            self._truth = truth
            self._sums = np.zeros(predictions.shape)
            self._counts = np.zeros(predictions.shape, dtype=np.int32)
            self._predicted = np.zeros(len(predictions), dtype=bool)
        # A row that a fold names twice is one of its rows.
        which = slice(None) if rows is None else np.unique(rows)
        values = predictions[which]
        is_number = ~np.isnan(values)
        self._sums[which] += np.where(is_number, values, 0.0)
        self._counts[which] += is_number
        self._predicted[which] = True
        self.folds += 1

    def miss(self, why: Score) -> None:
        """Take note of a fold that cannot be added."""
        if self._missed is None or not why.is_final:
            self._missed = why

    def score(self, metric: Metric) -> Score:
        """Score the mean of what was added, over the rows that any fold predicts."""
        if self._truth is None:
            return self._missed or Score(None, "there is no fold")
        rows = np.flatnonzero(self._predicted)
        with np.errstate(invalid="ignore", divide="ignore"):
            means = self._sums[rows] / self._counts[rows]
        found = score(metric, self._truth, rows, means)
        return Score(found.value, found.reason, is_final=self._missed is None or self._missed.is_final)
