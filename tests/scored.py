"""A dataset with real labels and submissions whose folds were really fitted, as tests of scores need them."""

from __future__ import annotations

import io
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from sklearn.base import ClassifierMixin
from sklearn.datasets import load_iris
from sklearn.metrics import log_loss
from sklearn.model_selection import ShuffleSplit, train_test_split

from datarun.events import Blob, DataSplit, FoldTested, Split
from tests.gateways import fold_body, indices, packed, wait_until
from tests.histories import run_event
from tests.sites import Site

SPECIES = ("secret-setosa", "secret-versicolor", "secret-virginica")
TARGET = "species"


def iris() -> pd.DataFrame:
    """Return iris with labels that can be looked for in an answer."""
    bunch = load_iris(as_frame=True)
    return bunch.data.round(1).assign(species=bunch.target.map(dict(enumerate(SPECIES))))


@dataclass
class Contest:
    """A dataset of a site, split, and what was predicted for it."""

    site: Site
    number: int
    train: pd.DataFrame
    test: pd.DataFrame
    parts: tuple[Blob, Blob]
    full: dict[int, np.ndarray] = field(default_factory=dict)
    hidden: dict[int, np.ndarray] = field(default_factory=dict)
    rows: dict[int, tuple[np.ndarray, np.ndarray]] = field(default_factory=dict)

    def submit(self, model: ClassifierMixin, *, folds: int = 4, seed: int = 0) -> tuple[int, list[int]]:
        """Have a submission of some folds accepted and tested; returns its number and theirs."""
        submission, numbers = 0, []
        cuts = ShuffleSplit(folds, test_size=0.3, random_state=seed).split(self.train)
        for train_is, test_is in cuts:
            number = self.fold(train_is, test_is, submission=submission or None)
            submission = submission or number
            numbers.append(number)
            self.fit(model, number)
        return submission, numbers

    def fold(self, train_is: np.ndarray, test_is: np.ndarray, *, submission: int | None = None, **fields: Any) -> int:
        """Have a fold accepted and return its number; of a new submission by default, whose number is the same."""
        named = {"train_is": indices(*map(int, train_is)), "test_is": indices(*map(int, test_is))}
        number = self.site.fold(None if submission else self.number, submission=submission, **named, **fields)
        self.rows[number] = (train_is, test_is)
        return number

    def again(self, number: int, submission: int, *, is_new_version: bool = False) -> None:
        """Force a fold, perhaps with its submission."""
        train_is, test_is = (indices(*map(int, rows)) for rows in self.rows[number])
        body = fold_body(number, submission, self.number if is_new_version else None)
        force = "submission, submission_fold" if is_new_version else "submission_fold"
        sent = self.site.gateway.post(
            "submissionfold/", body | {"train_is": train_is, "test_is": test_is, "force": force}
        )
        assert sent.ok, sent.text

    def fit(self, model: ClassifierMixin, number: int, **fields: Any) -> None:
        """Fit a model on a fold's rows, and let a runner say what it predicts."""
        train, test = (part.drop(columns=TARGET).to_numpy() for part in (self.train, self.test))
        rows = self.rows[number][0]
        model.fit(train[rows], self.train[TARGET].to_numpy()[rows])  # type: ignore[attr-defined]
        full, hidden = (model.predict_proba(part) for part in (train, test))  # type: ignore[attr-defined]
        self.say(number, full, hidden, **fields)

    def say(self, number: int, full: np.ndarray, hidden: np.ndarray, **fields: Any) -> None:
        """Let a runner say what a fold predicts; fields are those of the event."""
        self.full[number], self.hidden[number] = full, hidden
        place = {name: fields.pop(name) for name in ("attempt", "delivery") if name in fields}
        told: dict[str, Any] = {
            "full_train_predictions": self.site.blobs.put(np.ascontiguousarray(full).tobytes()),
            "full_train_shape": full.shape,
            "test_predictions": self.site.blobs.put(np.ascontiguousarray(hidden).tobytes()),
            "test_shape": hidden.shape,
        }
        self.site.append(run_event(FoldTested, number, **place).model_copy(update=told | fields))

    def bagged(self, numbers: Sequence[int], part: str) -> list[dict[str, float]]:
        """Return accuracy and log loss of the mean prediction after each fold, worked out plainly."""
        truth = (self.test if part == "test" else self.train)[TARGET].to_numpy()
        return bagged(
            truth,
            [(self.hidden if part == "test" else self.full)[number] for number in numbers],
            [None if part == "test" else self.rows[number][part == "valid"] for number in numbers],
        )


def bagged(
    truth: np.ndarray, predictions: Sequence[np.ndarray], rows: Sequence[np.ndarray | None]
) -> list[dict[str, float]]:
    """Return the scores of the mean over the first folds of what each predicts for its rows, None for all."""
    classes = np.unique(truth)
    gathered = np.full((len(predictions), *predictions[0].shape), np.nan)
    found = []
    for number, (predicted, which) in enumerate(zip(predictions, rows, strict=True)):
        held = np.arange(len(truth)) if which is None else which
        gathered[number, held] = predicted[held]
        with warnings.catch_warnings():
            # Of rows that no fold predicts there is no mean.
            warnings.simplefilter("ignore")
            means = np.nanmean(gathered[: number + 1], axis=0)
        there = ~np.isnan(means).any(axis=1)
        found.append(
            {
                "accuracy": float((classes[means[there].argmax(axis=1)] == truth[there]).mean()),
                "log_loss": float(log_loss(truth[there], means[there], labels=classes)),
            }
        )
    return found


def patiently(site: Site, path: str, **options: Any) -> Any:
    """Return scores, asking again as long as they are being computed: the first ones bring scikit-learn with them."""
    wait_until(lambda: site.ask("GET", path, **options).status_code != 503, seconds=90)
    return site.get(path, **options)


def contest(site: Site) -> Contest:
    """Upload iris and have it split."""
    # With a mark of its own, so that its labels are in no cache.
    mark = next(site.numbers)
    name, csv = f"iris{mark}", iris().assign(mark=mark).to_csv(index=False)
    number = site.gateway.upload(name, files={f"{name}.csv": packed(csv)})
    assert site.gateway.post("rawdata/split/", {"raw_data_id": number, "held_out_test": 0.5}).ok
    parts = [
        pd.read_csv(io.StringIO(part.to_csv(index=False)))
        for part in train_test_split(pd.read_csv(io.StringIO(csv)), test_size=0.5, random_state=42)
    ]
    blobs = (
        site.blobs.put(parts[0].to_csv(index=False).encode()),
        site.blobs.put(parts[1].to_csv(index=False).encode()),
    )
    split = Split(kind="standard", task_id="t", train=blobs[0], test=blobs[1], train_rows=75, test_rows=75)
    site.append(DataSplit(raw_data_id=number, attempt=1, task_id="t", split=split, runner_id="runner"))
    wait_until(lambda: site.get(f"datasets/{number}/split")["state"] == "done")
    return Contest(site, number, parts[0], parts[1], blobs)
