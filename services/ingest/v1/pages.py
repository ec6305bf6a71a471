"""Lists in pages that go on after a key, so that a page costs the same wherever it is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Generic, TypeVar

from aiohttp import web
from pydantic import Field

from services.ingest.v1.operation import answer
from services.ingest.v1.values import Asked, Number, Told

MOST_ITEMS = 1000
DEFAULT_ITEMS = 100

T = TypeVar("T")
Limit = Annotated[int, Number, Field(ge=1, le=MOST_ITEMS, description="How many items a page has at the most.")]
AfterId = Annotated[int, Number, Field(ge=0, le=2_147_483_647, description="Go on behind this number.")]


class ByNumber(Asked):
    """A page of things that are numbered."""

    limit: Limit = DEFAULT_ITEMS
    after: AfterId = 0


class Page(Told, Generic[T]):
    """Some items; `next` is the path of the page that follows, absent at the end."""

    items: list[T]
    next: Annotated[str | None, Field(description="The path of the next page; also in the Link header.")] = None


def page_answer(request: web.Request, page: type[Page[T]], items: Sequence[T], *, after: object | None) -> web.Response:
    """Return a page, and where the next one is; `after` is None at the end."""
    if after is None:
        return answer(page(items=list(items)))
    following = str(request.rel_url.update_query(after=str(after)))
    return answer(page(items=list(items), next=following), headers={"Link": f'<{following}>; rel="next"'})
