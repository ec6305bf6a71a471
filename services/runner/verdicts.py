"""What verifying folds came to, in lines, in numbers and in an exit code."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum

from datarun.events import Provenance
from services.runner.tested import TestedFold
from services.runner.verification import NotVerifiable, Verdict


class Exit(IntEnum):
    """What the exit code says, the worst of it."""

    REPRODUCED = 0
    DIFFERENT = 1
    NOT_VERIFIED = 2
    UNREACHABLE = 3


@dataclass(slots=True)
class Tally:
    """How many folds came out how."""

    reproduced: int = 0
    different: int = 0
    not_verified: int = 0

    @property
    def exit_code(self) -> Exit:
        """A difference is worse than what is not known."""
        if self.different:
            return Exit.DIFFERENT
        return Exit.NOT_VERIFIED if self.not_verified else Exit.REPRODUCED

    @property
    def summary(self) -> str:
        """The numbers in words."""
        counted = {"reproduced": self.reproduced, "different": self.different, "not verified": self.not_verified}
        return ", ".join(f"{count:,} {what}" for what, count in counted.items())


def lines(fold: TestedFold, verdict: Verdict | NotVerifiable, tally: Tally, *, show_provenance: bool) -> Iterator[str]:
    """Yield what came of a fold and count it."""
    if isinstance(verdict, NotVerifiable):
        tally.not_verified += 1
        yield f"fold {fold.fold_id}  NOT VERIFIED: {verdict}"
        return
    event = verdict.event
    tally.reproduced += event.reproduced
    tally.different += not event.reproduced
    yield f"fold {fold.fold_id}  submission {event.submission_id}  {_finding(verdict)}"
    for name, (then, now) in verdict.differences().items():
        yield f"    {name}: {_text(then)} then, {_text(now)} now"
    if show_provenance and verdict.tested.provenance is not None:
        yield from (f"    {name} {_text(value)}" for name, value in verdict.tested.provenance)


def _finding(verdict: Verdict) -> str:
    event = verdict.event
    if verdict.tested.provenance is None:
        remark = "; its provenance was not recorded"
    else:
        remark = f"; of its provenance differ: {', '.join(verdict.differences())}" if verdict.differences() else ""
    if event.reproduced:
        return f"reproduced{remark}"
    if event.cause is not None:
        return f"DIFFERENT: it failed this time ({event.cause}){remark}"
    named = [name for name in event.differing if name not in Provenance.model_fields]
    return f"DIFFERENT: {', '.join(named)}{remark or '; the provenance is the same'}"


def _text(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)
