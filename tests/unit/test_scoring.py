"""Scores: equal to what scikit-learn says by hand, and an explained nothing where there is none."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn import metrics as sklearn_metrics

from datarun.blobs import LocalBlobs
from datarun.events import Blob, Split
from datarun.scoring.bag import Bag
from datarun.scoring.folds import Part, Scored, Scorer, TestedFold
from datarun.scoring.functions import BadFunction, load_function
from datarun.scoring.metrics import METRICS, Kind, Metric, UnknownMetric, named
from datarun.scoring.predictions import Stored
from datarun.scoring.score import Score, mean_and_std, score
from datarun.scoring.truth import Subject, Truth, Truths

CHANCE = np.random.default_rng(7)
THREE = Truth(Kind.CLASSIFICATION, np.array([0, 1, 2, 2, 1, 0, 2, 1]), np.array(["ant", "bee", "cat"]))
TWO = Truth(Kind.CLASSIFICATION, np.array([0, 1, 1, 0, 1]), np.array([3.0, 5.0]))
NUMBERS = Truth(Kind.REGRESSION, np.array([1.0, 2.0, 4.0, 8.0]), np.empty(0))


def distributions(rows: int, columns: int) -> np.ndarray:
    """Return probabilities that sum to 1."""
    drawn = CHANCE.random((rows, columns))
    return drawn / drawn.sum(axis=1, keepdims=True)


def by_hand(name: str, truth: Truth, predicted: np.ndarray) -> float:
    """Return a score as one would write it with scikit-learn."""
    labels, classes = truth.labels, range(len(truth.classes))
    chosen = predicted.argmax(axis=1) if predicted.ndim == 2 else predicted
    is_binary = len(truth.classes) == 2
    by_name: dict[str, Any] = {
        "accuracy": (chosen == labels).mean,
        "error": (chosen != labels).mean,
        "balanced_accuracy": lambda: np.mean([(chosen[labels == one] == one).mean() for one in np.unique(labels)]),
        "f1": lambda: sklearn_metrics.f1_score(labels, chosen),
        "f1_macro": lambda: sklearn_metrics.f1_score(labels, chosen, average="macro", zero_division=0.0),
        "mcc": lambda: sklearn_metrics.matthews_corrcoef(labels, chosen),
        "roc_auc": lambda: (
            sklearn_metrics.roc_auc_score(labels, predicted[:, 1])
            if is_binary
            else np.mean([sklearn_metrics.roc_auc_score(labels == one, predicted[:, one]) for one in classes])
        ),
        "log_loss": lambda: -np.log(predicted[np.arange(len(labels)), labels]).mean(),
        "brier": lambda: ((predicted - np.eye(len(truth.classes))[labels]) ** 2).sum(axis=1).mean(),
        "rmse": lambda: np.sqrt(((predicted - labels) ** 2).mean()),
        "mse": lambda: np.mean((predicted - labels) ** 2),
        "mae": lambda: np.abs(predicted - labels).mean(),
        "median_ae": lambda: np.median(np.abs(predicted - labels)),
        "r2": lambda: 1 - ((predicted - labels) ** 2).sum() / ((labels - labels.mean()) ** 2).sum(),
    }
    return float(by_name[name]())


@pytest.mark.parametrize("name", METRICS)
def test_a_score_is_what_it_is_by_hand(name: str) -> None:
    """Of three classes, of two, and of numbers; each scoring function on what it is for."""
    metric = METRICS[name]
    if metric.kind is Kind.REGRESSION:
        cases = [(NUMBERS, np.array([1.5, 1.0, 4.0, 7.0]))]
    else:
        cases = [(TWO, distributions(5, 2))] + ([] if metric.is_binary else [(THREE, distributions(8, 3))])
    for truth, predicted in cases:
        assert score(metric, truth, None, predicted).value == pytest.approx(by_hand(name, truth, predicted), rel=1e-12)


def test_better_is_where_perfect_predictions_are() -> None:
    """The best of all predictions is better than any other, in the direction that the scoring function names."""
    for metric in METRICS.values():
        if metric.kind is Kind.REGRESSION:
            truth, perfect, other = NUMBERS, NUMBERS.labels, np.array([2.0, 1.0, 4.0, 3.0])
        else:
            truth, perfect, other = TWO, np.eye(2)[TWO.labels], np.eye(2)[1 - TWO.labels] * 0.5 + 0.25
        best, worse = (score(metric, truth, None, one).value for one in (perfect, other))
        assert best is not None
        assert worse is not None
        assert (best < worse) is metric.is_lower_the_better, metric.name


def refused(name: str, truth: Truth, predicted: np.ndarray, rows: np.ndarray | None = None) -> str:
    """Return why there is no score."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = score(METRICS[name], truth, rows, predicted)
    assert found.value is None
    assert found.reason
    return found.reason


def test_what_does_not_suit_is_explained() -> None:
    """Another kind, one class alone, no probabilities, what is not finite, labels nobody was trained on."""
    three = distributions(8, 3)
    assert "is for regression" in refused("rmse", THREE, three)
    assert "is for classification" in refused("accuracy", NUMBERS, np.ones(4))
    assert "two classes, and there are 3" in refused("f1", THREE, three)
    assert "each of the 3 classes" in refused("roc_auc", THREE, three[:2], np.array([0, 1]))
    assert "do not sum to 1" in refused("log_loss", THREE, three * 2)
    assert "negative" in refused("brier", THREE, three - np.array([1.0, -1.0, 0.0]))
    assert "1 rows are not finite" in refused(
        "accuracy", THREE, np.where(np.arange(24).reshape(8, 3) == 4, np.nan, three)
    )
    assert "2 rows are not finite" in refused("rmse", NUMBERS, np.array([np.inf, 1.0, -np.inf, 2.0]))
    assert "2 predictions for 4" in refused("rmse", NUMBERS, np.ones(2))
    assert "0 predictions" in refused("rmse", NUMBERS, np.ones(0), np.array([], dtype=int))
    assert "is not defined" in refused("rmse", NUMBERS, np.full(4, 1e200))
    assert "is not defined" in refused("r2", NUMBERS, np.ones(1), np.array([0]))
    strange = Truth(Kind.CLASSIFICATION, np.array([0, -1, 1]), TWO.classes)
    assert "1 rows have labels" in refused("log_loss", strange, distributions(3, 2))
    assert score(METRICS["accuracy"], strange, None, np.eye(2)[[0, 0, 1]]).value == pytest.approx(2 / 3)
    with pytest.raises(UnknownMetric, match="accuracy"):
        named("acuracy")


def test_mean_and_std_have_no_number_for_what_is_too_large() -> None:
    """They are numpy's; an overflow is no crash and no infinity."""
    assert mean_and_std([]) == (None, None)
    assert mean_and_std([1.0, 3.0]) == (2.0, 1.0)
    assert mean_and_std([1e300, -1e300]) == (0.0, None)
    assert mean_and_std([1.7e308, 1.7e308]) == (None, None)


class Bench:
    """A blob store with a dataset of three classes, and folds on it."""

    def __init__(self, folder: Path, *, elements: str = "classifier") -> None:
        self.blobs = LocalBlobs(folder)
        self.frame = pd.DataFrame({"a": range(40), "y": np.resize(["ant", "bee", "cat", "bee"], 40)})
        if elements == "regressor":
            self.frame["y"] = np.arange(40) ** 1.5
        self.train, self.test = self.frame[:30], self.frame[30:]
        parts = [self.blobs.put(part.to_csv(index=False).encode()) for part in (self.train, self.test)]
        split = Split(kind="standard", task_id="t", train=parts[0], test=parts[1], train_rows=30, test_rows=10)
        self.subject = Subject("y", elements, split)
        self.scorer = Scorer(self.blobs, Truths(self.blobs))

    def stored(self, array: Any) -> Stored:
        """Store an array."""
        array = np.asarray(array, dtype="<f8")
        return Stored(self.blobs.put(array.tobytes()), array.shape)

    def rows(self, values: Any) -> Blob:
        """Store row numbers."""
        return self.blobs.put(np.asarray(values, dtype="<i8").tobytes())

    def fold(self, number: int, full_train: Any, test: Any, *, held_out: Any = None, **fields: Any) -> TestedFold:
        """Return a fold; by default it leaves ten rows out that move with its number."""
        held_out = (np.arange(10) + 7 * number) % 30 if held_out is None else held_out
        rest = np.setdiff1d(np.arange(30), held_out)
        made: dict[str, Any] = {
            "fold_id": number,
            "attempt": 1,
            "subject": self.subject,
            "train_is": self.rows(rest),
            "test_is": self.rows(held_out),
            "full_train": self.stored(full_train),
            "test": self.stored(test),
        }
        return TestedFold(**(made | fields))

    def score(self, *folds: TestedFold, names: tuple[str, ...] = ("accuracy", "log_loss")) -> list[Scored]:
        """Score folds on all parts."""
        return self.scorer.score(folds, [METRICS[name] for name in names], list(Part))


def test_a_fold_is_scored_on_its_rows_and_on_the_hidden_ones(tmp_path: Path) -> None:
    """Train, valid and test are scikit-learn on the labels of those rows, in the order the fold names them."""
    bench = Bench(tmp_path)
    full, test = distributions(30, 3), distributions(10, 3)
    held_out = np.array([29, 0, 4, 4, 17])
    rest = np.setdiff1d(np.arange(30), held_out)
    [scored] = bench.score(bench.fold(1, full, test, held_out=held_out))
    classes = np.array(["ant", "bee", "cat"])
    parts = {
        Part.TRAIN: (bench.train["y"].to_numpy()[rest], full[rest]),
        Part.VALID: (bench.train["y"].to_numpy()[held_out], full[held_out]),
        Part.TEST: (bench.test["y"].to_numpy(), test),
    }
    for part, (labels, predicted) in parts.items():
        accuracy = sklearn_metrics.accuracy_score(labels, classes[predicted.argmax(axis=1)])
        loss = sklearn_metrics.log_loss(labels, predicted, labels=list(classes))
        assert scored.own[part, "accuracy"] == Score(accuracy)
        assert scored.own[part, "log_loss"].value == pytest.approx(loss, rel=1e-12)


def test_bagged_scores_are_those_of_the_mean_after_each_fold(tmp_path: Path) -> None:
    """Row by row over the folds that predict it: on valid those that left it out, on test all."""
    bench = Bench(tmp_path)
    full, test = [distributions(30, 3) for _ in range(5)], [distributions(10, 3) for _ in range(5)]
    folds = [bench.fold(number, full[number], test[number]) for number in range(5)]
    found = bench.score(*folds)
    labels = bench.train["y"].map({"ant": 0, "bee": 1, "cat": 2}).to_numpy()
    for count in range(1, 6):
        gathered = np.full((count, 30, 3), np.nan)
        for number in range(count):
            rows = (np.arange(10) + 7 * number) % 30
            gathered[number, rows] = full[number][rows]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            means = np.nanmean(gathered, axis=0)
        there = ~np.isnan(means).any(axis=1)
        expected = (means[there].argmax(axis=1) == labels[there]).mean()
        assert found[count - 1].bagged[Part.VALID, "accuracy"].value == pytest.approx(expected)
        assert found[count - 1].in_bag[Part.VALID] == count
        hidden = sklearn_metrics.log_loss(bench.test["y"], np.mean(test[:count], axis=0), labels=["ant", "bee", "cat"])
        assert found[count - 1].bagged[Part.TEST, "log_loss"].value == pytest.approx(hidden, rel=1e-12)


def test_regressions_are_scored_and_bagged(tmp_path: Path) -> None:
    """One value a row, as a vector or a column."""
    bench = Bench(tmp_path, elements="regressor")
    full, test = [CHANCE.random(30) * 100 for _ in range(2)], [CHANCE.random(10) * 100 for _ in range(2)]
    folds = [bench.fold(0, full[0], test[0]), bench.fold(1, full[1].reshape(30, 1), test[1].reshape(10, 1))]
    found = bench.score(*folds, names=("rmse", "r2"))
    labels = bench.test["y"].to_numpy()
    for count in (1, 2):
        expected = sklearn_metrics.root_mean_squared_error(labels, np.mean(test[:count], axis=0))
        assert found[count - 1].bagged[Part.TEST, "rmse"].value == pytest.approx(expected, rel=1e-12)
    assert found[1].own[Part.TEST, "r2"].value == pytest.approx(sklearn_metrics.r2_score(labels, test[1]), rel=1e-12)


def test_a_fold_that_saw_fewer_classes_has_nothing_for_the_others(tmp_path: Path) -> None:
    """Its columns are those of the classes it was trained on; among others it is bagged all the same."""
    bench = Bench(tmp_path)
    cats = np.flatnonzero(bench.train["y"] == "cat")
    narrow = bench.fold(1, np.tile([0.9, 0.1], (30, 1)), np.tile([0.2, 0.8], (10, 1)), held_out=cats)
    wide = bench.fold(2, distributions(30, 3), np.tile([0.0, 0.0, 1.0], (10, 1)))
    found = bench.score(narrow, wide)
    assert found[0].own[Part.VALID, "accuracy"].value == 0.0
    assert found[0].own[Part.TEST, "accuracy"].value == (bench.test["y"] == "bee").mean()
    assert found[1].bagged[Part.TEST, "accuracy"].value == (bench.test["y"] == "cat").mean()
    assert found[1].in_bag[Part.TEST] == 2


def test_what_is_not_a_number_does_not_count_where_another_fold_has_one(tmp_path: Path) -> None:
    """A row of NaN alone takes the score away rather than leaving the row out; infinity always does."""
    bench = Bench(tmp_path)
    good, holed = distributions(10, 3), distributions(10, 3)
    holed[3] = np.nan
    full = distributions(30, 3)
    found = bench.score(bench.fold(1, full, holed), bench.fold(2, full, good))
    assert found[0].bagged[Part.TEST, "accuracy"].reason == "the predictions of 1 rows are not finite"
    both = np.where(np.isnan(holed), good, (good + np.nan_to_num(holed)) / 2)
    labels = bench.test["y"].map({"ant": 0, "bee": 1, "cat": 2}).to_numpy()
    assert found[1].bagged[Part.TEST, "accuracy"].value == pytest.approx((both.argmax(axis=1) == labels).mean())
    infinite = np.where(np.isnan(holed), np.inf, holed)
    found = bench.score(bench.fold(1, full, infinite), bench.fold(2, full, good))
    assert found[1].bagged[Part.TEST, "accuracy"].value is None


@pytest.mark.parametrize(
    ("shape", "size", "reason"),
    [
        ((29, 3), 29 * 3, "29 predictions for 30 rows"),
        ((30, 4), 120, "4 columns for 3 classes"),
        ((30,), 30, "not one probability a row and class"),
        ((30, 3, 1), 90, "not one probability a row and class"),
        ((30, 3), 89, "the shape that was announced"),
        ((), 1, "the shape that was announced"),
        ((30, 0), 0, "0 columns"),
        ((-30, -3), 90, "the shape that was announced"),
        ((30, 3) + (1,) * 100, 90, "the shape that was announced"),
    ],
)
def test_hostile_predictions_have_a_reason_and_do_not_touch_others(
    tmp_path: Path, shape: tuple[int, ...], size: int, reason: str
) -> None:
    """Whatever shape a runner or a producer announces, the fold beside it is scored and bagged without it."""
    bench = Bench(tmp_path)
    good = bench.fold(2, distributions(30, 3), distributions(10, 3))
    bad = Stored(bench.blobs.put(np.ones(size).tobytes()), shape)
    fold = replace(bench.fold(1, distributions(30, 3), distributions(10, 3)), full_train=bad)
    found = bench.score(fold, good)
    told = found[0].own[Part.VALID, "accuracy"].reason
    assert told is not None
    assert reason in told
    assert found[0].own[Part.TEST, "accuracy"].value is not None
    assert found[1].bagged[Part.VALID, "accuracy"] == found[1].own[Part.VALID, "accuracy"]
    assert found[1].in_bag == {Part.TRAIN: 1, Part.VALID: 1, Part.TEST: 2}


def test_predictions_beyond_a_bound_are_not_brought_into_memory(tmp_path: Path) -> None:
    """Nor are rows that name each row a hundred times over."""
    bench = Bench(tmp_path)
    rows = bench.rows(np.zeros(30 * 100 + 1))
    fold = bench.fold(1, distributions(30, 3), distributions(10, 3), test_is=rows)
    scorer = Scorer(bench.blobs, Truths(bench.blobs), largest_bytes=30 * 3 * 8 - 1)
    [found] = scorer.score([fold], [METRICS["accuracy"]], list(Part))
    assert found.own[Part.TRAIN, "accuracy"].reason == "720 bytes are more than is scored"
    assert found.own[Part.VALID, "accuracy"].reason == "24,008 bytes are more than is scored"
    assert found.own[Part.TEST, "accuracy"].value is not None


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "no such rows"),
        (b"123", "not whole numbers"),
        (np.array([0, 30], dtype="<i8").tobytes(), "out of range 0..29"),
        (np.array([-1], dtype="<i8").tobytes(), "out of range 0..29"),
    ],
)
def test_hostile_indices_have_a_reason(tmp_path: Path, content: bytes, reason: str) -> None:
    """The rows left out are a client's word that nothing has checked before."""
    bench = Bench(tmp_path)
    fold = bench.fold(1, distributions(30, 3), distributions(10, 3), test_is=bench.blobs.put(content))
    [found] = bench.score(fold)
    told = found.own[Part.VALID, "accuracy"].reason
    assert told is not None
    assert reason in told
    assert found.own[Part.TRAIN, "accuracy"].value is not None


def test_a_missing_blob_is_a_reason_and_is_looked_for_again(tmp_path: Path) -> None:
    """Predictions or labels; when they are back there are scores, as nothing of it was remembered."""
    bench = Bench(tmp_path)
    first, second = (bench.fold(number, distributions(30, 3), distributions(10, 3)) for number in (1, 2))
    path = bench.blobs.path(first.test.blob)
    content = path.read_bytes()
    path.unlink()
    found = bench.score(first, second)
    assert found[0].own[Part.TEST, "accuracy"] == Score(
        None, "a blob that it is made from is not in the store", is_final=False
    )
    assert found[1].in_bag[Part.TEST] == 1
    path.write_bytes(b"x" * len(content))
    assert "other bytes" in str(bench.score(first, second)[0].own[Part.TEST, "accuracy"].reason)
    path.write_bytes(content)
    assert bench.score(first, second)[1].in_bag[Part.TEST] == 2
    split = bench.subject.split
    assert split is not None
    assert split.train is not None
    bench.blobs.path(split.train).unlink()
    other = Bench.__new__(Bench)
    other.scorer = Scorer(bench.blobs, Truths(bench.blobs))
    assert "not in the store" in str(other.score(first)[0].own[Part.VALID, "accuracy"].reason)


def test_scores_that_stay_are_computed_once(tmp_path: Path) -> None:
    """From the same content they need no blob any more; a fold more is another bag."""
    bench = Bench(tmp_path)
    folds = [bench.fold(number, distributions(30, 3), distributions(10, 3)) for number in range(3)]
    first = bench.score(*folds[:2])
    more = bench.score(*folds)
    for fold in folds:
        bench.blobs.path(fold.test.blob).unlink()
    assert bench.score(*folds[:2]) == first
    assert bench.score(*folds) == more
    assert more[:2] == first
    last = bench.scorer.score(folds, [METRICS["accuracy"]], list(Part), curve=False)
    assert [one.own[Part.TEST, "accuracy"] for one in last] == [one.own[Part.TEST, "accuracy"] for one in more]
    assert [bool(one.bagged) for one in last] == [False, False, True]
    assert last[-1].bagged[Part.VALID, "accuracy"] == more[-1].bagged[Part.VALID, "accuracy"]
    fresh = Scorer(bench.blobs, Truths(bench.blobs)).score(folds, [METRICS["accuracy"]], [Part.VALID], curve=False)
    assert fresh[-1].bagged[Part.VALID, "accuracy"] == more[-1].bagged[Part.VALID, "accuracy"]
    reordered = bench.score(*reversed(folds))
    assert reordered[0].own[Part.TEST, "accuracy"].value is None


@pytest.mark.parametrize(
    ("csv", "reason"),
    [
        (b"a,y\n1,ant\n2,\n", "1 rows of the dataset have no label"),
        (b"a,z\n1,ant\n", "cannot be read"),
        (b"", "cannot be read"),
        (b"a,y\n1,2,3\n\xff\xfe", "cannot be read"),
    ],
)
def test_labels_that_cannot_be_read_are_a_reason_that_tells_none(tmp_path: Path, csv: bytes, reason: str) -> None:
    """Missing ones, no such column, no table."""
    bench = Bench(tmp_path)
    split = bench.subject.split
    assert split is not None
    subject = Subject("y", "classifier", split.model_copy(update={"train": bench.blobs.put(csv)}))
    [found] = bench.score(bench.fold(1, distributions(30, 3), distributions(10, 3), subject=subject))
    told = found.own[Part.VALID, "accuracy"].reason
    assert told is not None
    assert reason in told
    assert "ant" not in told


@pytest.mark.parametrize(
    ("elements", "kind", "reason"),
    [
        ("classifier", None, "is not split"),
        ("classifier", "custom", "specific.py alone"),
        ("feature_extractor", "standard", "neither a classifier nor a regressor"),
        ("classifier", "standard", "has no train part"),
    ],
)
def test_datasets_without_labels_to_read_are_explained(tmp_path: Path, elements: str, kind: Any, reason: str) -> None:
    """What a dataset's own code prepares is not run for a score."""
    bench = Bench(tmp_path)
    subject = Subject("y", elements, Split(kind=kind, task_id="t") if kind else None)
    [found] = bench.score(bench.fold(1, distributions(30, 3), distributions(10, 3), subject=subject))
    assert reason in str(found.own[Part.TEST, "accuracy"].reason)


@pytest.mark.parametrize(
    ("train", "test", "hits"),
    [
        (["1", "2", "x", "2"], ["1", "2"], 2),
        ([1, 2, 2, 1], ["1", "y"], 1),
        ([True, False, True, False], [True, False], 2),
        ([1.5, 2.5, 1.5, 2.5], [2.5, 3.5], 1),
        (["b", "a", "b", "a"], ["c", "a"], 1),
    ],
)
def test_labels_mean_the_same_in_both_parts(tmp_path: Path, train: list[Any], test: list[Any], hits: int) -> None:
    """Though each part's file is read for itself; a label that only the hidden part has is never right."""
    blobs = LocalBlobs(tmp_path)
    frames = [pd.DataFrame({"a": 0, "y": labels}) for labels in (train, test)]
    parts = [blobs.put(frame.to_csv(index=False).encode()) for frame in frames]
    truths = Truths(blobs)
    subject = Subject("y", "classifier", Split(kind="standard", task_id="t", train=parts[0], test=parts[1]))
    classes = sorted({str(one) for one in train})
    assert [str(one) for one in truths.train(subject).classes] == classes
    found = truths.test(subject).labels
    assert [classes[label] if label >= 0 else None for label in found].count(None) == len(test) - hits
    assert [classes[label] for label in found if label >= 0] == [str(one) for one in test if str(one) in classes]


def test_a_function_of_an_operator_is_given_the_labels_themselves(tmp_path: Path) -> None:
    """By what it says it takes, and its errors are told; a name that exists is not taken."""
    file = tmp_path / "own.py"
    file.write_text(
        "def cats(truth, predicted):\n    return float(((truth == 'cat') == (predicted == 'cat')).mean())\n"
        "cats.takes = 'labels'\n"
        "def broken(truth, predicted):\n    raise KeyError('why')\nbroken.is_lower_the_better = True\n"
        "def accuracy(truth, predicted): ...\n"
        "def odd(truth, predicted): ...\nodd.takes = 'everything'\n"
        "number = 1\n"
    )
    cats, broken = (load_function(f"{file}:{name}") for name in ("cats", "broken"))
    predicted = np.eye(3)[[2, 1, 2, 0, 0, 0, 2, 2]]
    expected = ((THREE.labels == 2) == (predicted.argmax(axis=1) == 2)).mean()
    assert score(cats, THREE, None, predicted) == Score(expected)
    assert broken.is_lower_the_better
    assert "KeyError('why')" in str(score(broken, THREE, None, predicted).reason)
    assert "is for classification" in str(score(cats, NUMBERS, None, np.ones(4)).reason)
    for name in ("accuracy", "odd", "number", "nothing", "a b"):
        with pytest.raises(BadFunction):
            load_function(f"{file}:{name}")
    file.write_text("raise SyntaxError")
    for what in (f"{file}:cats", f"{tmp_path}/none.py:cats", "cats", f"{tmp_path}/none.txt:cats"):
        with pytest.raises(BadFunction):
            load_function(what)


def test_an_empty_bag_has_no_score() -> None:
    """And says why."""
    metric: Metric = METRICS["accuracy"]
    assert Bag().score(metric).reason == "there is no fold"
