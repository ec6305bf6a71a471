"""The numerics of a fold as pure functions, with a submission made of plain modules."""

from __future__ import annotations

import sys
import types
from collections.abc import Iterator

import numpy as np
import pandas as pd
import pytest
from scipy.sparse import csr_matrix

from services.runner.execution.isolated import workflow
from services.runner.execution.isolated.elements import elements_of
from services.runner.execution.isolated.workflow import NotNumbers

PACKAGE = "a_submission"


class Recorder:
    """An element that remembers what it was fitted on."""

    def fit(self, X, y):
        """Remember."""
        self.fitted = X, y

    def transform(self, X):
        """Double."""
        return np.array(X) * 2

    def predict(self, X):
        """Sum rows."""
        return np.asarray(X).sum(axis=1)

    def predict_proba(self, X):
        """Give the first column and what is left."""
        first = np.asarray(X)[:, 0]
        return np.column_stack([first, 1 - first])


@pytest.fixture
def _submission() -> Iterator[None]:
    """A package whose four modules all have a Recorder."""
    names = {"": None, ".feature_extractor": "FeatureExtractor", ".classifier": "Classifier"}
    names |= {".calibrator": "Calibrator", ".regressor": "Regressor"}
    for suffix, class_name in names.items():
        module = types.ModuleType(PACKAGE + suffix)
        module.__path__ = []
        if class_name:
            setattr(module, class_name, type(class_name, (Recorder,), {}))
        sys.modules[PACKAGE + suffix] = module
    yield
    for suffix in names:
        del sys.modules[PACKAGE + suffix]


@pytest.mark.usefixtures("_submission")
def test_elements_are_trained_in_their_order() -> None:
    """The regressor is fitted on what the feature extractor made."""
    frame, y = pd.DataFrame({"a": [1.0, 2.0]}, index=[7, 3]), pd.Series([1, 2], index=[7, 3])
    model = workflow.train(PACKAGE, elements_of(" feature_extractor,regressor "), frame, y)
    assert model.feature_extractor.fitted[0] is frame
    assert model.regressor.fitted[0].tolist() == [[2.0], [4.0]]
    assert workflow.predict(model, frame).tolist() == [2.0, 4.0]


@pytest.mark.usefixtures("_submission")
def test_the_calibrator_takes_a_tenth_by_position() -> None:
    """Labels in a series with any index are cut by position: nine tenths for the classifier, one for the calibrator."""
    X = np.arange(40.0).reshape(20, 2) / 40
    y = pd.Series([0, 1] * 10, index=range(100, 120))
    model = workflow.train(PACKAGE, ["classifier", "calibrator"], X, y)
    fitted, held_out = model.classifier.fitted, model.calibrator.fitted
    assert (len(fitted[0]), len(held_out[0])) == (18, 2)
    assert sorted([*fitted[1].index, *held_out[1].index]) == list(range(100, 120))
    assert np.array_equal(X[fitted[1].index - 100], fitted[0])


@pytest.mark.parametrize(
    "values",
    [
        [[1.0, 2.0], [3.0, 4.0]],
        pd.DataFrame({"a": [1, 3], "b": [2, 4]}),
        csr_matrix([[1.0, 2.0], [3.0, 4.0]]),
        np.array([[1, 2], [3, 4]], dtype=np.float32),
        np.asfortranarray([[1.0, 2.0], [3.0, 4.0]]),
        np.array([[1, 2], [3, 4]], dtype=">i2"),
    ],
)
def test_numbers_become_float64_in_c_order(values: object) -> None:
    """Whatever holds real numbers is converted to one form."""
    numbers = workflow.as_numbers(values)
    assert numbers.dtype == np.dtype("<f8")
    assert numbers.flags.c_contiguous
    assert numbers.tolist() == [[1, 2], [3, 4]]


@pytest.mark.parametrize("values", [None, "text", [1j], [[1], [1, 2]], ["a"], (x for x in [1]), [None, 1.0], object()])
def test_what_is_no_array_of_real_numbers_is_refused(values: object) -> None:
    """Objects, text, complex numbers, ragged lists and generators are not predictions."""
    with pytest.raises(NotNumbers):
        workflow.as_numbers(values)


def test_rows_are_taken_by_position() -> None:
    """Lists, frames, series and arrays give the rows at the positions, whatever their index says."""
    positions = np.array([2, 0])
    frame = pd.DataFrame({"a": [1, 2, 3]}, index=[2, 1, 0])
    assert workflow.rows_of(["x", "y", "z"], positions) == ["z", "x"]
    assert workflow.rows_of(frame, positions)["a"].tolist() == [3, 1]
    assert workflow.rows_of(frame["a"], positions).tolist() == [3, 1]
    assert workflow.rows_of(np.array([5, 6, 7]), positions).tolist() == [7, 5]
