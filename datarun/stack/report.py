"""What a starting stack tells: one line for each part, in a terminal with a mark before it."""

from __future__ import annotations

from typing import Protocol

from rich.console import Console
from rich.markup import escape


class Report(Protocol):
    """Who is told."""

    def ready(self, name: str, url: str, seconds: float) -> None:
        """Tell that a part works."""
        ...

    def note(self, text: str) -> None:
        """Tell something worth a line."""
        ...

    def problem(self, text: str) -> None:
        """Tell what went wrong and is being dealt with."""
        ...

    def progress(self, text: str, done: int, total: int) -> None:
        """Tell how far a longer piece of work is."""
        ...


class Silent:
    """Tells nobody."""

    def ready(self, name: str, url: str, seconds: float) -> None:
        """Ignore it."""

    def note(self, text: str) -> None:
        """Ignore it."""

    def problem(self, text: str) -> None:
        """Ignore it."""

    def progress(self, text: str, done: int, total: int) -> None:
        """Ignore it."""


class ConsoleReport:
    """Lines on standard output."""

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console(highlight=False, soft_wrap=True)
        self._quarter = -1

    def ready(self, name: str, url: str, seconds: float) -> None:
        """Print the part's line."""
        self._line("[green]✓[/]", f"{name:<10} {url:<52} {seconds:4.1f} s")

    def note(self, text: str) -> None:
        """Print the text."""
        self._line("[blue]·[/]", text)

    def problem(self, text: str) -> None:
        """Print the text, marked."""
        self._line("[yellow]![/]", text)

    def progress(self, text: str, done: int, total: int) -> None:
        """Print how far it is, at every quarter."""
        quarter = 4 * done // max(total, 1)
        if quarter != self._quarter:
            self._quarter = quarter
            self.note(f"{text}: {done} of {total}")

    def _line(self, mark: str, text: str) -> None:
        if self._console.is_terminal:
            self._console.print(f"{mark} {escape(text)}")
        else:
            self._console.print(text, markup=False)
            self._console.file.flush()
