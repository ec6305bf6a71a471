"""Files as they travel: one memory file with all contents, and a list of [name, size] beside it."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from .wire import Message, read

FileList = Sequence[tuple[str, int]]
_NEW = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
_CHUNK = 1 << 22


def write_files(folder: Path, files: FileList, descriptor: int) -> None:
    """Write the files into a folder, which is made."""
    folder.mkdir(parents=True, exist_ok=True)
    offset = 0
    for name, size in files:
        _copy(folder / name, size, descriptor, offset)
        offset += size


def write_package(box: Path, module_path: str, files: FileList, descriptor: int) -> Path:
    """Write the files as the package `module_path` below the box and return its folder."""
    folder = box
    for name in module_path.split("."):
        folder /= name
        folder.mkdir()
        (folder / "__init__.py").touch()
    write_files(folder, files, descriptor)
    return folder


def _copy(path: Path, size: int, descriptor: int, offset: int) -> None:
    target = os.open(path, _NEW, 0o600)
    try:
        for start in range(0, size, _CHUNK):
            os.write(target, read(descriptor, min(_CHUNK, size - start), offset + start))
    finally:
        os.close(target)


def regular_files(folder: Path) -> Iterator[tuple[str, int]]:
    """Open every regular file of a folder, links excluded, in name order; raises ValueError for a folder inside."""
    for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
        if entry.is_dir(follow_symlinks=False):
            message = f"prepare_data made the folder {entry.name!r}; only files are kept"
            raise ValueError(message)
        if entry.is_file(follow_symlinks=False):
            yield entry.name, os.open(entry.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)


def message_of(files: FileList) -> Message:
    """Return the part of a job that lists its files."""
    return {"files": [list(file) for file in files]}
