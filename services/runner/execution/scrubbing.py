"""Making text from a child fit to be shown: valid, and without the folders of this machine."""

from __future__ import annotations

from pathlib import Path

from services.runner.execution.environment import Environment
from services.runner.execution.programs import server_paths


class Scrubber:
    """Replaces the names of a child's own folders and of the server's by nothing."""

    def __init__(self, box: Path, module_path: str = "", environment: Environment | None = None) -> None:
        own = [f"{box}/{module_path.replace('.', '/')}/"] if module_path else []
        packages = [f"{environment.packages}/"] if environment else []
        self._hidden = [*own, *packages, f"{box}/organiser/", f"{box}/data/", f"{box}/", str(box), *server_paths()]

    def __call__(self, text: str) -> str:
        """Return the text without them; what is not Unicode text becomes a replacement character."""
        for path in self._hidden:
            text = text.replace(path, "")
        return text.encode(errors="replace").decode().replace("\x00", "\N{REPLACEMENT CHARACTER}")
