"""A dry run on made-up numbers, so that what libraries do only once is done before the fork and not in every fold."""

from __future__ import annotations

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


def rehearse() -> None:
    """Send a small table through the usual steps of a fold."""
    X = np.arange(ROWS * COLUMNS, dtype=float).reshape(ROWS, COLUMNS) % 7
    y = np.arange(ROWS) % CLASSES
    frame = pd.DataFrame(X, columns=list("abc"))
    for values in ([X, y], [frame, frame["a"]]):
        headers, descriptor = pack(values)
        unpack(headers, descriptor)
        close([descriptor])
    classifiers = make_pipeline(StandardScaler(), LogisticRegression()), RandomForestClassifier(2)
    for classifier in classifiers:
        as_numbers(classifier.fit(X, y).predict_proba(X))
    as_numbers(RidgeCV().fit(X, y).predict(X))
