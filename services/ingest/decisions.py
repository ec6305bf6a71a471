"""What the gateway decides: pure functions, asked once to refuse early and once more under the claims' locks."""

from __future__ import annotations

import math
from dataclasses import dataclass

from datarun.intake.claims import DatasetClaim, FoldClaim, FoldContext, SubmissionClaim
from services.ingest.commands import RequestFold, RequestSplit
from services.ingest.refusals import Refusal, detail, forbidden, invalid

FOLD_TAKEN = "SubmissionFold with this databoard sf id already exists."
NAME_TAKEN = "RawData with this name already exists."
NEW_SUBMISSION = "This field is required for a new submission."


@dataclass(frozen=True, slots=True)
class FoldDecision:
    """An accepted fold: which attempt of it, of which version of its submission, on which dataset."""

    dataset: DatasetClaim
    attempt: int
    submission_version: int
    is_new_version: bool


def decide_fold(asked: RequestFold, seen: FoldContext, *, files_digest: str | None, only: str | None) -> FoldDecision:
    """Decide about a fold; the digest is None while the files are not decoded yet. Raises Refusal.

    `only` is whose work alone may be touched, None for everybody's.
    """
    _check_owners(asked, seen, only)
    if seen.submission is None:
        dataset, version = _decide_first_fold(asked, seen), 1
    else:
        dataset, version = _decide_next_fold(asked, seen, seen.submission, files_digest)
    if seen.fold is not None and not _may_run_again(asked, seen.fold, version):
        raise invalid(databoard_sf_id=FOLD_TAKEN)
    return FoldDecision(
        dataset=dataset,
        attempt=seen.fold.attempt + 1 if seen.fold else 1,
        submission_version=version,
        is_new_version=seen.submission is None or version > seen.submission.version,
    )


def _check_owners(asked: RequestFold, seen: FoldContext, only: str | None) -> None:
    if only is None:
        return
    if seen.submission is not None and seen.submission.submitted_by != only:
        raise forbidden()
    # Without force it is only a number that is taken.
    if seen.fold is not None and seen.fold.submitted_by != only and asked.force.fold:
        raise forbidden()


def _decide_first_fold(asked: RequestFold, seen: FoldContext) -> DatasetClaim:
    missing = {
        name: [NEW_SUBMISSION]
        for name, value in (("raw_data", asked.raw_data), ("files", asked.files))
        if value is None
    }
    if missing:
        raise Refusal(400, missing)
    if seen.dataset is None:
        raise unknown_dataset(asked.raw_data)
    return seen.dataset


def _decide_next_fold(
    asked: RequestFold, seen: FoldContext, submission: SubmissionClaim, files_digest: str | None
) -> tuple[DatasetClaim, int]:
    number = submission.submission_id
    if seen.dataset is None or asked.raw_data not in (None, submission.raw_data_id):
        raise invalid(raw_data=f"Submission {number} belongs to dataset {submission.raw_data_id}.")
    if asked.force.submission:
        return seen.dataset, submission.version + 1
    if files_digest not in (None, submission.files_digest):
        raise invalid(files=f'Submission {number} exists with other files; send force="submission, submission_fold".')
    return seen.dataset, submission.version


def _may_run_again(asked: RequestFold, fold: FoldClaim, version: int) -> bool:
    # A fold of a version that was replaced is gone for its client, as it was in 2016; its number is free.
    is_replaced = fold.submission_id == asked.databoard_s_id and fold.submission_version < version
    return asked.force.fold or is_replaced


def unknown_dataset(raw_data_id: int | None) -> Refusal:
    """Return the refusal of a submission whose dataset does not exist."""
    return invalid(databoard_s=f'Invalid pk "{raw_data_id}" - object does not exist.')


def decide_split(asked: RequestSplit, dataset: DatasetClaim, *, folds: int, only: str | None) -> int | None:
    """Return the attempt of a split, or None when the same one is under way or done. Raises Refusal."""
    if only not in (None, dataset.uploaded_by):
        raise forbidden()
    _check_split(asked, dataset)
    failed = dataset.split_error is not None and not dataset.waits_for_split
    if dataset.split_attempt and not failed:
        if dataset.split_request == asked.parameters:
            return None
        if folds:
            raise detail(409, f"Dataset {dataset.raw_data_id} is already split and has {folds} folds.")
    return dataset.split_attempt + 1


def _check_split(asked: RequestSplit, dataset: DatasetClaim) -> None:
    if asked.held_out_test is None:
        if not dataset.is_custom:
            raise invalid(raw_data_id=f'Dataset "{dataset.name}" has no specific.py.')
    elif dataset.is_custom:
        raise invalid(raw_data_id=f'Dataset "{dataset.name}" is split by its specific.py: use customsplit.')
    elif dataset.rows is not None and math.ceil(dataset.rows * asked.held_out_test) >= dataset.rows:
        raise invalid(held_out_test=f"The train part would be empty ({dataset.rows} rows).")
