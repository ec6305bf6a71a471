"""What a stopping runner appends for the folds it gives back, in which order, and what it leaves to the reaper."""

from concurrent.futures import Future

from datarun import envelope
from datarun.errors import LogUnavailable
from datarun.events import FoldHandedBack, FoldRequested
from datarun.lifecycle import FORGIVEN, MAX_DELIVERIES
from datarun.log import StoredRecord
from datarun.log.memory import MemoryLog
from datarun.topics import FOLD_EVENTS, FOLD_REQUESTS_LOW
from services.runner.handover import hand_back, next_request
from services.runner.publisher import Publisher
from services.runner.runs import FoldRun
from tests.histories import CATALOGUE, CONTEXT, requested


class Log(MemoryLog):
    """A log in memory that notes the order of appends, and may be away for some topics."""

    def __init__(self, *away):
        super().__init__(CATALOGUE)
        self.away = {CATALOGUE.full_name(topic) for topic in away}
        self.order = []

    def append(self, record):
        if record.topic in self.away:
            refused = Future()
            refused.set_exception(LogUnavailable("away"))
            return refused
        self.order.append(envelope.decode(record.value, record.headers))
        return super().append(record)


def give_back(log, *, delivery=1, handed_back=0):
    """Hand one running fold back and return what was appended since."""
    request = requested(7, attempt=2, delivery=delivery, handed_back=handed_back)
    record = envelope.encode(request, catalogue=CATALOGUE, context=CONTEXT)
    stored = StoredRecord(record.topic, 0, 5, record.key, record.value, record.headers)
    publisher = Publisher(log, catalogue=CATALOGUE, source="test")
    hand_back([FoldRun(request, stored)], publisher=publisher, runner_id="runner-1", seconds=1)
    return log.order


def test_the_request_is_in_the_log_before_the_fold_is_told_to_be_back():
    """Same content, next delivery, one more handed back; then the event of this delivery."""
    again, told = give_back(Log())
    assert again == requested(7, attempt=2, delivery=2, handed_back=1)
    assert isinstance(told, FoldHandedBack)
    assert (told.fold_id, told.attempt, told.delivery, told.runner_id) == (7, 2, 1, "runner-1")


def test_a_request_the_log_refuses_leaves_the_fold_to_the_reaper():
    """Telling that the fold is back, without a request, would be its end."""
    assert give_back(Log(FOLD_REQUESTS_LOW)) == []


def test_a_crash_before_the_event_leaves_a_request():
    """The other half may be missing: the reaper finds the next delivery requested and tells the loss alone."""
    (again,) = give_back(Log(FOLD_EVENTS))
    assert isinstance(again, FoldRequested)


def test_a_fold_is_not_handed_back_for_ever():
    """A request that claims to have been handed back a million times is counted like any other."""
    delivery, request = 1, requested(7)
    while (following := next_request(request)) is not None:
        request, delivery = following, delivery + 1
        assert (request.delivery, request.handed_back) == (delivery, delivery - 1)
    assert delivery == FORGIVEN + MAX_DELIVERIES
    assert next_request(requested(7, delivery=FORGIVEN + MAX_DELIVERIES, handed_back=1_000_000)) is None


def test_the_end_of_a_run_is_told_by_one_alone():
    """Either its result is appended, or it is handed back."""
    run = FoldRun(requested(7), None)
    assert [run.claim(), run.claim(), run.claim()] == [True, False, False]
