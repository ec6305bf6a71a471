"""What rescoring came to, for people: a line for each submission, part and scoring function."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datarun.scoring.metrics import Metric
    from datarun.scoring.rescoring import Row

REASON_WIDTH = 60


@dataclass
class _Line:
    values: list[float] = field(default_factory=list)
    statuses: Counter[str] = field(default_factory=Counter)
    bagged: Row | None = None
    reason: str | None = None


class Summary:
    """Gathers rows into lines; of superseded attempts only how many there are."""

    def __init__(self, metrics: Sequence[Metric]) -> None:
        self._better = {metric.name: "lower" if metric.is_lower_the_better else "higher" for metric in metrics}
        self._lines: dict[tuple[object, ...], _Line] = {}

    def add(self, rows: Iterable[Row]) -> None:
        """Add some rows."""
        for row in rows:
            key = (row.dataset_id, row.submission_id, row.submission_version, str(row.part), row.metric)
            line = self._lines.setdefault(key, _Line())
            if row.kind == "bagged":
                line.bagged = row
                continue
            line.statuses[row.status] += 1
            line.reason = line.reason or row.reason
            if row.value is not None and row.status != "superseded":
                line.values.append(row.value)

    def print(self) -> None:
        """Print the lines."""
        from rich.console import Console
        from rich.table import Table

        from datarun.scoring.score import mean_and_std

        table = Table(
            "dataset",
            "submission",
            "version",
            "rows",
            "function",
            "better",
            "attempts",
            "mean",
            "std",
            "bagged",
            "why not",
        )
        for key, line in self._lines.items():
            mean, std = mean_and_std(line.values)
            table.add_row(
                *map(str, key),
                self._better[str(key[-1])],
                ", ".join(f"{count} {status}" for status, count in sorted(line.statuses.items())),
                "" if mean is None else f"{mean:.6g}",
                "" if std is None else f"{std:.3g}",
                _bagged(line.bagged),
                (line.reason or "")[:REASON_WIDTH],
            )
        Console().print(table)


def _bagged(row: Row | None) -> str:
    return "" if row is None or row.value is None else f"{row.value:.6g} of {row.folds}"
