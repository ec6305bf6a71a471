"""Orphans: runs of attempts that nobody has asked for. Told by the clock of who asks, so no row says that one is one.

Until its request comes a run waits in its fold's row, which no list of folds shows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from datarun.events import FoldFailed
from datarun.lifecycle import RANK_OF, Rank
from datarun.log import TopicPartition

ORPHAN = "orphan"
"""The reason of such a dead letter."""
PATIENCE_SECONDS = 60.0
"""How long a run waits for its request."""

_TYPE_OF = {rank: kind.type_name() for kind, rank in RANK_OF.items()} | {Rank.ERROR: FoldFailed.type_name()}
_TYPES = orjson.dumps({str(int(rank)): name for rank, name in _TYPE_OF.items()}).decode()
# The first condition is that of the partial index fold_unasked, to the letter. A cancellation may come before its
# request, which waits for a split. A read model that is made anew has runs before it has their requests.
OVERDUE = """{schema}.fold
    where run_attempt > request_attempt and cause is distinct from 'cancelled'
      and run_at < now() - make_interval(secs => %(orphan_seconds)s)
      and not exists (
        select from unnest(%(due_topics)s::text[], %(due_partitions)s::integer[], %(due_offsets)s::bigint[])
            as due (topic, partition, "offset")
        left join {schema}.projection_offset seen using (topic, partition)
        where coalesce(seen.next_offset, 0) < due."offset")"""
"""Where orphans are found: the rest of a statement after its `from`, given `values`."""
PLACE = "(%(orphan_topic)s::text, run_partition::integer, run_offset)"
COLUMNS = f"""%(orphan_topic)s::text, run_partition::integer, run_offset, '{ORPHAN}',
    format('attempt %%s of fold %%s was never asked for', run_attempt, fold_id), convert_to(fold_id::text, 'UTF8'),
    null::bytea, null::integer,
    jsonb_build_array(jsonb_build_array('ce_type', %(orphan_types)s::jsonb->>run_rank::text))"""
"""Position, reason, detail, key, value, size and headers, as dead letters have them; the log has the value."""


@dataclass(frozen=True, slots=True)
class Patience:
    """Which runs are overdue: so old, once the projection has seen the requests from before that."""

    topic: str
    """Where runs are written."""
    seconds: float
    requests: Mapping[TopicPartition, int]

    def values(self) -> dict[str, Any]:
        """Return what statements take."""
        due = [(tp.topic, tp.partition, offset) for tp, offset in self.requests.items()]
        topics, partitions, offsets = (list(column) for column in zip(*due, strict=True)) if due else ([], [], [])
        return {
            "orphan_topic": self.topic,
            "orphan_seconds": self.seconds,
            "orphan_types": _TYPES,
            "due_topics": topics,
            "due_partitions": partitions,
            "due_offsets": offsets,
        }
