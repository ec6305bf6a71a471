"""What is really in force: seen from outside in /proc, and by a child that tries what it must not be able to do.

Only what is proved is claimed; a plan of which one mechanism fails is not used at all.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

from datarun.events import Sandbox
from services.runner.execution.box import Box, ChannelClosed, Ended, OutOfMemory, TimedOut
from services.runner.execution.isolated import probe, wire
from services.runner.execution.isolated.wire import Garbled, Message
from services.runner.execution.outcomes import ExecutionUnavailable, Limits
from services.runner.execution.sandboxes import Plan

PROBE_SECONDS = 10.0
FILL_MIB = 64
"""Four times as much as the group of a probe may grow."""
_ALWAYS = ("clean_environment", "closed_descriptors", "session")
_NAMESPACES = {
    "mount_namespace": "mnt",
    "pid_namespace": "pid",
    "network_namespace": "net",
    "ipc_namespace": "ipc",
    "uts_namespace": "uts",
}
_BY_LANDLOCK = {"reading", "writing"}
_BY_SECCOMP = {"socket", "datagrams", "unshare"}
Proof = tuple[str, bool]
"""A mechanism and whether it holds."""


def prove(plan: Plan, box: Box, limits: Limits) -> Sandbox:
    """Return the isolation of a child that waits for its job; raises ExecutionUnavailable naming what fails."""
    if box.group is not None:
        box.group.limit(memory_mib=box.group.current_mib() + FILL_MIB / 4, processes=1)
    answer, status = _probed(box), _status(box.pid)
    proofs = dict(_proofs(plan, limits, status, answer))
    if plan.accounted:
        proofs |= dict(_of_group(plan, box, answer))
    missing = [mechanism for mechanism, holds in proofs.items() if not holds]
    if missing:
        raise ExecutionUnavailable(f"not in force: {', '.join(missing)}")
    return Sandbox(level=plan.level, mechanisms=(*_ALWAYS, *proofs))


def _probed(box: Box) -> Message:
    try:
        wire.send(box.job, {"job": "probe", "fill_mib": FILL_MIB if box.group is not None else 0})
        answer, descriptors = box.receive(PROBE_SECONDS)
    except (OSError, Ended, TimedOut, ChannelClosed, Garbled) as error:
        raise ExecutionUnavailable("a child could not be probed") from error
    wire.close(descriptors)
    if answer.get("event") != "probed":
        raise ExecutionUnavailable(f"a probe failed: {answer.get('text')}")
    return answer


def _status(pid: int) -> dict[str, list[str]]:
    """Return the kernel's record of a process as words by name."""
    try:
        lines = (Path("/proc") / str(pid) / "status").read_text(encoding="latin-1").splitlines()
    except OSError as error:
        raise ExecutionUnavailable("a child died while it was probed") from error
    return {name: value.split() for name, _, value in (line.partition(":") for line in lines)}


def _proofs(plan: Plan, limits: Limits, status: dict[str, list[str]], answer: Message) -> Iterator[Proof]:
    yield "rlimits", answer["open_files"] <= limits.open_files
    yield "no_new_privs", status["NoNewPrivs"] == ["1"]
    held = {int(word, 16) for name in ("CapEff", "CapPrm", "CapInh") for word in status[name]}
    yield "no_capabilities", held == {0}
    if plan.filtered:
        refused = set(answer["refused"])
        yield f"landlock_abi_{answer['landlock_abi']}", refused >= _BY_LANDLOCK
        yield "seccomp", status["Seccomp"] == ["2"] and refused >= _BY_SECCOMP
    if plan.namespaces:
        yield from _of_namespaces(plan, limits, answer)
    if plan.first_uid is not None:
        yield "own_uid", all(int(uid) >= plan.first_uid for uid in status["Uid"])


def _of_namespaces(plan: Plan, limits: Limits, answer: Message) -> Iterator[Proof]:
    outside, inside = probe.namespaces(), answer["namespaces"]
    yield "own_root", answer["root"] != probe.root()
    yield from ((mechanism, inside[name] != outside[name]) for mechanism, name in _NAMESPACES.items())
    yield "disk_quota", 0 < answer["disk_bytes"] <= limits.disk_mib << 20
    if plan.namespaces == "user":
        yield "user_namespace", inside["user"] != outside["user"]


def _of_group(plan: Plan, box: Box, answer: Message) -> Iterator[Proof]:
    """Yield what its control group does to a child that forks, and then fills memory until it is killed."""
    if box.group is None:
        yield f"cgroup_{plan.accounted}", False
        return
    members = box.group.members()
    yield f"cgroup_{plan.accounted}", _has_filled_up(box) and members == [box.pid]
    yield "group_memory", box.group.is_out_of_memory() and box.group.usage().peak_mib > FILL_MIB / 8
    yield "group_processes", not answer["forked"]
    yield "group_cpu", box.group.usage().cpu_seconds > 0


def _has_filled_up(box: Box) -> bool:
    """Tell whether a child is killed while it fills memory."""
    try:
        _, descriptors = box.receive(PROBE_SECONDS)
    except Ended as ended:
        return os.WIFSIGNALED(ended.status) and os.WTERMSIG(ended.status) == signal.SIGKILL
    except (OutOfMemory, TimedOut, ChannelClosed, Garbled):
        return False
    wire.close(descriptors)
    return False
