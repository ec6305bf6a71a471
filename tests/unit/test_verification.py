"""Which folds are run again, what is compared, and what is said of it."""

import hashlib
from concurrent.futures import Future

import pytest

from datarun.envelope import decode, encode
from datarun.errors import BlobMissing, LogUnavailable, Retryable
from datarun.events import (
    Blob,
    Cause,
    Fault,
    FoldFailed,
    FoldReproduced,
    FoldTested,
    Metrics,
    Provenance,
    Sandbox,
    Stage,
)
from datarun.log import Position, Record
from datarun.log.memory import MemoryLog
from datarun.topics import FOLD_EVENTS
from services.runner.execution import Failed, Predictions, Tested
from services.runner.publisher import Publisher
from services.runner.tested import TestedFold, Wanted, find
from services.runner.verdicts import Exit, Tally, lines
from services.runner.verification import NotVerifiable, Verifier
from tests.histories import CATALOGUE, CONTEXT, requested, run_event
from tests.unit.test_runner_service import ScriptedExecutor

ONES, TWOS = Predictions(b"\1" * 16, (2,)), Predictions(b"\2" * 16, (2,))
PROVENANCE = Provenance(
    environment="0" * 64,
    harness="7" * 64,
    threads=1,
    cpu="a CPU",
    cpu_flags="1" * 64,
    blas=("openblas 1",),
    data="2" * 64,
    code="3" * 64,
    train_is="4" * 64,
    test_is="5" * 64,
    sandbox_level=3,
)


class Scene:
    """A log in memory and a verifier whose executor does what the test says."""

    def __init__(self, *events, script=lambda *_: None, log=None):
        self.log = log or MemoryLog(CATALOGUE)
        for event in events:
            self.append(event)
        self.executor = ScriptedExecutor(script)
        publisher = Publisher(self.log, catalogue=CATALOGUE, source="test")
        self.verifier = Verifier(self.executor, self.log, publisher, "verifier-1", Sandbox(level=3))

    def append(self, event):
        """Append an event."""
        return self.log.append(encode(event, catalogue=CATALOGUE, context=CONTEXT)).result()

    def appended(self):
        """Return what was found until now."""
        ends = self.log.end_offsets([CATALOGUE.full_name(FOLD_EVENTS)])
        records = [record for batch in self.log.read(dict.fromkeys(ends, 0), until_end=True) for record in batch]
        decoded = [decode(record.value, record.headers) for record in records]
        return [event for event in decoded if isinstance(event, FoldReproduced)]

    def find(self, **wanted):
        """Return what is found."""
        return find(self.log, Wanted(**wanted), catalogue=CATALOGUE, progress=lambda *_: None)

    def verify(self):
        """Run the one tested fold again."""
        (fold,) = self.find().folds
        return self.verifier.verify(fold)


def test_a_fold_is_its_newest_ended_attempt_and_that_its_first_end():
    """A forced attempt that runs hides nothing; a zombie's second result is not the fold's."""
    scene = Scene(requested(7), requested(7, attempt=2), requested(7, attempt=2, delivery=2), requested(7, attempt=3))
    scene.append(run_event(FoldTested, 7))
    result = scene.append(run_event(FoldTested, 7, attempt=2, delivery=2))
    scene.append(run_event(FoldFailed, 7, attempt=2, delivery=1))
    ((fold,), problems) = scene.find().folds, scene.find().problems
    assert (fold.fold_id, fold.result, problems) == (7, result, {})
    event, _ = scene.verifier._read(fold.request, type(requested(7)))
    assert (event.attempt, event.delivery) == (2, 2)


def test_what_was_not_tested_is_named_with_the_reason_when_it_was_asked_for():
    """Without being named, folds that were not tested are simply not among the tested."""
    scene = Scene(requested(1), requested(2), run_event(FoldFailed, 2), run_event(FoldTested, 3))
    found = scene.find(fold_ids=(1, 2, 3, 4))
    assert found.folds == []
    assert found.problems == {
        1: "has no result yet",
        2: "failed: there are no test predictions to reproduce",
        3: "was tested, but its request is not in the log",
        4: "is not in the log",
    }
    assert scene.find().problems.keys() == {3}


def test_folds_are_chosen_by_dataset_and_submission_and_sampled():
    """Folds 1 to 6 are of submissions 2, 3 and 1 of dataset 1."""
    scene = Scene()
    for fold_id in range(1, 7):
        scene.append(requested(fold_id))
        scene.append(run_event(FoldTested, fold_id))
    assert [fold.fold_id for fold in scene.find(raw_data_id=1).folds] == [1, 2, 3, 4, 5, 6]
    assert [fold.fold_id for fold in scene.find(submission_id=2).folds] == [1, 4]
    assert scene.find(raw_data_id=2).folds == []
    sampled = [fold.fold_id for fold in scene.find(sample=4).folds]
    assert len(set(sampled)) == 4
    assert sampled == sorted(sampled)
    assert len(scene.find(sample=40).folds) == 6


def test_records_that_are_no_events_are_passed():
    """Garbage and misrouted results are the dead letters' business, not a result to verify."""
    scene = Scene(requested(7))
    kind = (("ce_type", FoldTested.type_name().encode()),)
    topic = CATALOGUE.full_name(FOLD_EVENTS)
    scene.log.append(Record(topic, b"7", b"{", kind))
    scene.log.append(Record(topic, b"8", run_event(FoldTested, 7).model_dump_json().encode(), kind))
    assert scene.find(fold_ids=(7,)).problems == {7: "has no result yet"}


def recorded(*, provenance=PROVENANCE, test=ONES):
    """Return a result with real predictions."""

    def blob(predictions):
        return Blob(sha256=hashlib.sha256(predictions.content).hexdigest(), size=len(predictions.content))

    event = run_event(FoldTested, 7)
    return event.model_copy(
        update={
            "full_train_predictions": blob(ONES),
            "full_train_shape": (2,),
            "test_predictions": blob(test),
            "test_shape": test.shape,
            "provenance": provenance,
        }
    )


def again(*, full_train=ONES, test=ONES, provenance=PROVENANCE):
    """Return what a second run comes to."""
    return Tested(full_train, test, Metrics(), "", provenance)


OTHER = PROVENANCE.model_copy(update={"threads": 2})
DIFFERENT_THREADS = "DIFFERENT: test_predictions; of its provenance differ: threads"
FAILED = Failed(Stage.TEST, Cause.HARD_TIMEOUT, Fault.LIMIT, "too slow", full_train=ONES)


@pytest.mark.parametrize(
    ("result", "outcome", "differing"),
    [
        (recorded(), again(), ()),
        (recorded(), again(test=TWOS), ("test_predictions",)),
        (recorded(), again(full_train=TWOS), ("full_train_predictions",)),
        (recorded(), again(test=Predictions(ONES.content, (1, 2))), ("test_predictions",)),
        (recorded(), again(provenance=OTHER), ("threads",)),
        (recorded(provenance=None), again(), ()),
        (recorded(), FAILED, ("test_predictions",)),
    ],
)
def test_every_field_that_differs_is_named_and_appended(result, outcome, differing):
    """Only predictions decide whether a fold is reproduced; a shape is part of them."""
    scene = Scene(requested(7), result, script=lambda *_: outcome)
    verdict = scene.verify()
    assert verdict.event.differing == differing
    assert verdict.event.reproduced == (not any("predictions" in name for name in differing))
    assert verdict.event.cause == (Cause.HARD_TIMEOUT if outcome is FAILED else None)
    assert scene.appended() == [verdict.event]


def scripted(*outcomes):
    """Return a script that does one thing after the other."""
    left = list(outcomes)

    def script(*_):
        outcome = left.pop(0)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    return script


def test_a_fault_of_the_platform_is_tried_again():
    """A zygote that dies says nothing of the fold."""
    scene = Scene(requested(7), recorded(), script=scripted(Retryable("died"), Retryable("died"), again()))
    assert scene.verify().event.reproduced


@pytest.mark.parametrize("faults", [[Retryable("died")] * 3, [BlobMissing("lost")]])
def test_what_cannot_be_run_is_no_difference(faults):
    """After three tries, and at once when a file is gone, the reason is told and nothing is appended."""
    scene = Scene(requested(7), recorded(), script=scripted(*faults))
    with pytest.raises(NotVerifiable, match=str(faults[0])):
        scene.verify()
    assert scene.appended() == []


def test_a_log_that_does_not_answer_ends_the_verification():
    """What is found and not appended is not found."""

    class Deaf(MemoryLog):
        """Reads, but acknowledges no verification."""

        def append(self, record):
            if (b"datarun.FoldReproduced.v1") in dict(record.headers).values():
                return failed_future(LogUnavailable("away"))
            return super().append(record)

    scene = Scene(requested(7), recorded(), script=scripted(again()), log=Deaf(CATALOGUE))
    with pytest.raises(LogUnavailable, match="away"):
        scene.verify()


def failed_future(error):
    """Return a future that has ended with an error."""
    future = Future()
    future.set_exception(error)
    return future


def test_a_difference_outweighs_what_is_not_known():
    """The exit code is 0 only when every fold gave the same bits."""
    assert Tally(reproduced=3).exit_code == Exit.REPRODUCED
    assert Tally(reproduced=3, not_verified=1).exit_code == Exit.NOT_VERIFIED
    assert Tally(reproduced=3, not_verified=1, different=1).exit_code == Exit.DIFFERENT


@pytest.mark.parametrize(
    ("result", "outcome", "line"),
    [
        (recorded(), again(), "reproduced"),
        (recorded(provenance=None), again(), "reproduced; its provenance was not recorded"),
        (recorded(), again(test=TWOS), "DIFFERENT: test_predictions; the provenance is the same"),
        (recorded(), FAILED, "DIFFERENT: it failed this time (hard_timeout)"),
        (recorded(), again(test=TWOS, provenance=OTHER), DIFFERENT_THREADS),
    ],
)
def test_a_line_says_what_was_found(result, outcome, line):
    """One line a fold, and one more for each field of the provenance that differs."""
    scene, tally = Scene(requested(7), result, script=scripted(outcome)), Tally()
    (fold,) = scene.find().folds
    said = list(lines(fold, scene.verifier.verify(fold), tally, show_provenance=False))
    assert said[0] == f"fold 7  submission 2  {line}"
    assert said[1:] == (["    threads: 1 then, 2 now"] if "threads" in line else [])
    assert (tally.reproduced, tally.different) == ((1, 0) if line.startswith("reproduced") else (0, 1))


def test_a_fold_that_cannot_be_verified_has_its_line():
    """The reason stands beside the fold."""
    fold, tally = TestedFold(7, Position("t", 0, 0), Position("t", 0, 1)), Tally()
    said = list(lines(fold, NotVerifiable("a file is gone"), tally, show_provenance=True))
    assert (said, tally.not_verified) == (["fold 7  NOT VERIFIED: a file is gone"], 1)
