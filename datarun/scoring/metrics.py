"""The scoring functions that have a name: scikit-learn's, and what each of them takes.

Classes are numbered in their sorted order, as scikit-learn's classifiers number the columns of their probabilities.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy.typing as npt

from datarun.errors import DatarunError

Array = npt.NDArray[Any]
Function = Callable[[Array, Array], float]
"""Takes the truth and the predictions of the same rows."""


class Kind(StrEnum):
    """What a dataset's predictions are."""

    CLASSIFICATION = "classification"
    REGRESSION = "regression"


class Takes(StrEnum):
    """What of the predictions a scoring function is given."""

    VALUES = "values"
    """A regressor's, one a row."""
    PROBABILITIES = "probabilities"
    """A classifier's, a column a class."""
    LABELS = "labels"
    """The class of the highest probability, the first of equals."""
    ANY = "any"
    """Values or probabilities, whichever they are."""


class UnknownMetric(DatarunError):
    """There is no scoring function of this name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """A scoring function and what must hold before it is called."""

    name: str
    function: Function
    takes: Takes
    is_lower_the_better: bool = False
    is_binary: bool = False
    """Whether it knows two classes alone; the second one is positive."""
    needs_every_class: bool = False
    """Whether each class must be among the rows."""
    needs_distributions: bool = False
    """Whether the probabilities of a row must sum to 1."""
    is_trusted: bool = False
    """Whether it is an operator's own: it is given labels instead of numbers of classes, and its errors are told."""

    @property
    def kind(self) -> Kind | None:
        """What predictions it is for; None for any."""
        if self.takes is Takes.ANY:
            return None
        return Kind.REGRESSION if self.takes is Takes.VALUES else Kind.CLASSIFICATION


def _sklearn(name: str, **options: Any) -> Function:
    def compute(truth: Array, predicted: Array) -> float:
        # A second that only who scores has to wait.
        from sklearn import metrics  # noqa: PLC0415

        return float(getattr(metrics, name)(truth, predicted, **options))

    return compute


def _roc_auc(truth: Array, predicted: Array) -> float:
    columns = predicted.shape[1]
    if columns == 2:  # noqa: PLR2004 - the probability of the second class says it all
        return _sklearn("roc_auc_score")(truth, predicted[:, 1])
    return _sklearn("roc_auc_score", multi_class="ovr", average="macro", labels=range(columns))(truth, predicted)


def _log_loss(truth: Array, predicted: Array) -> float:
    return _sklearn("log_loss", labels=range(predicted.shape[1]))(truth, predicted)


def _brier(truth: Array, predicted: Array) -> float:
    # Of two classes as of more: the sum over all columns.
    columns = predicted.shape[1]
    return _sklearn("brier_score_loss", labels=range(columns), scale_by_half=False)(truth, predicted)


_ALL = (
    Metric(name="accuracy", function=_sklearn("accuracy_score"), takes=Takes.LABELS),
    Metric(name="balanced_accuracy", function=_sklearn("balanced_accuracy_score"), takes=Takes.LABELS),
    Metric(name="error", function=_sklearn("zero_one_loss"), takes=Takes.LABELS, is_lower_the_better=True),
    Metric(name="f1", function=_sklearn("f1_score", zero_division=0.0), takes=Takes.LABELS, is_binary=True),
    Metric(name="f1_macro", function=_sklearn("f1_score", average="macro", zero_division=0.0), takes=Takes.LABELS),
    Metric(name="mcc", function=_sklearn("matthews_corrcoef"), takes=Takes.LABELS),
    Metric(
        name="roc_auc",
        function=_roc_auc,
        takes=Takes.PROBABILITIES,
        needs_every_class=True,
        needs_distributions=True,
    ),
    Metric(
        name="log_loss",
        function=_log_loss,
        takes=Takes.PROBABILITIES,
        is_lower_the_better=True,
        needs_distributions=True,
    ),
    Metric(
        name="brier", function=_brier, takes=Takes.PROBABILITIES, is_lower_the_better=True, needs_distributions=True
    ),
    Metric(name="rmse", function=_sklearn("root_mean_squared_error"), takes=Takes.VALUES, is_lower_the_better=True),
    Metric(name="mse", function=_sklearn("mean_squared_error"), takes=Takes.VALUES, is_lower_the_better=True),
    Metric(name="mae", function=_sklearn("mean_absolute_error"), takes=Takes.VALUES, is_lower_the_better=True),
    Metric(name="median_ae", function=_sklearn("median_absolute_error"), takes=Takes.VALUES, is_lower_the_better=True),
    Metric(name="r2", function=_sklearn("r2_score"), takes=Takes.VALUES),
)
METRICS = {metric.name: metric for metric in _ALL}
DEFAULT = {Kind.CLASSIFICATION: METRICS["accuracy"], Kind.REGRESSION: METRICS["rmse"]}
"""What is meant where none is named."""


def named(name: str) -> Metric:
    """Return the scoring function of a name; raises UnknownMetric."""
    if name not in METRICS:
        raise UnknownMetric(f"there is no scoring function {name!r}: {', '.join(METRICS)}")
    return METRICS[name]
