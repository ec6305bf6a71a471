"""`list_runners.txt`, as the 2016 datarun had it: one line a host, `address concurrency queues hard soft`, in seconds.

`#` begins a comment. The queue `celery` of that time is the one now called `data`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from datarun.errors import DatarunError
from datarun.topics import QUEUES

MAX_SLOTS = 256
FORMAT = "address concurrency queues hard_seconds soft_seconds"
_ALIASES = {"celery": "data"}
_HOST = re.compile(r"[A-Za-z0-9][A-Za-z0-9.:_-]{0,252}", re.ASCII)
_SECONDS = re.compile(r"[0-9]{1,7}(\.[0-9]{1,3})?", re.ASCII)


class RunnerListInvalid(DatarunError):
    """The list of runners cannot be used; the message names every wrong line."""


@dataclass(frozen=True, slots=True)
class RunnerLine:
    """How one host runs folds; the limits are as they are written, in seconds."""

    host: str
    slots: int
    queues: tuple[str, ...]
    hard_limit: str
    soft_limit: str

    def arguments(self) -> list[str]:
        """Return the line as options of `datarun runner`."""
        limits = ["--hard-limit", self.hard_limit, "--soft-limit", self.soft_limit]
        return ["--queues", ",".join(self.queues), "--slots", str(self.slots), *limits]


def load_runners(path: Path) -> list[RunnerLine]:
    """Return the lines of a file; raises RunnerListInvalid with every problem and its line."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise RunnerListInvalid(f"{path} cannot be read: {error}") from error
    return parse_runners(text, name=str(path))


def parse_runners(text: str, *, name: str = "list_runners.txt") -> list[RunnerLine]:
    """Return the runners of a text; raises RunnerListInvalid with every problem and its line."""
    lines: dict[str, RunnerLine] = {}
    first_numbers: dict[str, int] = {}
    problems = []
    for number, written in enumerate(text.splitlines(), start=1):
        words = written.partition("#")[0].split()
        if not words:
            continue
        try:
            line = _parse(words, first_numbers)
        except ValueError as error:
            problems.append(f"{name}:{number}: {error}")
        else:
            lines[line.host], first_numbers[line.host] = line, number
    if problems:
        raise RunnerListInvalid("\n".join(problems))
    return list(lines.values())


def runner_of(lines: Iterable[RunnerLine], names: Iterable[str]) -> RunnerLine:
    """Return the line of the host that has these names and addresses; raises RunnerListInvalid for none, or several."""
    lines, known = list(lines), {name.lower() for name in names}
    found = [line for line in lines if line.host.lower() in known]
    if len(found) == 1:
        return found[0]
    if found:
        raise RunnerListInvalid(f"this host is listed as {', '.join(line.host for line in found)}: choose with --host")
    listed = ", ".join(line.host for line in lines) or "nobody"
    raise RunnerListInvalid(f"none of {', '.join(sorted(known))} is listed, only {listed}: choose with --host")


def _parse(words: list[str], known: Mapping[str, int]) -> RunnerLine:
    if len(words) != len(FORMAT.split()):
        raise ValueError(f"{len(words)} words in place of `{FORMAT}`")
    host, slots, queues, hard, soft = words
    if not _HOST.fullmatch(host):
        raise ValueError(f"{host!r} is neither a host name nor an address")
    if host in known:
        raise ValueError(f"{host} is on line {known[host]} already")
    if not (slots.isascii() and slots.isdigit() and 1 <= int(slots[:9]) <= MAX_SLOTS):
        raise ValueError(f"the concurrency is 1 to {MAX_SLOTS}, not {slots!r}")
    for limit in (hard, soft):
        if not _SECONDS.fullmatch(limit) or float(limit) < 1:
            raise ValueError(f"a limit is a number of seconds from 1 on, not {limit!r}")
    if float(soft) > float(hard):
        raise ValueError(f"the soft limit {soft} is above the hard limit {hard}; the hard one comes first")
    return RunnerLine(host, int(slots), _queues(queues), hard, soft)


def _queues(text: str) -> tuple[str, ...]:
    names = [_ALIASES.get(name, name) for name in text.split(",")]
    unknown = [name for name in names if name not in QUEUES]
    if unknown:
        raise ValueError(f"the queues are some of {','.join(QUEUES)}, not {text!r}")
    return tuple(dict.fromkeys(names))
