"""The runner's loop: what it appends, accepts and gives back, whatever the work does."""

import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from datarun import envelope, events
from datarun.blobs import LocalBlobs
from datarun.errors import BlobMissing, DatarunError, Retryable
from datarun.events import Cause, Fault, Metrics, Priority, Sandbox, Stage
from datarun.log import Record
from datarun.log.memory import MemoryLog, MemoryWorkQueue, QueueState
from datarun.published import files, golden
from datarun.signatures import Key, Signatures
from datarun.topics import DATA_EVENTS, DATA_REQUESTS, DEAD_LETTERS, FOLD_EVENTS, FOLD_REQUESTS_LOW, QUEUES, Catalogue
from services.runner.__main__ import Self, parse_queues
from services.runner.execution import Failed, InputsCorrupt, Predictions, Tested, Trained
from services.runner.heartbeat import Holdings
from services.runner.publisher import LETTER_BYTES, Publisher
from services.runner.service import Service
from services.runner.slots import Slots
from services.runner.work import SPLIT_TRIES, Worker
from tests.unit.test_envelope import fold_requested

CATALOGUE = Catalogue("t.")
ONES = Predictions(content=b"\0" * 8, shape=(1,))
GOLDEN = Path(__file__).parents[2] / files.GOLDEN
CONTEXT = envelope.Context(source="test", time=envelope.now())


class ScriptedExecutor:
    """Stands in for the execution engine: does what the test says for each fold."""

    def __init__(self, script):
        self.script = script
        self.ran = []
        self.cancelled = []

    def run(self, request, *, on_trained):
        self.ran.append((request.fold_id, request.attempt, request.delivery))
        return self.script(request, on_trained)

    def split(self, request):
        return self.script(request, None)

    def cancel(self, fold_id, attempt):
        self.cancelled.append((fold_id, attempt))


class System:
    """One runner over a log in memory."""

    def __init__(self, tmp_path, script, *, slots=1, grace=5, after=None, catalogue=CATALOGUE):
        self.log = after.log if after else MemoryLog(CATALOGUE)
        self.executor = ScriptedExecutor(script)
        self.state = after.state if after else QueueState()
        self.queue = MemoryWorkQueue(
            self.log, [(name, QUEUES[name]) for name in ("H", "data", "L")], catalogue=CATALOGUE, state=self.state
        )
        worker = Worker(
            executor=self.executor,
            blobs=LocalBlobs(tmp_path),
            publisher=Publisher(self.log, catalogue=catalogue, source="test"),
            identity=Self("runner-1", Sandbox(level=1)),
        )
        self.holdings = Holdings()
        self.service = Service(
            queue=self.queue,
            worker=worker,
            catalogue=catalogue,
            holdings=self.holdings,
            slot_count=slots,
            grace_seconds=grace,
        )

    def append(self, event):
        self.log.append(envelope.encode(event, catalogue=CATALOGUE, context=CONTEXT))

    def events(self, topic=FOLD_EVENTS):
        ends = self.log.end_offsets([CATALOGUE.full_name(topic)])
        records = [record for batch in self.log.read(dict.fromkeys(ends, 0), until_end=True) for record in batch]
        return [envelope.decode(record.value, record.headers) for record in records]

    def letters(self):
        ends = self.log.end_offsets([CATALOGUE.full_name(DEAD_LETTERS)])
        return [record for batch in self.log.read(dict.fromkeys(ends, 0), until_end=True) for record in batch]

    def reasons(self):
        return [envelope.header(record.headers, "datarun-reason") for record in self.letters()]

    def run_until(self, condition):
        thread = threading.Thread(target=self.service.run)
        thread.start()
        deadline = time.monotonic() + 20
        while not condition() and time.monotonic() < deadline:
            time.sleep(0.01)
        self.service.stop()
        thread.join(20)
        assert condition()


class SlowBlobs(LocalBlobs):
    """Blobs that are stored when the test says so."""

    def __init__(self, folder):
        super().__init__(folder)
        self.may_store = threading.Event()

    def put(self, content, **options):
        self.may_store.wait(20)
        return super().put(content, **options)


def succeed(_request, on_trained):
    """Do what a good submission does."""
    on_trained(Trained(predictions=ONES, metrics=Metrics(train_time=1.0)))
    return Tested(full_train=ONES, test=ONES, metrics=Metrics(train_time=1.0, test_time=2.0), log="hello")


def split_requested():
    """Return the request of a dataset's first split."""
    return events.SplitRequested(
        raw_data_id=1,
        attempt=1,
        task_id="s",
        plan=events.StandardSplit(held_out_test=0.3, random_state=42),
        dataset=fold_requested().dataset,
        requested_by="u",
    )


def join_slots():
    """Wait until what was killed has ended."""
    for thread in threading.enumerate():
        if thread.name == "slot":
            thread.join(20)


def kinds(system):
    """Return the names of the fold events in the log."""
    return [type(event).__name__ for event in system.events()]


def test_a_fold_is_started_trained_and_tested(tmp_path):
    """One good fold leaves three events, each naming the runner, and holds nothing at the end."""
    system = System(tmp_path, succeed)
    system.append(fold_requested())
    system.run_until(lambda: "FoldTested" in kinds(system))
    assert kinds(system) == ["FoldStarted", "FoldTrained", "FoldTested"]
    result = system.events()[-1]
    assert (result.runner_id, result.log, result.metrics.test_time) == ("runner-1", "hello", 2.0)
    assert system.holdings.folds() == ()
    assert system.queue.take() is None


def test_a_failed_fold_ends_and_the_next_runs(tmp_path):
    """A submission's failure is a FoldFailed with stage, cause and fault, and costs the next fold nothing."""

    def script(request, on_trained):
        if request.fold_id == 11:
            return Failed(
                stage=Stage.TRAIN,
                cause=Cause.USER_ERROR,
                fault=Fault.USER,
                message="\nValueError() - ERROR(train)\n",
                log="",
                metrics=Metrics(),
                full_train=None,
            )
        return succeed(request, on_trained)

    system = System(tmp_path, script)
    system.append(fold_requested(fold_id=11))
    system.append(fold_requested(fold_id=12))
    system.run_until(lambda: "FoldTested" in kinds(system))
    failure = next(event for event in system.events() if isinstance(event, events.FoldFailed))
    assert (failure.fold_id, failure.stage, failure.cause, failure.fault) == (11, "train", "user_error", "user")


@pytest.mark.parametrize("error", [Retryable("zygote died"), RuntimeError("a defect")])
def test_a_platform_fault_gives_the_fold_back(tmp_path, error):
    """Without a result the heartbeat stops naming the fold, so that the reaper requests it again."""

    def script(request, on_trained):
        if request.delivery == 1:
            raise error
        return succeed(request, on_trained)

    system = System(tmp_path, script)
    system.append(fold_requested())
    system.append(fold_requested(delivery=2))
    system.run_until(lambda: "FoldTested" in kinds(system))
    assert [event.delivery for event in system.events()] == [1, 2, 2, 2]
    assert system.holdings.folds() == ()


def test_a_record_handed_out_again_is_not_run_again(tmp_path):
    """A broker that forgot an accept hands the same delivery out once more; it is accepted, not run."""
    system = System(tmp_path, succeed)
    system.append(fold_requested())
    system.append(fold_requested())
    system.append(fold_requested(fold_id=12))
    system.run_until(lambda: kinds(system).count("FoldTested") == 2)
    assert [fold_id for fold_id, *_ in system.executor.ran] == [11, 12]
    assert system.queue.take() is None


def test_high_goes_before_low(tmp_path):
    """With both waiting and one slot, the high fold runs first."""
    system = System(tmp_path, succeed)
    system.append(fold_requested(fold_id=11, priority=Priority.LOW))
    system.append(fold_requested(fold_id=12, priority=Priority.HIGH))
    system.run_until(lambda: kinds(system).count("FoldTested") == 2)
    assert [fold_id for fold_id, *_ in system.executor.ran] == [12, 11]


def test_low_gets_its_share_of_endless_high(tmp_path):
    """One start in eight, while high folds never cease."""
    system = System(tmp_path, succeed)
    for fold_id in range(1, 21):
        system.append(fold_requested(fold_id=fold_id, priority=Priority.HIGH))
    for fold_id in (101, 102):
        system.append(fold_requested(fold_id=fold_id, priority=Priority.LOW))
    system.run_until(lambda: kinds(system).count("FoldTested") == 22)
    order = [fold_id for fold_id, *_ in system.executor.ran]
    assert (order[7], order[15]) == (101, 102)


def test_no_more_folds_run_than_there_are_slots(tmp_path):
    """Two slots run two folds at once and never three."""
    running, most = set(), []
    lock = threading.Lock()

    def script(request, on_trained):
        with lock:
            running.add(request.fold_id)
            most.append(len(running))
        time.sleep(0.05)
        with lock:
            running.discard(request.fold_id)
        return succeed(request, on_trained)

    system = System(tmp_path, script, slots=2)
    for fold_id in range(1, 9):
        system.append(fold_requested(fold_id=fold_id))
    system.run_until(lambda: kinds(system).count("FoldTested") == 8)
    assert max(most) == 2


def test_the_next_fold_starts_while_predictions_are_stored(tmp_path):
    """A slot runs folds; what is left of one when its process has ended is done beside the next."""
    blobs, told = SlowBlobs(tmp_path), []

    def script(request, _on_trained):
        if request.fold_id == 12:
            told.extend(kinds(system))
            blobs.may_store.set()
        return Tested(full_train=ONES, test=ONES, metrics=Metrics(), log="")

    system = System(tmp_path, script)
    system.service.worker = replace(system.service.worker, blobs=blobs)
    for fold_id in (11, 12):
        system.append(fold_requested(fold_id=fold_id))
    system.run_until(lambda: kinds(system).count("FoldTested") == 2)
    assert told == ["FoldStarted", "FoldStarted"]
    assert system.holdings.folds() == ()


def test_no_more_results_wait_than_there_are_slots():
    """Where they cannot be told as fast as folds end, folds wait for them."""
    slots = Slots(1)
    for _ in range(2):
        assert slots.wait_free(0)
        slots.occupy()
        slots.vacate_untold()
    assert not slots.wait_free(0)
    slots.told()
    assert slots.wait_free(0)


def test_a_record_nobody_can_run_becomes_a_dead_letter(tmp_path):
    """Garbage in a queue is kept with its reason, and the fold behind it runs."""
    system = System(tmp_path, succeed)
    system.log.append(Record("t.fold-requests.low", b"11", b"{}", (("ce_type", b"datarun.FoldRequested.v1"),)))
    system.append(fold_requested().model_copy(update={"fold_id": 12}))
    system.run_until(lambda: "FoldTested" in kinds(system))
    ends = system.log.end_offsets([CATALOGUE.full_name(DEAD_LETTERS)])
    (letter,) = [record for batch in system.log.read(dict.fromkeys(ends, 0), until_end=True) for record in batch]
    assert envelope.header(letter.headers, "datarun-reason") == "schema"
    assert envelope.header(letter.headers, "datarun-position") == "t.fold-requests.low:0:0"


def test_a_split_is_accepted_with_its_result(tmp_path):
    """A split's record stays locked until DataSplit is in the log."""
    split = events.Split(kind="standard", task_id="s")
    system = System(tmp_path, lambda *_: split)
    system.append(split_requested())
    system.run_until(lambda: system.events(DATA_EVENTS) != [])
    (event,) = system.events(DATA_EVENTS)
    assert (type(event).__name__, event.split, event.runner_id) == ("DataSplit", split, "runner-1")
    assert system.queue.take() is None


def test_a_split_request_of_the_first_version_is_split_as_any(tmp_path):
    """What an older gateway left in the queue is taken through the upcaster."""
    planned = []

    def script(request, _on_trained):
        planned.append(request.plan)
        return events.Split(kind="standard", task_id=request.task_id)

    system = System(tmp_path, script)
    old = golden.loaded((GOLDEN / "SplitRequested.v1.record").read_bytes())
    system.log.append(replace(old, topic=CATALOGUE.full_name(DATA_REQUESTS)))
    system.run_until(lambda: system.events(DATA_EVENTS) != [])
    assert planned == [events.StandardSplit(held_out_test=0.3, random_state=42)]
    assert system.queue.take() is None


UNFIT = [
    (BlobMissing("blob ff is not there"), "blob_missing"),
    (InputsCorrupt("blob ff has other bytes"), "blob_mismatch"),
]


@pytest.mark.parametrize(("error", "reason"), UNFIT)
def test_a_split_whose_blobs_are_missing_fails_at_the_third_try(tmp_path, error, reason):
    """Other runners may reach them, but not for ever; its request is kept as a dead letter with the reason."""
    tries = []

    def script(request, _on_trained):
        tries.append(request)
        raise error

    system = System(tmp_path, script)
    system.append(split_requested())
    system.run_until(lambda: system.events(DATA_EVENTS) != [])
    (event,) = system.events(DATA_EVENTS)
    assert (type(event).__name__, event.cause, event.fault) == ("SplitFailed", "invalid", "platform")
    assert f"{error} - ERROR(split data)" in event.log
    assert len(tries) == SPLIT_TRIES
    assert system.reasons() == [reason]


@pytest.mark.parametrize(("error", "reason"), UNFIT)
def test_a_fold_whose_blobs_are_missing_is_given_back_and_told_of(tmp_path, error, reason):
    """Another delivery may find them; who sent the request finds it among the dead letters."""

    def script(request, on_trained):
        if request.delivery == 1:
            raise error
        return succeed(request, on_trained)

    system = System(tmp_path, script)
    system.append(fold_requested())
    system.append(fold_requested(delivery=2))
    system.run_until(lambda: "FoldTested" in kinds(system))
    assert [event.delivery for event in system.events()] == [1, 2, 2, 2]
    assert system.reasons() == [reason]


def test_a_request_that_is_not_signed_does_not_run(tmp_path):
    """Where requests are signed; the next one, which is, does."""
    key = Key(b"k" * 32, frozenset({"FoldRequested", "FoldStarted", "FoldTrained", "FoldTested"}))
    signing = Catalogue("t.", Signatures({"all": key}, signs_as="all"))
    system = System(tmp_path, succeed, catalogue=signing)
    system.append(fold_requested())
    request = fold_requested(fold_id=12)
    system.log.append(envelope.encode(request, catalogue=signing, context=CONTEXT))
    system.run_until(lambda: "FoldTested" in kinds(system))
    assert system.reasons() == ["forged"]
    assert system.executor.ran == [(12, 1, 1)]


def test_a_record_too_large_for_the_dead_letters_is_cut(tmp_path):
    """The log would take no copy with headers added to it; the whole stays where it was."""
    system = System(tmp_path, succeed)
    request = envelope.encode(fold_requested(), catalogue=CATALOGUE, context=CONTEXT)
    system.log.append(replace(request, value=request.value + b" " * envelope.MAX_VALUE_BYTES))
    system.run_until(lambda: system.reasons() == ["too_large"])
    assert len(system.letters()[0].value) == LETTER_BYTES


def test_stopping_lets_the_running_fold_finish(tmp_path):
    """A fold that ends within the grace has its result in the log when the runner is gone."""
    begun = threading.Event()

    def script(request, on_trained):
        begun.set()
        time.sleep(0.3)
        return succeed(request, on_trained)

    system = System(tmp_path, script)
    system.append(fold_requested())
    system.run_until(begun.is_set)
    assert kinds(system)[-1] == "FoldTested"


def test_a_fold_beyond_the_grace_is_handed_to_another_runner(tmp_path):
    """It is killed and its next delivery requested; what still comes of it is not appended."""
    begun, killed = threading.Event(), threading.Event()

    def script(request, on_trained):
        begun.set()
        killed.wait(20)
        return succeed(request, on_trained)

    system = System(tmp_path, script, grace=0.1)
    system.append(fold_requested())
    system.run_until(begun.is_set)
    assert kinds(system) == ["FoldStarted", "FoldHandedBack"]
    assert (system.executor.cancelled, system.holdings.folds()) == ([(11, 1)], ())
    killed.set()
    join_slots()
    other = System(tmp_path, succeed, after=system)
    other.run_until(lambda: "FoldTested" in kinds(other))
    told = [event.delivery for event in other.events() if isinstance(event, events.FoldTested | events.FoldFailed)]
    assert told == [2]
    (again,) = [event for event in other.events(FOLD_REQUESTS_LOW) if event.delivery == 2]
    assert again == fold_requested().model_copy(update={"delivery": 2, "handed_back": 1})


def test_a_split_beyond_the_grace_is_released(tmp_path):
    """Another runner splits at once; what still comes of the first is not appended."""
    begun, killed = threading.Event(), threading.Event()
    split = events.Split(kind="standard", task_id="s")

    def script(*_):
        begun.set()
        killed.wait(20)
        return split

    system = System(tmp_path, script, grace=0.1)
    system.append(split_requested())
    system.run_until(begun.is_set)
    assert system.events(DATA_EVENTS) == []
    assert system.holdings.splits() == ()
    other = System(tmp_path, lambda *_: split, after=system)
    other.run_until(lambda: other.events(DATA_EVENTS) != [])
    killed.set()
    join_slots()
    assert len(other.events(DATA_EVENTS)) == 1


def test_a_split_that_was_accepted_while_it_ran_is_asked_for_again(tmp_path):
    """Its record is nobody's any more, so a stopping runner appends it anew."""
    begun, killed = threading.Event(), threading.Event()

    def script(*_):
        begun.set()
        killed.wait(20)
        return events.Split(kind="standard", task_id="s")

    system = System(tmp_path, script, grace=0.3)
    clock = iter(range(0, 10_000, 100))
    system.service.clock = lambda: next(clock) if not system.service.stopping else time.monotonic()
    system.append(split_requested())
    accepted = []

    def is_accepted():
        accepted.extend(run for run in system.holdings.split_runs() if run.accepted)
        return accepted

    system.run_until(is_accepted)
    killed.set()
    assert system.events(DATA_REQUESTS) == [split_requested()] * 2


def test_queues_are_named_as_in_list_runners():
    """The option takes the original's names in any order and refuses others."""
    assert parse_queues("L,H,data") == ("H", "data", "L")
    assert parse_queues("L") == ("L",)
    for wrong in ("", "X", "H,celery"):
        with pytest.raises(DatarunError, match="H,L,data"):
            parse_queues(wrong)
