"""When a request is doubted, what is asked of the gateway, and what becomes of it."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import orjson
import pytest

from datarun.envelope import encode
from datarun.events import FoldFenced
from datarun.gateway_client import GatewayClient
from datarun.log import REQUEUED, StoredRecord, Work
from datarun.log.memory import MemoryLog
from datarun.topics import FOLD_CONTROL, RUNNER_STATUS
from services.runner.admission import Gate
from services.runner.confirmation import HOLD_SECONDS, OLD_MS, Answer, Doubt, Handed, Verdict, doubt, verdict
from services.runner.control import Control
from services.runner.fences import Fences
from services.runner.openings import FRESH_SECONDS, PAGE_OFFSETS, PATIENCE_SECONDS, Openings
from tests.histories import CATALOGUE, CONTEXT, heartbeat, requested

NOW_MS = 10 * OLD_MS


def handed(offset: int = 50, *, age_ms: int = 1, times: int = 1, is_copy: bool = False) -> Handed:
    """Return how a request came."""
    return Handed(offset, NOW_MS - age_ms, times, is_copy)


@pytest.mark.parametrize(
    ("request_", "doubted"),
    [
        (handed(), Doubt.NONE),
        (handed(age_ms=OLD_MS), Doubt.NONE),
        (handed(age_ms=OLD_MS + 1), Doubt.OLD),
        (handed(44), Doubt.EARLIER),
        (handed(44, age_ms=OLD_MS + 1), Doubt.OLD),
        (handed(times=2), Doubt.AGAIN),
        (handed(is_copy=True), Doubt.AGAIN),
        (handed(39), Doubt.FORGOTTEN),
        (handed(39, times=2), Doubt.AGAIN),
        (handed(times=2, age_ms=OLD_MS + 1), Doubt.OLD),
        (handed(age_ms=-OLD_MS), Doubt.NONE),
    ],
)
def test_the_gravest_doubt_counts(request_: Handed, doubted: Doubt) -> None:
    """A second time, a copy or an offset below a later one; older than an hour; there before this runner."""
    assert doubt(request_, now_ms=NOW_MS, highest=40, earlier_than=45) is doubted


@pytest.mark.parametrize("doubted", [doubted for doubted in Doubt if doubted])
def test_what_the_gateway_says_decides(doubted: Doubt) -> None:
    """Whatever the doubt, and however long it took."""
    for held in (0.0, HOLD_SECONDS):
        assert verdict(doubted, Answer.OPEN, held_seconds=held) is Verdict.START
        assert verdict(doubted, Answer.CLOSED, held_seconds=held) is Verdict.SKIP
    assert verdict(doubted, Answer.AWAITED, held_seconds=1) is Verdict.WAIT


@pytest.mark.parametrize(
    ("answer", "doubted", "held", "becomes"),
    [
        (Answer.AWAY, Doubt.EARLIER, 0, Verdict.START),
        (Answer.AWAY, Doubt.OLD, 0, Verdict.WAIT),
        (Answer.AWAY, Doubt.AGAIN, HOLD_SECONDS, Verdict.RELEASE),
        (Answer.AWAITED, Doubt.OLD, HOLD_SECONDS, Verdict.RELEASE),
        (Answer.AWAITED, Doubt.EARLIER, HOLD_SECONDS, Verdict.START),
        (Answer.NOBODY, Doubt.EARLIER, 0, Verdict.START),
        (Answer.NOBODY, Doubt.OLD, 0, Verdict.LEAVE),
        (Answer.NOBODY, Doubt.AGAIN, 0, Verdict.START),
        (Answer.NOBODY, Doubt.FORGOTTEN, HOLD_SECONDS, Verdict.LEAVE),
        (Answer.AWAY, Doubt.FORGOTTEN, 0, Verdict.WAIT),
    ],
)
def test_what_nobody_confirms_starts_only_if_it_is_young_and_first(
    answer: Answer, doubted: Doubt, held: float, becomes: Verdict
) -> None:
    """A graver doubt waits for the gateway within the lock; without one it is the reaper's."""
    assert verdict(doubted, answer, held_seconds=held) is becomes


def eventually(condition: Any) -> None:
    """Wait for a condition."""
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


class StandIn:
    """An HTTP server that says what is open as the gateway does, or answers 503."""

    def __init__(self) -> None:
        self.open: set[int] = set()
        self.end = 10_000
        self.is_away = False
        self.asked: list[str] = []
        outer = self

        class Answers(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.asked.append(self.path)
                start = int(self.path.partition("from=")[2].partition("&")[0])
                until = min(start + PAGE_OFFSETS, outer.end)
                found = sorted(offset for offset in outer.open if start <= offset < until)
                body = orjson.dumps({"from": start, "until": until, "end": outer.end, "open": found})
                self.send_response(503 if outer.is_away else 200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                """Say nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.client = GatewayClient(f"http://127.0.0.1:{self.server.server_port}", "dr_x")


@pytest.fixture
def gateway() -> Iterator[StandIn]:
    """Run a stand-in."""
    running = StandIn()
    yield running
    running.server.shutdown()
    running.server.server_close()


def settled(openings: Openings, offset: int, *, since: float | None = None) -> Answer:
    """Look until it is no longer awaited."""
    deadline = time.monotonic() + 10
    while (answer := openings.look("H", offset, since=since)) is Answer.AWAITED and time.monotonic() < deadline:
        time.sleep(0.01)
    return answer


def test_a_history_is_asked_for_in_pages(gateway: StandIn) -> None:
    """Ten thousand closed requests cost ten questions, and what is closed stays so for ever."""
    now = 0.0
    openings = Openings(gateway.client, clock=lambda: now)
    for offset in range(10_000):
        assert settled(openings, offset) is Answer.CLOSED
        now += 1
    assert len(gateway.asked) == 10
    assert openings.end("H") == 10_000


def test_what_was_open_must_have_been_so_lately(gateway: StandIn) -> None:
    """A page serves five seconds; for what was handed out again it must be asked after that."""
    now = 0.0
    gateway.open = {3, 4}
    openings = Openings(gateway.client, clock=lambda: now)
    assert settled(openings, 3) is Answer.OPEN
    now += FRESH_SECONDS
    assert (settled(openings, 4), len(gateway.asked)) == (Answer.OPEN, 1)
    gateway.open = {4}
    now += 1
    assert (settled(openings, 3, since=now), len(gateway.asked)) == (Answer.CLOSED, 2)
    assert (settled(openings, 4, since=now), len(gateway.asked)) == (Answer.OPEN, 2)


def test_a_gateway_that_cannot_tell_for_five_seconds_is_away_until_it_can(gateway: StandIn) -> None:
    """It is asked again every second; until then it may merely be starting."""
    now = 0.0
    openings = Openings(gateway.client, clock=lambda: now)
    gateway.is_away = True
    for second in range(6):
        now = float(second)
        assert openings.look("H", 3) is (Answer.AWAY if second == 5 else Answer.AWAITED)
        eventually(lambda: len(gateway.asked) == second + 1)  # noqa: B023 - waited for at once
        eventually(lambda: not openings._asking)
        openings.look("H", 3)
    assert len(gateway.asked) == 6
    gateway.is_away = False
    now += 1
    eventually(lambda: openings.look("H", 3) is Answer.CLOSED)


def test_a_gateway_of_another_log_cannot_tell(gateway: StandIn) -> None:
    """A log that ends before what was handed out here is not this one."""
    now = 0.0
    openings = Openings(gateway.client, clock=lambda: now)
    assert openings.look("H", gateway.end) is Answer.AWAITED
    eventually(lambda: gateway.asked and not openings._asking)
    now = PATIENCE_SECONDS
    assert openings.look("H", gateway.end) is Answer.AWAY


def test_without_a_gateway_nobody_is_asked() -> None:
    """And that is said at once."""
    assert Openings(None).look("H", 3) is Answer.NOBODY


def test_the_highest_fence_of_a_fold_is_kept_and_the_oldest_folds_are_forgotten() -> None:
    """Memory is bounded however many folds are cancelled."""
    fences = Fences(limit=2)
    fences.learn(1, 3)
    fences.learn(1, 2)
    assert [fences.cover(1, attempt) for attempt in (2, 3, 4)] == [True, True, False]
    fences.learn(2, 1)
    fences.learn(3, 1)
    assert [fences.cover(fold_id, 1) for fold_id in (1, 2, 3)] == [False, True, True]


class Runner:
    """A gate over a log in memory."""

    def __init__(self, gateway: StandIn | None = None) -> None:
        self.log = MemoryLog(CATALOGUE)
        self.fenced: list[tuple[int, int]] = []
        self.failed = threading.Event()
        self.fences = Fences()
        self.control = Control(
            self.log,
            catalogue=CATALOGUE,
            fences=self.fences,
            on_fence=lambda fold_id, attempt: self.fenced.append((fold_id, attempt)),
        )
        self.now = 0.0
        self.gate = Gate(
            self.fences, self.control, Openings(gateway.client if gateway else None), clock=lambda: self.now
        )

    def start(self) -> None:
        """Follow the log, and say something itself, as runners do."""
        self.control.start(on_failure=self.failed.set)
        assert self.control.wait_placed(10)
        self.append(heartbeat("runner-1", 1))

    def append(self, event: Any) -> Future[Any]:
        """Append an event."""
        return self.log.append(encode(event, catalogue=CATALOGUE, context=CONTEXT))

    def hand(self, offset: int, *, times: int = 1, age_ms: int = 0, is_copy: bool = False, fold_id: int = 1) -> Verdict:
        """Return what becomes of a request once that is known."""
        headers = ((REQUEUED, b"0:1"),) if is_copy else ()
        timestamp_ms = int(time.time() * 1000) - age_ms
        work = Work("H", StoredRecord("t", 0, offset, b"1", b"", headers, timestamp_ms), times, object())
        judged = Verdict.WAIT
        deadline = time.monotonic() + 5
        while judged is Verdict.WAIT and time.monotonic() < deadline:
            judged = self.gate.judge(work, requested(fold_id))
            time.sleep(0.01)
        return judged


@pytest.fixture
def runner(gateway: StandIn) -> Iterator[Runner]:
    """Follow a log in memory, with a gateway to ask."""
    made = Runner(gateway)
    made.start()
    yield made
    made.control.stop()


def test_nothing_starts_before_fences_are_known(gateway: StandIn) -> None:
    """A runner that has just started waits for what was fenced before, and gives up the lock in time."""
    runner = Runner(gateway)
    work = Work("H", StoredRecord("t", 0, 5, b"1", b""), 1, object())
    assert runner.gate.judge(work, requested(1)) is Verdict.WAIT
    runner.now += HOLD_SECONDS
    assert runner.gate.judge(work, requested(1)) is Verdict.RELEASE
    runner.append(FoldFenced(fold_id=1, attempt=1, cause="cancelled"))
    runner.start()
    eventually(lambda: runner.control.is_current)
    assert runner.gate.judge(work, requested(1)) is Verdict.SKIP
    assert runner.gate.skipped == 1
    runner.control.stop()


def test_a_fence_reaches_the_runner_at_once_and_garbage_does_not(runner: Runner) -> None:
    """What is no fence, or in another's name, is refused; later attempts run."""
    name = CATALOGUE.full_name(FOLD_CONTROL)
    fence = encode(FoldFenced(fold_id=1, attempt=1, cause="superseded"), catalogue=CATALOGUE, context=CONTEXT)
    for key, value in ((b"1", b"{"), (b"2", fence.value)):
        runner.log.append(type(fence)(name, key, value, fence.headers))
    runner.append(FoldFenced(fold_id=3, attempt=2, cause="superseded"))
    eventually(lambda: runner.fenced)
    assert runner.fenced == [(3, 2)]
    assert [runner.fences.cover(3, attempt) for attempt in (2, 3)] == [True, False]
    assert not runner.failed.is_set()


def test_a_fresh_request_starts_unasked(runner: Runner, gateway: StandIn) -> None:
    """Nobody waits for the gateway in the ordinary case."""
    eventually(lambda: runner.control.is_current)
    assert [runner.hand(offset) for offset in (5, 6)] == [Verdict.START, Verdict.START]
    assert gateway.asked == []


def test_what_was_handed_out_again_starts_if_it_is_open(runner: Runner, gateway: StandIn) -> None:
    """Its first taker may have died before it said that it started, or after."""
    gateway.open = {5, 7}
    assert [runner.hand(5, times=2), runner.hand(6, times=2)] == [Verdict.START, Verdict.SKIP]
    assert [runner.hand(7, is_copy=True), runner.hand(8, is_copy=True)] == [Verdict.START, Verdict.SKIP]
    assert [runner.hand(7, age_ms=2 * OLD_MS), runner.hand(9, age_ms=2 * OLD_MS)] == [Verdict.START, Verdict.SKIP]
    assert runner.gate.skipped == 3


def test_a_group_that_forgot_is_noticed_by_its_first_step_back(runner: Runner, gateway: StandIn) -> None:
    """From then on everything that is in the queue is doubted, also what this runner never saw."""
    eventually(lambda: runner.control.is_current)
    assert runner.hand(20) is Verdict.START
    assert runner.hand(3) is Verdict.SKIP
    assert runner.hand(500) is Verdict.SKIP
    gateway.open = {600}
    assert runner.hand(gateway.end + 1) is Verdict.START


def test_without_a_gateway_old_requests_are_left_to_the_reaper() -> None:
    """Young ones start; nothing is begun twice, and nothing is stuck in the queue."""
    runner = Runner()
    runner.start()
    assert runner.hand(5) is Verdict.START
    assert runner.hand(6, age_ms=2 * OLD_MS) is Verdict.LEAVE
    assert runner.hand(7, times=2) is Verdict.START
    assert runner.hand(3) is Verdict.LEAVE
    runner.control.stop()


class BrokenLog(MemoryLog):
    """A log that is read in a way nobody expected."""

    def end_offsets(self, topics: Any) -> Any:
        """Raise what no log should."""
        raise RuntimeError(topics)


def test_a_runner_that_can_see_no_fences_is_told_to_stop() -> None:
    """A defect there must not leave cancelled folds running."""
    failed = threading.Event()
    control = Control(BrokenLog(CATALOGUE), catalogue=CATALOGUE, fences=Fences(), on_fence=lambda *_: None)
    control.start(on_failure=failed.set)
    assert failed.wait(10)
    assert not control.is_current


def test_the_brokers_time_is_read_off_live_heartbeats(runner: Runner) -> None:
    """Those of before say nothing of the present."""
    assert RUNNER_STATUS.config["message.timestamp.type"] == "LogAppendTime"
    eventually(lambda: runner.control.is_current)
    assert abs(runner.control.now_ms - time.time() * 1000) < 60_000
    late = Control(runner.log, catalogue=CATALOGUE, fences=Fences(), on_fence=lambda *_: None)
    late.start(on_failure=lambda: None)
    assert late.wait_placed(10)
    time.sleep(0.3)
    assert not late.is_current
    late.stop()
