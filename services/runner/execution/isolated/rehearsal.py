"""A dry run on made-up numbers, so that what libraries do only once is done before the fork and not in every fold."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression, RidgeCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from .parcels import pack, unpack
from .wire import close
from .workflow import as_numbers

ROWS, COLUMNS, CLASSES = 30, 3, 3
REPEATS = 20
Array = np.ndarray[Any, Any]


def rehearse() -> None:
    """Send a small table through the usual steps of a fold, often enough for the interpreter to specialise them."""
    X = np.arange(ROWS * COLUMNS, dtype=float).reshape(ROWS, COLUMNS) % 7
    y = np.arange(ROWS) % CLASSES
    frame = pd.DataFrame(X, columns=list("abc"))
    for _ in range(REPEATS):
        for values in ([X, y], [frame, frame["a"]]):
            headers, descriptor = pack(values)
            unpack(headers, descriptor)
            close([descriptor])
        _fit_and_predict(X, y)
    as_numbers(RandomForestClassifier(REPEATS).fit(X, y).predict_proba(X))


def _fit_and_predict(X: Array, y: Array) -> None:
    as_numbers(make_pipeline(StandardScaler(), LogisticRegression()).fit(X, y).predict_proba(X))
    as_numbers(RidgeCV().fit(X, y).predict(X))
