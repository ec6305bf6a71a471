"""Why a fold is not done yet: what it waits for, how many are before it, about how long that takes."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from aiohttp import web
from psycopg2.extensions import cursor as Cursor
from pydantic import Field

from datarun.lifecycle import State
from datarun.readmodel import waits
from datarun.readmodel.listing import ListedFold
from services.ingest.v1.folds import State as FoldState
from services.ingest.v1.folds import find
from services.ingest.v1.inputs import Nothing
from services.ingest.v1.operation import Call, Operation, Says, answer
from services.ingest.v1.runners import ALIVE_SECONDS
from services.ingest.v1.values import FoldId, Told

Reason = Literal["ended", "running", "split", "log", "queue", "no-runner", "between-deliveries"]


class Why(Told):
    """Where a fold stands."""

    id: FoldId
    state: FoldState
    attempt: int
    reason: Annotated[
        Reason,
        Field(
            description="`split`: its dataset is being split. `log`: the log has not taken its request yet. `queue`: "
            "others are before it. `no-runner`: nobody who lives reads its queue. `between-deliveries`: its runner was "
            "lost or stopped, and the next delivery is not in the queue yet."
        ),
    ]
    text: Annotated[str, Field(description="The same in a sentence.")]
    runner_id: Annotated[str | None, Field(description="Who runs it, or ran it.")] = None
    seconds_running: float | None = None
    position: Annotated[int | None, Field(description="How many start before it; 0 is the next.")] = None
    slots: Annotated[int | None, Field(description="Slots of the living runners that read its queue.")] = None
    seconds_to_start: Annotated[
        float | None, Field(description="An estimate: folds before it, by the recent median, over the slots.")
    ] = None


async def explain_fold(call: Call[Nothing, None]) -> web.StreamResponse:
    """Say where a fold stands and why."""
    fold = await find(call)
    return answer(await call.gateway.database.run(lambda cursor: _explain(cursor, fold)))


def _explain(cursor: Cursor, fold: ListedFold) -> Why:
    about: dict[str, Any] = {"id": fold.fold_id, "state": fold.state.value, "attempt": fold.attempt}
    if fold.has_ended:
        how = f"{fold.cause} in {fold.stage}" if fold.state is State.ERROR else "tested"
        return Why(**about, reason="ended", text=f"It has ended: {how}.", runner_id=fold.runner_id)
    if fold.state in (State.STARTED, State.TRAINED):
        seconds = waits.seconds_since(cursor, fold.fold_id)
        text = f"Runner {fold.runner_id} has it; last heard {seconds:.0f} s ago."
        return Why(**about, reason="running", text=text, runner_id=fold.runner_id, seconds_running=seconds)
    if not fold.is_projected or fold.request_offset is None:
        return _unprojected(cursor, fold, about)
    is_open = not fold.is_current or fold.delivery > fold.run_delivery
    if not is_open:
        text = "Its runner was lost or stopped; its next delivery is being requested."
        return Why(**about, reason="between-deliveries", text=text, runner_id=fold.runner_id)
    return _queued(cursor, fold, fold.request_offset, about)


def _unprojected(cursor: Cursor, fold: ListedFold, about: dict[str, Any]) -> Why:
    if waits.waits_for_split(cursor, fold.fold_id):
        text = f"Dataset {fold.raw_data_id} is being split; its folds are released then."
        return Why(**about, reason="split", text=text)
    return Why(**about, reason="log", text="It is accepted, and on its way into the log and the read model.")


def _queued(cursor: Cursor, fold: ListedFold, offset: int, about: dict[str, Any]) -> Why:
    queue = waits.look(cursor, fold.priority, offset, alive_seconds=ALIVE_SECONDS)
    if queue.slots == 0:
        text = f"No runner that reads queue {fold.priority} is alive."
        return Why(**about, reason="no-runner", text=text, position=queue.before, slots=0)
    seconds = None
    if queue.median_seconds is not None:
        seconds = round(max(0, queue.before + 1 - queue.free) * queue.median_seconds / queue.slots, 3)
    text = f"{queue.before} folds start before it, on {queue.slots} slots of which {queue.free} are free."
    return Why(**about, reason="queue", text=text, position=queue.before, slots=queue.slots, seconds_to_start=seconds)


OPERATIONS = (
    Operation(
        method="GET",
        path="/v1/folds/{fold_id}/why",
        handle=explain_fold,
        summary="Ask why a fold is not done",
        tag="folds",
        answers={200: Says("Where it stands and why.", Why)},
        example={"path": {"fold_id": 1}},
    ),
)
