"""What training and testing a submission means, number by number: pure functions over the fold's rows.

The elements are those of the dataset: feature_extractor, classifier, calibrator, regressor, in their order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import numpy as np
from sklearn.model_selection import StratifiedShuffleSplit

CALIBRATION_SIZE = 0.1
CALIBRATION_SEED = 57


class NotNumbers(Exception):
    """The predictions are not an array of real numbers."""


@dataclass(slots=True)
class Model:
    """The trained elements of a submission."""

    feature_extractor: Any = None
    classifier: Any = None
    calibrator: Any = None
    regressor: Any = None


def rows_of(values: Any, positions: Sequence[int] | np.ndarray[Any, Any]) -> Any:
    """Return some rows of a list, a data frame, a series or an array, by position."""
    if isinstance(values, list | tuple):
        return [values[position] for position in positions]
    if hasattr(values, "iloc"):
        return values.iloc[positions]
    return values[positions]


def train(module_path: str, elements: Sequence[str], X: Any, y: Any) -> Model:
    """Train a submission's elements one after the other on the fold's rows."""
    model = Model()
    for element in elements:
        if element == "feature_extractor":
            model.feature_extractor = _new(module_path, element, "FeatureExtractor")
            model.feature_extractor.fit(X, y)
            X = model.feature_extractor.transform(X)
        elif element == "classifier":
            model.classifier = _new(module_path, element, "Classifier")
            if "calibrator" in elements:
                model.calibrator = _calibrated(module_path, model.classifier, X, y)
            else:
                model.classifier.fit(X, y)
        elif element == "regressor":
            model.regressor = _new(module_path, element, "Regressor")
            model.regressor.fit(X, y)
    return model


def predict(model: Model, X: Any) -> Any:
    """Return the predictions of a trained submission: probabilities of a classifier, values of a regressor."""
    X = model.feature_extractor.transform(X) if model.feature_extractor is not None else np.array(X)
    if model.regressor is not None:
        return model.regressor.predict(X)
    probabilities = model.classifier.predict_proba(X)
    if model.calibrator is not None:
        return model.calibrator.predict_proba(probabilities)
    return probabilities


def as_numbers(predictions: Any) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Return predictions as float64 in C order; raises NotNumbers for what is not an array of real numbers."""
    if hasattr(predictions, "toarray"):
        predictions = predictions.toarray()
    try:
        array = np.asarray(predictions)
    except ValueError as error:
        message = f"predictions of type {type(predictions).__name__} are not an array: {error}"
        raise NotNumbers(message) from error
    if array.dtype.kind not in "biuf":
        message = f"predictions of type {type(predictions).__name__} have dtype {array.dtype}, not real numbers"
        raise NotNumbers(message)
    return np.ascontiguousarray(array, dtype="<f8") if array.ndim else array.astype("<f8")


def _new(module_path: str, element: str, class_name: str) -> Any:
    return getattr(import_module(f".{element}", module_path), class_name)()


def _calibrated(module_path: str, classifier: Any, X: Any, y: Any) -> Any:
    splitter = StratifiedShuffleSplit(n_splits=1, test_size=CALIBRATION_SIZE, random_state=CALIBRATION_SEED)
    fitted, held_out = next(splitter.split(X, y))
    classifier.fit(rows_of(X, fitted), rows_of(y, fitted))
    calibrator = _new(module_path, "calibrator", "Calibrator")
    calibrator.fit(classifier.predict_proba(rows_of(X, held_out)), rows_of(y, held_out))
    return calibrator
