"""The texts a failed fold or split is reported with, as the original's clients know them."""

from __future__ import annotations

from datarun.errors import FoldFailure
from datarun.events import Cause, Fault, Stage

_PART = {Stage.VALIDATION: "full train", Stage.TEST: "test"}


def tagged(stage: Stage, text: str, details: str = "") -> str:
    """Return a text with the tag of its stage, and what explains it on the lines below."""
    match stage:
        case Stage.SPLIT:
            return f"{text}ERROR(split data) \n{details}"
        case Stage.TEST:
            return f"\n\n{text} - ERROR({stage})\n{details}"
        case _:
            return f"\n{text} - ERROR({stage})\n{details}"


def failure(stage: Stage, cause: Cause, fault: Fault, text: str, details: str = "") -> FoldFailure:
    """Return the failure of a stage with its tagged text."""
    return FoldFailure(tagged(stage, text, details), stage=stage, cause=cause, fault=fault)


def cancelled(stage: Stage) -> FoldFailure:
    """Return the failure of a fold that nobody wants any more."""
    return failure(stage, Cause.CANCELLED, Fault.USER, "cancelled")


def protocol_error(stage: Stage, text: str) -> FoldFailure:
    """Return the failure of a submission that meddled with how results are passed on."""
    return failure(stage, Cause.POLICY, Fault.USER, f"protocol_error: {text}")


def wrong_predictions(stage: Stage, what: str, got: object, expected: object) -> FoldFailure:
    """Return the failure of predictions of the wrong size or shape."""
    text = f"Wrong {_PART[stage]} prediction {what}: \n{got} instead of {expected} \n"
    return failure(stage, Cause.OUTPUT_SHAPE, Fault.USER, text)


def split_refusal(text: str) -> FoldFailure:
    """Return the failure of a fold whose data cannot be had."""
    return failure(Stage.SPLIT, Cause.INVALID, Fault.USER, text)
