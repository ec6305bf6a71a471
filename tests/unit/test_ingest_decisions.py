"""What the gateway decides, given what it knows: no database, no clock."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from datarun.events import Blob, NamedBlob, Priority, Split
from datarun.intake.claims import DatasetClaim, FoldClaim, FoldContext, SubmissionClaim
from services.ingest.commands import FORCES, Force, RequestFold, RequestSplit
from services.ingest.decisions import decide_fold, decide_split
from services.ingest.refusals import Refusal

FILES = (NamedBlob(name="iris.csv", blob=Blob(sha256="a" * 64, size=1)),)
IRIS = DatasetClaim(1, "iris", "species", "classifier", FILES, 150, 0, None, None, 0, None, None)
CUSTOM = replace(IRIS, files=(NamedBlob(name="specific.py", blob=FILES[0].blob),), rows=None)
SUBMISSION = SubmissionClaim(24, 1, 3, FILES, "digest")
FOLD = FoldClaim(11, 5, 24, 3)
AT = datetime(2026, 1, 1, tzinfo=UTC)
NOTHING = FoldContext(None, None, None, AT)
KNOWN = FoldContext(IRIS, SUBMISSION, None, AT)
TAKEN = FoldContext(IRIS, SUBMISSION, FOLD, AT)
HALF = RequestSplit(raw_data_id=1, held_out_test=0.5, random_state=42)
SPLIT = replace(IRIS, split_attempt=1, split_request=HALF.parameters, split_task_id="t")


def asked(**changes: Any) -> RequestFold:
    """Return a request for a next fold, with changes."""
    base: dict[str, Any] = {"databoard_sf_id": 11, "databoard_s_id": 24, "train_is": "", "test_is": ""}
    base |= {"priority": Priority.LOW, "force": Force(), "raw_data": None, "files": None}
    return RequestFold(**(base | changes))


@pytest.mark.parametrize(
    ("request_", "seen", "expected"),
    [
        (asked(raw_data=1, files={}), FoldContext(IRIS, None, None, AT), (1, 1, True)),
        (asked(), KNOWN, (1, 3, False)),
        (asked(raw_data=1, files={}), KNOWN, (1, 3, False)),
        (asked(force=FORCES["submission_fold"]), TAKEN, (6, 3, False)),
        (asked(force=FORCES["submission"]), TAKEN, (6, 4, True)),
        (asked(force=FORCES["submission, submission_fold"]), KNOWN, (1, 4, True)),
        (asked(), replace(TAKEN, fold=replace(FOLD, submission_version=2)), (6, 3, False)),
    ],
)
def test_accepted_folds(request_: RequestFold, seen: FoldContext, expected: tuple[int, int, bool]) -> None:
    """A fold gets the next attempt, and its submission a new version only by force or when it is new."""
    decision = decide_fold(request_, seen, files_digest="digest" if request_.files is not None else None, only=None)
    assert (decision.attempt, decision.submission_version, decision.is_new_version) == expected


@pytest.mark.parametrize(
    ("request_", "seen", "digest", "field"),
    [
        (asked(), NOTHING, None, "files"),
        (asked(files={}), NOTHING, None, "raw_data"),
        (asked(files={}, raw_data=9), NOTHING, None, "databoard_s"),
        (asked(raw_data=2), KNOWN, None, "raw_data"),
        (asked(raw_data=2, force=FORCES["submission"]), KNOWN, None, "raw_data"),
        (asked(files={}), KNOWN, "other", "files"),
        (asked(files={}, force=FORCES["submission_fold"]), TAKEN, "other", "files"),
        (asked(), TAKEN, None, "databoard_sf_id"),
        (asked(), replace(TAKEN, fold=replace(FOLD, submission_id=7, submission_version=1)), None, "databoard_sf_id"),
    ],
)
def test_refused_folds(request_: RequestFold, seen: FoldContext, digest: str | None, field: str) -> None:
    """What contradicts what is known is refused, and the field is named."""
    with pytest.raises(Refusal) as refused:
        decide_fold(request_, seen, files_digest=digest, only=None)
    assert refused.value.status == 400
    assert field in refused.value.body


@pytest.mark.parametrize(
    ("request_", "dataset", "folds", "attempt"),
    [
        (HALF, IRIS, 0, 1),
        (HALF, IRIS, 3, 1),
        (HALF, SPLIT, 3, None),
        (replace(HALF, random_state=7), SPLIT, 0, 2),
        (HALF, replace(SPLIT, result_attempt=1, split_error="no such column"), 3, 2),
        (RequestSplit(raw_data_id=1), CUSTOM, 0, 1),
    ],
)
def test_accepted_splits(request_: RequestSplit, dataset: DatasetClaim, folds: int, attempt: int | None) -> None:
    """A repeated split is the one there is, other parameters and a failed one make a new attempt."""
    assert decide_split(request_, dataset, folds=folds, only=None) == attempt


@pytest.mark.parametrize(
    ("request_", "dataset", "folds", "status"),
    [
        (replace(HALF, held_out_test=0.4), SPLIT, 3, 409),
        (RequestSplit(raw_data_id=1), IRIS, 0, 400),
        (HALF, CUSTOM, 0, 400),
        (replace(HALF, held_out_test=0.999), IRIS, 0, 400),
    ],
)
def test_refused_splits(request_: RequestSplit, dataset: DatasetClaim, folds: int, status: int) -> None:
    """A split that would change what folds ran on, or that cannot be, is refused."""
    with pytest.raises(Refusal) as refused:
        decide_split(request_, dataset, folds=folds, only=None)
    assert refused.value.status == status


def test_a_manifest_has_the_split_of_the_newest_attempt_alone() -> None:
    """While a newer split is under way the older one's parts are nobody's."""
    split = Split(kind="standard", task_id="t")
    done = replace(SPLIT, result_attempt=1, split=split)
    assert done.manifest.split == split
    assert not done.waits_for_split
    again = replace(done, split_attempt=2)
    assert again.waits_for_split
    assert again.manifest.split is None
