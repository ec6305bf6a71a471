"""What old versions of events say in the words of the next one; a record in the log is never rewritten."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Payload = dict[str, Any]
Upcaster = Callable[[Payload], Payload]

UNSAID_SEED = 42
"""What the first clients meant when they named no seed."""


def split_requested_v1(payload: Payload) -> Payload:
    """Put what belongs to one kind of split together, and leave out what means nothing for the other."""
    said = dict(payload)
    kind, share, seed = said.pop("kind", None), said.pop("held_out_test", None), said.pop("random_state", None)
    if kind == "standard":
        plan = {"kind": kind, "held_out_test": share, "random_state": UNSAID_SEED if seed is None else seed}
    else:
        plan = {"kind": kind}
    return said | {"plan": plan}


UPCASTERS: dict[str, Upcaster] = {"datarun.SplitRequested.v1": split_requested_v1}
"""Old wire type -> a pure function from its JSON object to the next version's, whatever is in it."""
