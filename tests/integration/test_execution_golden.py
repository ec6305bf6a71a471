"""Whole folds on scikit-learn's data: predictions equal those of a plain program, bit for bit."""

from __future__ import annotations

import base64
import io
import textwrap
from collections.abc import Iterator

import numpy as np
import pandas as pd
import pytest
from sklearn.datasets import load_breast_cancer, load_diabetes, load_iris, load_wine

from datarun.events import Metrics, Split
from services.runner.execution import Failed, Limits, Predictions, Tested, Trained
from tests.integration.execution_oracle import expected
from tests.integration.execution_workbench import GOOD, Workbench, workbench

SCALED_REGRESSION = """
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    class Classifier:
        def __init__(self):
            self.model = make_pipeline(StandardScaler(), LogisticRegression())

        def fit(self, X, y):
            self.model.fit(X, y)

        def predict_proba(self, X):
            return self.model.predict_proba(X)
"""


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workbench]:
    """One executor for all folds of this module."""
    with workbench(tmp_path_factory.mktemp("golden"), Limits(hard_seconds=60)) as bench:
        yield bench


def csv_of(frame: pd.DataFrame) -> bytes:
    """A data frame as the bytes of a CSV file."""
    return frame.to_csv(index=False).encode()


def encoded(files: dict[str, str | bytes]) -> dict[str, str]:
    """Files as the oracle takes them."""
    contents = {n: textwrap.dedent(c).encode() if isinstance(c, str) else c for n, c in files.items()}
    return {name: base64.b64encode(content).decode() for name, content in contents.items()}


def assert_equal(outcome: Tested | Failed, oracle: list[tuple[list[int], bytes]]) -> None:
    """Both predictions have the oracle's shapes and bits."""
    assert isinstance(outcome, Tested), outcome
    for got, (shape, content) in zip((outcome.full_train, outcome.test), oracle, strict=True):
        assert list(got.shape) == shape
        assert got.content == content


def run_standard(
    bench: Workbench, raw: bytes, elements: str, files: dict[str, str | bytes], *, held_out: float, train_rows: int
) -> Tested:
    """Split, run one fold, compare with the oracle."""
    dataset = bench.split(bench.dataset({"raw.csv": raw}, elements), held_out=held_out)
    train_is = np.random.RandomState(7).permutation(train_rows)[: train_rows * 4 // 5].tolist()
    outcome = bench.run(dataset, files, train_is)
    job = {
        "data": encoded({"raw.csv": raw}),
        "files": encoded(files),
        "elements": [element.strip() for element in elements.split(",")],
        "train_is": train_is,
        "held_out": held_out,
    }
    assert_equal(outcome, expected(job))
    assert isinstance(outcome, Tested)
    return outcome


def test_iris_classifier_equals_the_oracle(bench: Workbench) -> None:
    """A scaled logistic regression on iris gives the plain program's probabilities, and nothing is logged."""
    raw = csv_of(load_iris(as_frame=True).frame)
    outcome = run_standard(bench, raw, "classifier", {"classifier.py": SCALED_REGRESSION}, held_out=0.5, train_rows=75)
    assert outcome.test.shape == (75, 3)
    assert outcome.log == ""


def test_text_labels_reach_the_classifier(bench: Workbench) -> None:
    """Labels that are names train as the plain program's do."""
    iris = load_iris(as_frame=True)
    frame = iris.frame.assign(target=iris.target_names[iris.target])
    files: dict[str, str | bytes] = {"classifier.py": SCALED_REGRESSION}
    run_standard(bench, csv_of(frame), "classifier", files, held_out=0.5, train_rows=75)


def test_a_float32_regressor_is_delivered_as_float64(bench: Workbench) -> None:
    """One-dimensional predictions in single precision on diabetes arrive in double precision."""
    regressor = """
        import numpy as np
        from sklearn.linear_model import RidgeCV

        class Regressor:
            def fit(self, X, y):
                self.model = RidgeCV().fit(X, y)

            def predict(self, X):
                return self.model.predict(X).astype(np.float32)
    """
    raw = csv_of(load_diabetes(as_frame=True).frame)
    outcome = run_standard(bench, raw, "regressor", {"regressor.py": regressor}, held_out=0.2, train_rows=353)
    assert outcome.test.shape == (89,)
    assert len(outcome.test.content) == 89 * 8


def test_wine_through_the_whole_chain(bench: Workbench) -> None:
    """Feature extractor, classifier and calibrator work on data frames and by position."""
    files: dict[str, str | bytes] = {
        "feature_extractor.py": """
            import numpy as np

            class FeatureExtractor:
                def fit(self, X_df, y):
                    self.mean = X_df.mean()

                def transform(self, X_df):
                    return np.array(X_df - self.mean)
        """,
        "classifier.py": """
            from sklearn.ensemble import RandomForestClassifier

            class Classifier:
                def __init__(self):
                    self.model = RandomForestClassifier(n_estimators=20, random_state=3)

                def fit(self, X, y):
                    self.model.fit(X, y)

                def predict_proba(self, X):
                    return self.model.predict_proba(X)
        """,
        "calibrator.py": """
            import numpy as np

            class Calibrator:
                def fit(self, probabilities, y):
                    self.prior = np.bincount(np.asarray(y), minlength=3) / len(y)

                def predict_proba(self, probabilities):
                    mixed = 0.9 * probabilities + 0.1 * self.prior
                    return mixed / mixed.sum(axis=1, keepdims=True)
        """,
    }
    raw = csv_of(load_wine(as_frame=True).frame)
    outcome = run_standard(bench, raw, "feature_extractor, classifier, calibrator", files, held_out=0.3, train_rows=124)
    assert np.allclose(np.frombuffer(outcome.test.content).reshape(54, 3).sum(axis=1), 1)


SPECIFIC = """
    import os
    import numpy as np
    import pandas as pd
    from importlib import import_module

    def prepare_data(raw_data_path):
        with np.load(os.path.join(raw_data_path, 'raw.npz')) as raw:
            X, y = raw['X'], raw['y']
        pd.DataFrame(X[:300]).to_csv(os.path.join(raw_data_path, 'train_X.csv'), index=False)
        pd.DataFrame(X[300:]).to_csv(os.path.join(raw_data_path, 'test_X.csv'), index=False)
        np.save(os.path.join(raw_data_path, 'labels.npy'), y)

    def _read(raw_data_path, part):
        X = pd.read_csv(os.path.join(raw_data_path, part + '_X.csv'))
        y = np.load(os.path.join(raw_data_path, 'labels.npy'))
        return SHAPED(X), y[:300] if part == 'train' else y[300:]

    def get_train_data(raw_data_path):
        return _read(raw_data_path, 'train')

    def get_test_data(raw_data_path):
        return _read(raw_data_path, 'test')

    def train_submission(module_path, X_array, y_array, train_is):
        classifier = import_module('.classifier', module_path).Classifier()
        classifier.fit(np.array([np.asarray(X_array[i]) for i in train_is]), y_array[train_is])
        return classifier

    def test_submission(trained_model, X_array, test_is):
        return trained_model.predict_proba(np.array([np.asarray(X_array[i]) for i in test_is]))
"""
SHAPES = {
    "list of series": "[X.iloc[i] for i in range(len(X))]",
    "ndarray": "X.values",
}


@pytest.mark.parametrize("shape", sorted(SHAPES))
def test_a_dataset_with_its_own_code(bench: Workbench, shape: str) -> None:
    """The five functions of specific.py give what they give in a plain program."""
    content = io.BytesIO()
    cancer = load_breast_cancer()
    np.savez(content, X=cancer.data, y=cancer.target)
    data: dict[str, str | bytes] = {
        "raw.npz": content.getvalue(),
        "specific.py": SPECIFIC.replace("SHAPED(X)", SHAPES[shape]),
    }
    dataset = bench.split(bench.dataset(data, "classifier", target=""))
    assert isinstance(dataset.split, Split)
    names = {file.name for file in dataset.split.prepared}
    assert names == {"raw.npz", "specific.py", "train_X.csv", "test_X.csv", "labels.npy"}
    files: dict[str, str | bytes] = {"classifier.py": SCALED_REGRESSION}
    train_is = list(range(0, 300, 2))
    outcome = bench.run(dataset, files, train_is)
    job = {"data": encoded(data), "files": encoded(files), "train_is": train_is, "custom": True}
    assert_equal(outcome, expected(job))


def iris_of(bench: Workbench):
    """Iris, split in halves."""
    raw = csv_of(load_iris(as_frame=True).frame)
    return bench.split(bench.dataset({"raw.csv": raw}, "classifier"), held_out=0.5)


def test_a_side_file_is_read_beside_the_code(bench: Workbench) -> None:
    """A submission reads its own external_data.csv next to its module."""
    classifier = """
        import os
        import numpy as np
        import pandas as pd

        class Classifier:
            def fit(self, X, y):
                path = os.path.join(os.path.dirname(__file__), 'external_data.csv')
                self.value = pd.read_csv(path)['value'][0]

            def predict_proba(self, X):
                return np.full((len(X), 3), self.value)
    """
    files: dict[str, str | bytes] = {"classifier.py": classifier, "external_data.csv": b"value\n0.25\n"}
    outcome = bench.run(iris_of(bench), files, range(60))
    assert isinstance(outcome, Tested), outcome
    assert set(np.frombuffer(outcome.test.content)) == {0.25}


def test_training_is_announced_before_the_end(bench: Workbench) -> None:
    """The announcement carries the full train predictions and the times of the stages before the test."""
    announced: list[Trained] = []
    outcome = bench.run(iris_of(bench), {"classifier.py": GOOD}, range(60), on_trained=announced.append)
    assert isinstance(outcome, Tested)
    (trained,) = announced
    assert trained.predictions == outcome.full_train
    assert trained.metrics.train_time > 0
    assert trained.metrics.test_time == 0


def test_metrics_are_measured_from_outside(bench: Workbench) -> None:
    """Burnt CPU, slept time and touched memory show in the stage they belong to."""
    classifier = """
        import time
        import numpy as np

        class Classifier:
            def fit(self, X, y):
                self.block = np.ones(40 << 17)
                begin = time.process_time()
                while time.process_time() - begin < 0.3:
                    pass

            def predict_proba(self, X):
                time.sleep(0.2)
                return np.full((len(X), 3), 1 / 3)
    """
    outcome = bench.run(iris_of(bench), {"classifier.py": classifier}, range(60))
    assert isinstance(outcome, Tested), outcome
    metrics = outcome.metrics
    assert metrics.train_cpu_time >= 0.3
    assert metrics.train_time >= 0.3
    assert metrics.validation_time >= 0.2
    assert metrics.test_time >= 0.2
    assert metrics.test_cpu_time < 0.15
    assert metrics.test_memory >= metrics.train_memory > 80


def test_every_fold_starts_afresh(bench: Workbench) -> None:
    """A module changed by one fold is as installed in the next, and its random state starts anew."""
    classifier = """
        import numpy as np

        class Classifier:
            def fit(self, X, y):
                assert not hasattr(np, 'mark')
                np.mark = True
                self.value = np.random.rand()

            def predict_proba(self, X):
                return np.full((len(X), 3), self.value)
    """
    dataset = iris_of(bench)
    first, second = (bench.run(dataset, {"classifier.py": classifier}, range(60)) for _ in range(2))
    assert isinstance(first, Tested), first
    assert isinstance(second, Tested), second
    assert first.test == second.test


def test_a_list_and_a_sparse_matrix_are_numbers(bench: Workbench) -> None:
    """Predictions in a list or a sparse matrix are converted."""
    dataset = iris_of(bench)
    for expression in (
        "[[0.2, 0.3, 0.5]] * len(X)",
        "__import__('scipy.sparse').sparse.csr_matrix([[0.2, 0.3, 0.5]] * len(X))",
    ):
        code = (
            f"class Classifier:\n    def fit(self, X, y): pass\n    def predict_proba(self, X): return {expression}\n"
        )
        outcome = bench.run(dataset, {"classifier.py": code}, range(60))
        assert isinstance(outcome, Tested), outcome
        assert outcome.test == Predictions(np.array([[0.2, 0.3, 0.5]] * 75).tobytes(), (75, 3))


def test_a_standard_split_keeps_every_row(bench: Workbench) -> None:
    """The parts of a split are CSV files with the rows of the raw one, counted."""
    frame = load_iris(as_frame=True).frame
    dataset = bench.split(bench.dataset({"raw.csv": csv_of(frame)}, "classifier"), held_out=0.3)
    split = dataset.split
    assert split is not None
    assert split.train is not None
    assert split.test is not None
    assert (split.train_rows, split.test_rows, split.train.media_type) == (105, 45, "text/csv")
    parts = [pd.read_csv(io.BytesIO(bench.blobs.get(part))) for part in (split.train, split.test)]
    merged = pd.concat(parts).sort_values(list(frame.columns)).reset_index(drop=True)
    pd.testing.assert_frame_equal(merged, frame.sort_values(list(frame.columns)).reset_index(drop=True))


def test_two_folds_run_at_once(bench: Workbench) -> None:
    """Two threads get their own results at the same time."""
    from concurrent.futures import ThreadPoolExecutor

    dataset = iris_of(bench)
    code = GOOD.replace("def fit(self, X, y):", "def fit(self, X, y):\n            import time; time.sleep(0.5)")
    with ThreadPoolExecutor(2) as pool:
        outcomes = list(
            pool.map(lambda rows: bench.run(dataset, {"classifier.py": code}, rows), [range(50), range(60)])
        )
    assert all(isinstance(outcome, Tested) for outcome in outcomes), outcomes
    assert outcomes[0].metrics != Metrics()
