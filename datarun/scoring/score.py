"""One score: a scoring function over some rows, or the reason why there is none."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from datarun.errors import BlobCorrupt, BlobMissing
from datarun.scoring.metrics import Array, Kind, Metric, Takes
from datarun.scoring.truth import Truth, Unscorable


@dataclass(frozen=True, slots=True)
class Score:
    """A number, or None and why."""

    value: float | None
    reason: str | None = None
    is_final: bool = True
    """Whether it stays so; a blob that is missing may come back."""


NO_SCORE = (Unscorable, BlobMissing, BlobCorrupt, MemoryError)
"""What keeps a fold from being scored, and other folds not."""


def no_score(error: BaseException) -> Score:
    """Return what one of those errors comes to."""
    match error:
        case BlobMissing():
            return Score(None, "a blob that it is made from is not in the store", is_final=False)
        case BlobCorrupt():
            return Score(None, "a blob that it is made from has other bytes in the store", is_final=False)
        case MemoryError():
            return Score(None, "there is not enough memory for its predictions", is_final=False)
        case _:
            return Score(None, str(error))


def mean_and_std(values: Sequence[float]) -> tuple[float | None, float | None]:
    """Return mean and standard deviation, None for what no number is large enough to say."""
    if not values:
        return None, None
    with np.errstate(over="ignore", invalid="ignore"):
        found = float(np.mean(values)), float(np.std(values))
    mean, std = (one if math.isfinite(one) else None for one in found)
    return mean, std


def score(metric: Metric, truth: Truth, rows: Array | None, predictions: Array) -> Score:
    """Score the predictions of some rows of a part, or of all; both arrays are of those rows' labels' order."""
    labels = truth.labels if rows is None else truth.labels[rows]
    try:
        _check(metric, truth, labels, predictions)
        value = float(metric.function(*_given(metric, truth, labels, predictions)))
    except Unscorable as error:
        return no_score(error)
    except Exception as error:  # noqa: BLE001 - whatever it says of hostile numbers, the next fold is scored
        # What scikit-learn says may have labels in it; an operator sees what their own function says.
        said = repr(error) if metric.is_trusted else type(error).__name__
        why = f"{metric.name} does not take these labels and predictions: {said}"
        return Score(None, why, is_final=isinstance(error, ValueError))
    if not math.isfinite(value):
        return Score(None, f"{metric.name} is not defined for these labels and predictions")
    return Score(value)


def _check(metric: Metric, truth: Truth, labels: Array, predictions: Array) -> None:
    if metric.kind not in (None, truth.kind):
        raise Unscorable(f"{metric.name} is for {metric.kind}, and this is {truth.kind}")
    if len(labels) != len(predictions) or not len(labels):
        raise Unscorable(f"there are {len(predictions)} predictions for {len(labels)} labels")
    bad = len(predictions) - int(np.isfinite(predictions.reshape(len(predictions), -1)).all(axis=1).sum())
    if bad:
        raise Unscorable(f"the predictions of {bad} rows are not finite")
    if truth.kind is Kind.CLASSIFICATION:
        _check_classes(metric, truth, labels, predictions)


def _check_classes(metric: Metric, truth: Truth, labels: Array, predictions: Array) -> None:
    classes = len(truth.classes)
    if metric.is_binary and classes != 2:  # noqa: PLR2004 - what binary is
        raise Unscorable(f"{metric.name} is for two classes, and there are {classes}")
    unknown = int((labels < 0).sum())
    if unknown and (metric.is_binary or metric.is_trusted or metric.takes is Takes.PROBABILITIES):
        raise Unscorable(f"{unknown} rows have labels that are not in the train part")
    if metric.needs_every_class and len(np.unique(labels)) != classes:
        raise Unscorable(f"{metric.name} needs each of the {classes} classes among the rows")
    if metric.needs_distributions and not (
        (predictions >= 0).all() and np.allclose(predictions.sum(axis=1), 1.0, rtol=1e-5)
    ):
        raise Unscorable("the probabilities of a row are negative or do not sum to 1")


def _given(metric: Metric, truth: Truth, labels: Array, predictions: Array) -> tuple[Array, Array]:
    given = predictions.argmax(axis=1) if metric.takes is Takes.LABELS else predictions
    if not metric.is_trusted or truth.kind is Kind.REGRESSION:
        return labels, given
    return truth.classes[labels], truth.classes[given] if metric.takes is Takes.LABELS else given
