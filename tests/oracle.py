"""What a fold must predict, worked out plainly from the contract's numerics in this process, one thread."""

from __future__ import annotations

import base64
import importlib.util
import io
import json
import sys
import zlib
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.model_selection import StratifiedShuffleSplit, train_test_split
from threadpoolctl import threadpool_limits


def split(csv_text, held_out_test, random_state=42):
    """Return the train and test parts as a runner reads them: through CSV, twice."""
    parts = train_test_split(pd.read_csv(io.StringIO(csv_text)), test_size=held_out_test, random_state=random_state)
    return [pd.read_csv(io.StringIO(part.to_csv(index=False))) for part in parts]


def predict(csv_text, held_out_test, *, target, elements, folder, train_is):
    """Return the predictions on the full train part and on the test part."""
    train, test = split(csv_text, held_out_test)
    raw = "feature_extractor" in elements
    features = train.drop(columns=[target])
    X, y = features.iloc[train_is], train[target].iloc[train_is]
    if not raw:
        X, y = np.array(X), np.array(y)
    with threadpool_limits(1):
        models = fit(X, y, elements, Path(folder))
        return [apply(models, part if raw else np.array(part)) for part in (features, test.drop(columns=[target]))]


def fit(X, y, elements, folder):
    """Return the fitted element of each kind."""
    models = {}
    if "feature_extractor" in elements:
        models["feature_extractor"] = load(folder, "feature_extractor").FeatureExtractor()
        models["feature_extractor"].fit(X, y)
        X = models["feature_extractor"].transform(X)
    if "regressor" in elements:
        models["regressor"] = load(folder, "regressor").Regressor()
        models["regressor"].fit(X, y)
        return models
    models["classifier"] = load(folder, "classifier").Classifier()
    if "calibrator" not in elements:
        models["classifier"].fit(X, y)
        return models
    y = np.asarray(y)
    ((most, some),) = StratifiedShuffleSplit(n_splits=1, test_size=0.1, random_state=57).split(X, y)
    models["classifier"].fit(X[most], y[most])
    models["calibrator"] = load(folder, "calibrator").Calibrator()
    models["calibrator"].fit(models["classifier"].predict_proba(X[some]), y[some])
    return models


def apply(models, X):
    """Return float64 predictions of fitted elements."""
    if "feature_extractor" in models:
        X = models["feature_extractor"].transform(X)
    if "regressor" in models:
        return np.asarray(models["regressor"].predict(X), dtype=np.float64)
    probabilities = models["classifier"].predict_proba(X)
    if "calibrator" in models:
        probabilities = models["calibrator"].predict_proba(probabilities)
    return np.asarray(probabilities, dtype=np.float64)


def load(folder, name):
    """Import a submission's file afresh."""
    spec = importlib.util.spec_from_file_location(f"oracle_{folder.name}_{name}", folder / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def decode(text):
    """Return the bytes of a prediction as the REST interface sends it."""
    return zlib.decompress(base64.b64decode(text))


if __name__ == "__main__":
    # A fresh process: what other tests loaded or seeded must not matter.
    asked = json.load(sys.stdin)
    predictions = predict(asked.pop("csv_text"), asked.pop("held_out_test"), **asked)
    json.dump([base64.b64encode(zlib.compress(part.tobytes())).decode() for part in predictions], sys.stdout)
