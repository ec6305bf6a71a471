"""A bar on the standard error that says how many a second; only a terminal shows it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


class Bar:
    """What long work tells how far it has come."""

    def __init__(self, doing: str, unit: str) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn
        from rich.text import Text

        class Speed(ProgressColumn):
            def render(self, task: Task) -> Text:
                return Text(f"{task.speed or 0:,.0f} {unit}/s")

        console = Console(stderr=True)
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), Speed())
        self.progress = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
        self._task = self.progress.add_task(doing, total=None)

    def __call__(self, done: int, total: int) -> None:
        """Show how much is done, and how much there is to do."""
        self.progress.update(self._task, completed=done, total=total)

    def step(self, doing: str, done: int, total: int) -> None:
        """Show the same of one of several steps."""
        self.progress.update(self._task, description=doing, completed=done, total=total)


@contextmanager
def bar(doing: str, unit: str = "events") -> Iterator[Bar]:
    """Yield a bar, which goes away in the end."""
    shown = Bar(doing, unit)
    with shown.progress:
        yield shown
