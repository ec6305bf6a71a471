"""What rescoring came to, for people: a line for each submission, part and scoring function."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from datarun.scoring.score import mean_and_std

if TYPE_CHECKING:
    from datarun.scoring.metrics import Metric
    from datarun.scoring.rescoring import Row

_TITLES = (
    "dataset", "submission", "version", "rows", "function", "better", "mean", "std", "bagged", "attempts", "why not",
)  # fmt: skip


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
        """Print the lines, each as long as it is."""
        table = [_TITLES, *(self._cells(key, line) for key, line in self._lines.items())]
        widths = [max(map(len, column)) for column in zip(*table, strict=True)]
        for cells in table:
            print("  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip())

    def _cells(self, key: tuple[object, ...], line: _Line) -> tuple[str, ...]:
        mean, std = mean_and_std(line.values)
        return (
            *map(str, key),
            self._better[str(key[-1])],
            "" if mean is None else f"{mean:.6g}",
            "" if std is None else f"{std:.3g}",
            _bagged(line.bagged),
            ", ".join(f"{count} {status}" for status, count in sorted(line.statuses.items())),
            line.reason or "",
        )


def _bagged(row: Row | None) -> str:
    return "" if row is None or row.value is None else f"{row.value:.6g} of {row.folds}"
