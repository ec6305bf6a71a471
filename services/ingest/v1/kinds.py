"""What the types of problems mean: each is the path of its own description."""

from __future__ import annotations

from aiohttp import web

from services.ingest.refusals import not_found
from services.ingest.v1.inputs import Nothing
from services.ingest.v1.operation import Call, Operation, Says, answer
from services.ingest.v1.problems import KINDS
from services.ingest.v1.values import Told


class ProblemKind(Told):
    """A kind of problem."""

    code: str
    status: int
    title: str


async def get_problem(call: Call[Nothing, None]) -> web.StreamResponse:
    """Return what a kind of problem is."""
    for status, kind in KINDS.items():
        if kind.code == call.path["code"]:
            return answer(ProblemKind(code=kind.code, status=status, title=kind.title))
    raise not_found()


OPERATIONS = (
    Operation(
        method="GET",
        path="/v1/problems/{code}",
        handle=get_problem,
        summary="Look up a kind of problem",
        tag="documentation",
        roles=None,
        answers={200: Says("The kind.", ProblemKind)},
        example={"path": {"code": "not-found"}},
    ),
)
