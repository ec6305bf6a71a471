"""Talking with a child: what is sent, what is expected, and every other way it can go as the failure it means."""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence

from datarun.errors import FoldFailure
from datarun.events import Cause, Fault, Stage
from services.runner.execution import messages
from services.runner.execution.box import Box, ChannelClosed, Ended, OutOfMemory, TimedOut
from services.runner.execution.deadlines import Deadline
from services.runner.execution.isolated import wire
from services.runner.execution.isolated.wire import Garbled, Message
from services.runner.execution.outcomes import Limits

_NEAR = 0.9


class Conversation:
    """One child's conversation with the runner, until a deadline."""

    def __init__(self, box: Box, *, limits: Limits, deadline: Deadline) -> None:
        self._box = box
        self._limits = limits
        self._deadline = deadline

    def send(self, message: Message, descriptors: Sequence[int]) -> None:
        """Send a message; a child that is gone is noticed when its answer is awaited."""
        try:
            wire.send(self._box.job, message, descriptors)
        except OSError:  # it is ending; how, receiving will say
            return

    def answer(self, stage: Stage, *expected: str, descriptors: int | None = 0) -> tuple[Message, list[int]]:
        """Return an expected message with its descriptors (None: any number); raises FoldFailure for anything else."""
        message, received = self._receive(stage)
        event = message.get("event")
        if event != "raised" and self._box.is_out_of_memory():
            wire.close(received)
            raise self._out_of_memory(stage)
        if event in expected and descriptors in (None, len(received)):
            return message, received
        wire.close(received)
        if event == "raised":
            raise self._raised(stage, message)
        raise messages.protocol_error(stage, f"an unexpected message instead of {' or '.join(expected)}")

    def _receive(self, stage: Stage) -> tuple[Message, list[int]]:
        try:
            return self._within_limits()
        except TimedOut:
            self._box.kill()
            self._box.end()
            text = f"hard time limit of {self._limits.hard_seconds:g} s reached"
            raise messages.failure(stage, Cause.HARD_TIMEOUT, Fault.LIMIT, text) from None
        except OutOfMemory:
            raise self._out_of_memory(stage) from None
        except Ended as ended:
            raise self._ended(stage, ended) from ended
        except ChannelClosed as error:
            raise messages.protocol_error(stage, "the channel was closed") from error
        except Garbled as error:
            raise messages.protocol_error(stage, str(error)) from error

    def _within_limits(self) -> tuple[Message, list[int]]:
        last_seconds = self._limits.last_seconds
        if last_seconds and not self._box.interrupted:
            try:
                return self._box.receive(self._deadline.seconds_left - last_seconds)
            except TimedOut:
                self._box.interrupt()
        return self._box.receive(self._deadline.seconds_left)

    def _raised(self, stage: Stage, message: Message) -> FoldFailure:
        text, trace = message.get("text"), message.get("traceback")
        if not (isinstance(text, str) and isinstance(trace, str)):
            return messages.protocol_error(stage, "an exception without its text")
        match "memory" if self._box.is_out_of_memory() else message.get("kind"):
            case "memory":
                peak = self._box.usage().peak_mib
                note = f"memory limit {self._limits.memory_mib} MiB, peak {peak:.0f} MiB\n"
                return messages.failure(stage, Cause.MEMORY, Fault.LIMIT, text, note + trace)
            case "disk":
                note = f"disk limit {self._limits.disk_mib} MiB\n"
                return messages.failure(stage, Cause.DISK, Fault.LIMIT, text, note + trace)
            case "interrupted" if self._box.interrupted:
                return self._soft_timeout(stage, trace)
            case "shape":
                return messages.failure(stage, Cause.OUTPUT_SHAPE, Fault.USER, text, trace)
            case _:
                return messages.failure(stage, Cause.USER_ERROR, Fault.USER, text, trace)

    def _ended(self, stage: Stage, ended: Ended) -> FoldFailure:
        if self._box.cancelled:
            return messages.cancelled(stage)
        if self._box.is_out_of_memory():
            return self._out_of_memory(stage)
        if self._box.interrupted:
            return self._soft_timeout(stage)
        if not os.WIFSIGNALED(ended.status):
            text = f"exited without a result (exit code {os.WEXITSTATUS(ended.status)})"
            return messages.failure(stage, Cause.USER_ERROR, Fault.USER, text)
        return self._killed(stage, os.WTERMSIG(ended.status), peak_mib=ended.usage.peak_mib)

    def _out_of_memory(self, stage: Stage) -> FoldFailure:
        self._box.kill()
        peak = self._box.end().usage.peak_mib
        text = f"killed at {peak:.0f} MiB (memory limit {self._limits.memory_mib} MiB)"
        return messages.failure(stage, Cause.MEMORY, Fault.LIMIT, text)

    def _soft_timeout(self, stage: Stage, trace: str = "") -> FoldFailure:
        note = f"soft time limit of {self._limits.soft_seconds:g} s reached\n"
        return messages.failure(stage, Cause.SOFT_TIMEOUT, Fault.LIMIT, " Soft Time Limit Exceeded", note + trace)

    def _killed(self, stage: Stage, number: int, *, peak_mib: float) -> FoldFailure:
        if number == signal.SIGXCPU:
            return messages.failure(stage, Cause.HARD_TIMEOUT, Fault.LIMIT, "CPU time limit reached")
        if number == signal.SIGKILL and peak_mib > _NEAR * self._limits.memory_mib:
            text = f"killed at {peak_mib:.0f} MiB (memory limit {self._limits.memory_mib} MiB)"
            return messages.failure(stage, Cause.MEMORY, Fault.LIMIT, text)
        return messages.failure(stage, Cause.SIGNAL, Fault.USER, f"killed by signal {_name_of(number)}")


def _name_of(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # a real-time signal has no name
        return str(number)
