"""What the reaper appends for a lost run, in which order, and what it does again after a crash."""

from __future__ import annotations

from concurrent.futures import Future

import pytest

from datarun.envelope import decode, encode
from datarun.errors import LogUnavailable
from datarun.events import Cause, Event, Fault, FoldFailed, FoldLost, FoldRequested, FoldStarted
from datarun.leases import LEASE_SECONDS, Run, Runner
from datarun.log import Position, Record
from datarun.log.memory import MemoryLog
from datarun.overtaking import Chance, Waiting
from datarun.projection.offsets import Offsets
from datarun.topics import TOPICS
from services.projector.reaper import Reaper
from services.projector.running import Held
from tests.histories import CATALOGUE, CONTEXT, requested, run_event


class Clock:
    """A clock that is set by the test and moves a little whenever it is looked at."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        self.now += 0.01
        return self.now


class ReadModel:
    """A read model that says what the test wants, up to the end of the log unless told to lag."""

    def __init__(self, log: MemoryLog) -> None:
        self.log = log
        self.runs: dict[Run, Held] = {}
        self.speaking: dict[str, Runner] = {}
        self.requests: dict[Waiting, Position] = {}
        self.seen: list[Chance] = []
        self.lagging = False

    def waiting(self) -> dict[Waiting, Position]:
        """Return the requests the test has put here."""
        return dict(self.requests)

    def chances(self) -> list[Chance]:
        """Return the chances the test has put here."""
        return list(self.seen)

    def held(self) -> dict[Run, Held]:
        """Return the runs the test has put here."""
        return dict(self.runs)

    def runners(self) -> dict[str, Runner]:
        """Return the runners the test has put here."""
        return dict(self.speaking)

    def offsets(self) -> Offsets:
        """Return the end of the log, or nothing."""
        ends = self.log.end_offsets([CATALOGUE.full_name(topic) for topic in TOPICS])
        return {} if self.lagging else ends


class Scene:
    """A reaper, its log with one request in it, and a read model in which a runner holds that fold."""

    def __init__(self, *, delivery: int = 1, request_delivery: int | None = None, handed_back: int = 0) -> None:
        self.log = MemoryLog(CATALOGUE)
        self.read_model = ReadModel(self.log)
        self.clock = Clock()
        self.reaper = Reaper(self.log, catalogue=CATALOGUE, clock=self.clock)
        self.request = requested(7, delivery=request_delivery or delivery, mark=3, handed_back=handed_back)
        position = self.log.append(encode(self.request, catalogue=CATALOGUE, context=CONTEXT)).result()
        self.run = Run(7, 1, delivery, "runner-1")
        self.read_model.runs[self.run] = Held(self.request.delivery, 2, 1, position)

    def pass_seconds(self, seconds: float) -> None:
        """Tick once a second."""
        for _ in range(int(seconds)):
            self.clock.now += 1
            self.reaper.tick(self.read_model)

    def appended(self) -> list[Event]:
        """Return what the reaper appended, each topic in order."""
        ends = self.log.end_offsets([CATALOGUE.full_name(topic) for topic in TOPICS])
        batches = self.log.read(dict.fromkeys(ends, 0), until_end=True)
        events = [decode(record.value, record.headers) for batch in batches for record in batch]
        events.remove(self.request)
        return events


def test_a_lost_run_is_requested_again_as_the_next_delivery() -> None:
    """Same payload, next delivery, and FoldLost says which one was lost."""
    scene = Scene()
    scene.pass_seconds(LEASE_SECONDS + 2)
    lost, again = sorted(scene.appended(), key=lambda event: type(event).__name__)
    assert again == scene.request.model_copy(update={"delivery": 2})
    assert isinstance(lost, FoldLost)
    assert (lost.fold_id, lost.attempt, lost.delivery, lost.runner_id) == scene.run


def test_the_request_is_acknowledged_before_the_loss_is_told() -> None:
    """A crash between the two leaves a fold that waits in its queue."""
    scene, order = Scene(), []
    append = scene.log.append

    def watched(record: Record) -> Future[Position]:
        order.append(type(decode(record.value, record.headers)))
        return append(record)

    scene.log.append = watched  # type: ignore[method-assign]
    scene.pass_seconds(LEASE_SECONDS + 2)
    assert order == [FoldRequested, FoldLost]


def test_after_a_crash_between_the_two_only_the_loss_is_told() -> None:
    """The next delivery was requested before; its runner needs no second one."""
    scene = Scene(delivery=1, request_delivery=2)
    scene.pass_seconds(LEASE_SECONDS + 2)
    assert [type(event) for event in scene.appended()] == [FoldLost]


def test_the_third_loss_ends_the_fold() -> None:
    """A submission that takes its runner down does so three times, not for ever; it is the platform's fault."""
    scene = Scene(delivery=3)
    scene.pass_seconds(LEASE_SECONDS + 2)
    [failed] = scene.appended()
    assert isinstance(failed, FoldFailed)
    assert (failed.cause, failed.fault, failed.delivery) == (Cause.LOST, Fault.PLATFORM, 3)
    assert failed.message == "\nThe runner was lost 3 times - ERROR(train)\n"


def test_a_delivery_that_was_handed_back_is_no_loss() -> None:
    """Two losses after a stopped runner are two, and the third ends the fold."""
    scene = Scene(delivery=3, handed_back=1)
    scene.pass_seconds(LEASE_SECONDS + 2)
    lost, again = sorted(scene.appended(), key=lambda event: type(event).__name__)
    assert isinstance(lost, FoldLost)
    assert again == scene.request.model_copy(update={"delivery": 4})
    scene = Scene(delivery=4, handed_back=1)
    scene.pass_seconds(LEASE_SECONDS + 2)
    [failed] = scene.appended()
    assert isinstance(failed, FoldFailed)
    assert failed.message == "\nThe runner was lost 3 times - ERROR(train)\n"


def test_nothing_is_done_twice_while_the_projection_catches_up() -> None:
    """The run stays in the read model for a moment after its loss was appended."""
    scene = Scene()
    scene.pass_seconds(LEASE_SECONDS + 30)
    assert len(scene.appended()) == 2


def test_nobody_is_lost_while_the_projection_lags(monkeypatch: pytest.MonkeyPatch) -> None:
    """Heartbeats that are not projected yet were sent all the same; a full lease begins when they are."""
    monkeypatch.setattr("services.projector.reaper.CATCH_UP_SECONDS", 0.0)
    scene = Scene()
    scene.read_model.lagging = True
    scene.pass_seconds(60)
    scene.read_model.lagging = False
    scene.pass_seconds(LEASE_SECONDS - 1)
    assert scene.appended() == []
    scene.pass_seconds(3)
    assert len(scene.appended()) == 2


def test_a_projection_that_lags_now_and_then_hides_no_silence(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a machine that is too busy every other look comes to nothing; a dead runner is noticed all the same."""
    monkeypatch.setattr("services.projector.reaper.CATCH_UP_SECONDS", 0.0)
    scene = Scene()
    for second in range(int(LEASE_SECONDS) + 4):
        scene.read_model.lagging = second % 2 == 0
        scene.pass_seconds(1)
    assert len(scene.appended()) == 2


def test_a_speaking_runner_loses_nothing() -> None:
    """It names its fold in every heartbeat."""
    scene = Scene()
    for second in range(60):
        scene.read_model.speaking["runner-1"] = Runner(second, frozenset({(7, 1, 1)}))
        scene.pass_seconds(1)
    assert scene.appended() == []


def test_a_log_that_does_not_acknowledge_is_tried_again() -> None:
    """Only what was acknowledged counts as done."""
    scene = Scene()
    append, refusing = scene.log.append, [True]

    def unsure(record: Record) -> Future[Position]:
        if refusing.pop() if refusing else False:
            future: Future[Position] = Future()
            future.set_exception(LogUnavailable())
            return future
        return append(record)

    scene.log.append = unsure  # type: ignore[method-assign]
    with pytest.raises(LogUnavailable):
        scene.pass_seconds(LEASE_SECONDS + 2)
    scene.pass_seconds(1)
    assert sorted(type(event).__name__ for event in scene.appended()) == ["FoldLost", "FoldRequested"]


def test_a_request_the_log_has_no_more_ends_the_fold() -> None:
    """What cannot be requested again must not wait for ever."""
    scene = Scene()
    stray = scene.log.append(encode(run_event(FoldStarted, 7), catalogue=CATALOGUE, context=CONTEXT)).result()
    scene.read_model.runs[scene.run] = scene.read_model.runs[scene.run]._replace(request=stray)
    scene.pass_seconds(LEASE_SECONDS + 2)
    assert [type(event) for event in scene.appended()] == [FoldStarted, FoldFailed]


class Queue(Scene):
    """A reaper, its log with one request in it that waits, and a runner with a free slot."""

    def __init__(self, *, delivery: int = 1) -> None:
        super().__init__(delivery=delivery)
        (held,) = self.read_model.runs.values()
        self.read_model.runs.clear()
        self.read_model.requests[Waiting(7, 1, delivery, "H", held.request.offset, 0)] = held.request

    def pass_seconds(self, seconds: float) -> None:
        """Tick once a second, and hear the free runner's heartbeat."""
        for _ in range(int(seconds)):
            self.clock.now += 1
            self.read_model.seen = [Chance("H", None, int(self.clock.now * 1000))]
            self.reaper.tick_overtaken(self.read_model)


@pytest.mark.parametrize("delivery", [1, 3])
def test_an_overtaken_request_is_put_back_as_it_was(delivery: int) -> None:
    """No runner was lost, so no delivery is spent: not even the last one's request makes a fold fail unrun."""
    queue = Queue(delivery=delivery)
    queue.pass_seconds(60)
    assert queue.appended() == []
    queue.pass_seconds(10)
    assert queue.appended() == [queue.request]


def test_nothing_is_put_back_while_the_projection_lags(monkeypatch: pytest.MonkeyPatch) -> None:
    """It may have begun long ago; when that would be known and is not, it is put back at once."""
    monkeypatch.setattr("services.projector.reaper.CATCH_UP_SECONDS", 0.0)
    queue = Queue()
    queue.pass_seconds(60)
    queue.read_model.lagging = True
    queue.pass_seconds(100)
    assert queue.appended() == []
    queue.read_model.lagging = False
    queue.pass_seconds(1)
    assert queue.appended() == [queue.request]


def test_a_waiting_request_the_log_has_no_more_is_left_alone() -> None:
    """It can be neither put back nor called a failure: perhaps it is being begun."""
    queue = Queue()
    stray = queue.log.append(encode(run_event(FoldStarted, 7), catalogue=CATALOGUE, context=CONTEXT)).result()
    queue.read_model.requests = dict.fromkeys(queue.read_model.requests, stray)
    queue.pass_seconds(200)
    assert [type(event) for event in queue.appended()] == [FoldStarted]
