"""The commands a client can give, each with the fields of its body: what is required, what a field may be."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sized
from dataclasses import dataclass, field
from typing import Any

from datarun.events import CustomSplit, Priority, StandardSplit
from services.ingest import forms
from services.ingest.forms import Bad, Field, Form

MAX_RANDOM_STATE = 2**32 - 1
DEFAULT_SEED = 42
MAX_FETCHED_IDS = 10_000
NO_DATASET = 0
"""No dataset has this id; a number too large for one is read as it."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9 _.\-]*")

PRIORITIES = {"L": Priority.LOW, "H": Priority.HIGH, "low": Priority.LOW, "high": Priority.HIGH}


@dataclass(frozen=True, slots=True)
class Force:
    """What is to be run anew although it is known: the fold alone, or the submission with all its folds."""

    fold: bool = False
    submission: bool = False


FORCES = {
    "submission_fold": Force(fold=True),
    "submission": Force(fold=True, submission=True),
    "submission, submission_fold": Force(fold=True, submission=True),
    "submission,submission_fold": Force(fold=True, submission=True),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class UploadData:
    """Accept a dataset."""

    name: str
    target_column: str
    workflow_elements: str
    files: dict[str, Any] = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestSplit:
    """Split a dataset into train and test parts; without a share, by its own specific.py."""

    raw_data_id: int
    held_out_test: float | None = None
    random_state: int = DEFAULT_SEED

    @property
    def plan(self) -> StandardSplit | CustomSplit:
        """What the event says of it."""
        if self.held_out_test is None:
            return CustomSplit()
        return StandardSplit(held_out_test=self.held_out_test, random_state=self.random_state)

    @property
    def parameters(self) -> dict[str, Any]:
        """What makes two requests the same."""
        return self.plan.model_dump()


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestFold:
    """Train and test a submission on one fold."""

    databoard_sf_id: int
    databoard_s_id: int
    train_is: str = field(repr=False)
    test_is: str = field(repr=False)
    priority: Priority
    force: Force
    raw_data: int | None
    files: dict[str, Any] | None = field(repr=False)

    @property
    def size(self) -> int:
        """How many characters are to be decoded, or bytes are received."""
        files = (self.files or {}).values()
        return len(self.train_is) + len(self.test_is) + sum(len(value) for value in files if isinstance(value, Sized))


def _dataset_name(value: Any) -> str:
    name: str = forms.text(at_most=40)(value)
    if not _NAME.fullmatch(name):
        raise Bad("Only letters, digits, space, '_', '-' and '.'; must start with a letter or digit.")
    return name


def _share(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1:
        raise Bad(_SHARE)
    return float(value)


def _seed(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= MAX_RANDOM_STATE:
        raise Bad(f"Must be an integer from 0 to {MAX_RANDOM_STATE}.")
    return value


def _fold_ids(value: Any) -> list[int]:
    if not isinstance(value, list):
        raise Bad(f'Expected a list of items but got type "{type(value).__name__}".')
    if len(value) > MAX_FETCHED_IDS:
        raise Bad(f"At most {MAX_FETCHED_IDS} ids.")
    ids = []
    for position, item in enumerate(value):
        try:
            ids.append(forms.integer(item))
        except Bad as bad:
            raise Bad(body={str(position): bad.body}) from bad
    return ids


_SHARE = "Must be greater than 0 and less than 1."
_DATASET_ID = Field(forms.integer)

_UPLOAD = Form(
    name=Field(_dataset_name),
    workflow_elements=Field(forms.text(at_most=200)),
    target_column=Field(forms.text(at_most=200)),
    files=Field(forms.files),
)
_SPLIT = Form(
    raw_data_id=_DATASET_ID,
    held_out_test=Field(_share, missing=_SHARE),
    random_state=Field(_seed, missing=None, default=DEFAULT_SEED),
)
_CUSTOM_SPLIT = Form(raw_data_id=_DATASET_ID)
_FOLD = Form(
    databoard_sf_id=Field(forms.identifier),
    databoard_s_id=Field(forms.identifier),
    train_is=Field(forms.string),
    test_is=Field(forms.string),
    priority=Field(forms.one_of(PRIORITIES), missing=None, default=Priority.LOW),
    force=Field(forms.one_of(FORCES), missing=None, default=Force()),
    raw_data=Field(forms.integer, missing=None),
    files=Field(forms.files, missing=None),
)
_FETCH = Form(list_submission_fold=Field(_fold_ids))
_FETCH_NEW = Form(raw_data_id=Field(forms.integer, missing=None))


def upload_data(body: Mapping[str, Any]) -> UploadData:
    """Read a dataset; raises Refusal."""
    return UploadData(**_UPLOAD.read(body))


def request_split(body: Mapping[str, Any]) -> RequestSplit:
    """Read a split; raises Refusal."""
    return RequestSplit(**_SPLIT.read(body))


def request_custom_split(body: Mapping[str, Any]) -> RequestSplit:
    """Read a split by specific.py; raises Refusal."""
    return RequestSplit(**_CUSTOM_SPLIT.read(body))


def request_fold(body: Mapping[str, Any]) -> RequestFold:
    """Read a fold; raises Refusal."""
    return RequestFold(**_FOLD.read(body))


def fetch(body: Mapping[str, Any]) -> list[int]:
    """Read the ids of the folds to fetch; raises Refusal."""
    ids: list[int] = _FETCH.read(body)["list_submission_fold"]
    return [number for number in ids if 1 <= number <= forms.MAX_ID]


def fetch_new(body: Mapping[str, Any]) -> int | None:
    """Read the dataset whose new predictions are wanted, None for all; raises Refusal."""
    raw_data_id: int | None = _FETCH_NEW.read(body)["raw_data_id"]
    return raw_data_id if raw_data_id is None or 1 <= raw_data_id <= forms.MAX_ID else NO_DATASET
