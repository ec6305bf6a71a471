"""The contract's numerics once more, as a plain program: reads a JSON job, prints the predictions of both parts.

Run in a process of its own with the executor's thread pins, it is what the executor must equal to the last bit.
"""

from __future__ import annotations

import base64
import importlib
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

PINS = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


def expected(job: dict) -> list[tuple[list[int], bytes]]:
    """Return (shape, bytes) of the full train and of the test predictions."""
    with tempfile.TemporaryDirectory() as folder:
        result = subprocess.run(
            [sys.executable, __file__, folder],
            input=json.dumps(job),
            env={**os.environ, **PINS},
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
    assert result.returncode == 0, result.stderr
    return [(shape, base64.b64decode(content)) for shape, content in json.loads(result.stdout)]


def _write(folder: Path, files: dict[str, str]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(base64.b64decode(content))


def _standard(job: dict):  # noqa: PLR0915 - a plain program, on purpose
    import numpy as np
    import pandas as pd
    from sklearn.model_selection import StratifiedShuffleSplit, train_test_split

    raw = pd.read_csv("data/raw.csv")
    train, test = train_test_split(raw, test_size=job["held_out"], random_state=42)
    train.to_csv("data/train.csv", index=False)
    test.to_csv("data/test.csv", index=False)
    train, test = pd.read_csv("data/train.csv"), pd.read_csv("data/test.csv")
    X_all, y_all = train.drop(columns=["target"]), train["target"]
    X, y = X_all.iloc[job["train_is"]], y_all.iloc[job["train_is"]]
    elements = job["elements"]
    if "feature_extractor" not in elements:
        X, y = np.array(X), np.array(y)

    def new(module: str, name: str):
        return getattr(importlib.import_module(f".{module}", "submission.sub_24"), name)()

    extractor = calibrator = None
    if "feature_extractor" in elements:
        extractor = new("feature_extractor", "FeatureExtractor")
        extractor.fit(X, y)
        X = extractor.transform(X)
    if "regressor" in elements:
        regressor = new("regressor", "Regressor")
        regressor.fit(X, y)
    else:
        classifier = new("classifier", "Classifier")
        if "calibrator" in elements:
            y = np.asarray(y)
            (fit, held), *_ = StratifiedShuffleSplit(n_splits=1, test_size=0.1, random_state=57).split(X, y)
            classifier.fit(X[fit], y[fit])
            calibrator = new("calibrator", "Calibrator")
            calibrator.fit(classifier.predict_proba(X[held]), y[held])
        else:
            classifier.fit(X, y)

    def predict(frame):
        rows = extractor.transform(frame) if extractor else np.array(frame)
        if "regressor" in elements:
            return regressor.predict(rows)
        probabilities = classifier.predict_proba(rows)
        return calibrator.predict_proba(probabilities) if calibrator else probabilities

    return predict(X_all), predict(test.drop(columns=["target"]))


def _custom(job: dict):
    import numpy as np
    import pandas as pd

    sys.path.insert(0, "data")
    import specific

    specific.prepare_data("data")
    X, y = specific.get_train_data("data")
    X_test, y_test = specific.get_test_data("data")
    train_is = job["train_is"]
    if isinstance(X, list):
        rows = [X[i] for i in train_is]
    else:
        rows = X.iloc[train_is] if isinstance(X, pd.DataFrame) else X[train_is]
    model = specific.train_submission("submission.sub_24", rows, y[train_is], np.arange(len(train_is)))
    return (
        specific.test_submission(model, X, range(len(y))),
        specific.test_submission(model, X_test, range(len(y_test))),
    )


def _main(folder: str) -> None:
    import numpy as np

    job = json.load(sys.stdin)
    os.chdir(folder)
    sys.path.insert(0, folder)
    _write(Path("data"), job["data"])
    _write(Path("submission/sub_24"), {"__init__.py": "", **job["files"]})
    Path("submission/__init__.py").touch()
    answers = (_custom if job.get("custom") else _standard)(job)
    arrays = [np.ascontiguousarray(answer, dtype="<f8") for answer in answers]
    print(json.dumps([(array.shape, base64.b64encode(array.tobytes()).decode()) for array in arrays]))  # noqa: T201


if __name__ == "__main__":
    _main(sys.argv[1])
