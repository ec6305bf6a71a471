"""What the runner makes of what comes back: predictions, logs, texts, exceptions."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from datarun.errors import FoldFailure
from datarun.events import Cause, Fault, Stage
from services.runner.execution import messages, predictions
from services.runner.execution.capture import Capture, drain, log_pipe
from services.runner.execution.isolated import wire
from services.runner.execution.isolated.process import SoftTimeLimitExceeded
from services.runner.execution.isolated.report import describe
from services.runner.execution.outcomes import Predictions
from services.runner.execution.programs import server_paths
from services.runner.execution.scrubbing import Scrubber


def of(values: object) -> Predictions:
    """Predictions with these values."""
    array = np.asarray(values, dtype="<f8")
    return Predictions(array.tobytes(), array.shape)


@pytest.mark.parametrize(
    ("stage", "values", "text"),
    [
        (
            Stage.VALIDATION,
            np.ones((3, 2)),
            "\nWrong full train prediction size: \n3 instead of 4 \n - ERROR(validation)\n",
        ),
        (Stage.TEST, np.ones(5), "\n\nWrong test prediction size: \n5 instead of 4 \n - ERROR(test)\n"),
        (Stage.TEST, [[1, np.nan], [1, 1], [np.nan, 1], [1, 1]], "\n\n2 NaN, first at row 0 - ERROR(test)\n"),
        (Stage.TEST, [1, 1, -np.inf, np.nan], "\n\n1 NaN and 1 infinite, first at row 2 - ERROR(test)\n"),
    ],
)
def test_predictions_that_do_not_fit_are_named(stage: Stage, values: object, text: str) -> None:
    """Size and finiteness are checked with the legacy texts."""
    with pytest.raises(FoldFailure) as failure:
        predictions.check(stage, of(values), rows=4)
    assert str(failure.value) == text
    assert failure.value.fault is Fault.USER


def test_predictions_that_fit_pass() -> None:
    """Any finite numbers of the right shape are right, no rows at all included."""
    predictions.check(Stage.TEST, of(np.ones((4, 2))), rows=4, columns=(2,))
    predictions.check(Stage.TEST, of(np.ones((0, 2))), rows=0, columns=(2,))


@pytest.mark.parametrize(
    "header",
    [
        {},
        {"dtype": "<f8"},
        {"dtype": "<f8", "shape": "3"},
        {"dtype": "<f8", "shape": [3.0]},
        {"dtype": "<f8", "shape": [True]},
        {"dtype": "<f8", "shape": [-1]},
        {"dtype": "<f8", "shape": [2]},
        {"dtype": "<f8", "shape": [1] * 9},
        {"dtype": "<f4", "shape": [6]},
    ],
)
def test_a_header_that_is_not_borne_out_is_a_protocol_error(header: dict) -> None:
    """Every header but the one of its file is refused."""
    descriptor = wire.sealed([bytes(24)])
    with pytest.raises(FoldFailure, match="protocol_error") as failure:
        predictions.take(Stage.TEST, header, descriptor, limit_mib=1)
    os.close(descriptor)
    assert failure.value.cause is Cause.POLICY


def test_a_claim_over_the_limit_is_a_limit() -> None:
    """Too large is refused by the header alone."""
    descriptor = wire.sealed([bytes(24)])
    with pytest.raises(FoldFailure, match="exceed the limit of 1 MiB") as failure:
        predictions.take(Stage.TEST, {"dtype": "<f8", "shape": [1 << 40]}, descriptor, limit_mib=1)
    os.close(descriptor)
    assert failure.value.fault is Fault.LIMIT


def test_texts_carry_their_tags() -> None:
    """Each stage has the prefix and the tag that clients know."""
    assert messages.tagged(Stage.SPLIT, "E()", "d\n") == "E()ERROR(split data) \nd\n"
    assert messages.tagged(Stage.TRAIN, "E()", "d\n") == "\nE() - ERROR(train)\nd\n"
    assert messages.tagged(Stage.VALIDATION, "E()") == "\nE() - ERROR(validation)\n"
    assert messages.tagged(Stage.TEST, "E()") == "\n\nE() - ERROR(test)\n"


@pytest.mark.parametrize("chunk", [1, 7, 1000, 100_000])
def test_head_and_tail_of_a_stream_are_kept(chunk: int) -> None:
    """However it comes, the first and the last bytes stay and the rest is counted."""
    stream = bytes(i % 251 for i in range(1_000_003)) if chunk > 1 else bytes(i % 251 for i in range(20_003))
    capture = Capture(1000)
    for start in range(0, len(stream), chunk):
        capture.add(stream[start : start + chunk])
    head, _, tail = capture.text().partition(f"\n[... {len(stream) - 1000} bytes left out ...]\n")
    assert head == stream[:500].decode(errors="replace")
    assert tail == stream[-500:].decode(errors="replace")


def test_a_short_stream_is_kept_whole() -> None:
    """Up to the limit nothing is left out, and text cut between two chunks is whole again."""
    capture = Capture(1000)
    for byte in "é€".encode() * 100:
        capture.add(bytes([byte]))
    assert capture.text() == "é€" * 100


def test_draining_an_open_pipe_does_not_wait() -> None:
    """What is there is read; a writer that may write more is not waited for."""
    reading, writing = log_pipe()
    os.write(writing, b"now")
    capture = Capture(100)
    drain(reading, capture)
    assert capture.text() == "now"
    wire.close([reading, writing])


def test_server_paths_are_scrubbed() -> None:
    """Folders of the box and of the installation leave file names only; what is no text is replaced."""
    scrub = Scrubber(Path("/box/3"), "submission.sub_7")
    text = f"/box/3/submission/sub_7/classifier.py {server_paths()[0]}sklearn/base.py /box/3 \ud800 \0"
    assert scrub(text) == "classifier.py sklearn/base.py  ? \N{REPLACEMENT CHARACTER}"


class Evil(Exception):
    """An exception with nothing but traps."""

    def __repr__(self) -> str:
        """Raise."""
        raise SystemExit

    def __str__(self) -> str:
        """Raise."""
        raise KeyboardInterrupt


def test_an_exception_cannot_break_its_report(tmp_path: Path) -> None:
    """Whatever an exception does when it is shown, it is reported by its class."""
    message = describe(Evil(), tmp_path)
    assert message["text"] == "Evil(its repr raised SystemExit)"
    assert message["kind"] == "error"


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (MemoryError(), "memory"),
        (OSError(12, "none left"), "memory"),
        (OSError(28, "full"), "disk"),
        (OSError(27, "too large"), "disk"),
        (OSError(2, "none"), "error"),
        (SystemExit(1), "error"),
    ],
)
def test_limits_are_told_from_errors(tmp_path: Path, error: BaseException, kind: str) -> None:
    """Memory and disk are limits, everything else is the submission's."""
    assert describe(error, tmp_path)["kind"] == kind


def test_what_comes_of_an_interruption_is_one(tmp_path: Path) -> None:
    """The soft limit's exception is known through those raised from it or while it was handled, others are not."""
    handled = ValueError()
    handled.__context__ = SoftTimeLimitExceeded()
    wrapped = RuntimeError()
    wrapped.__cause__ = handled
    for error in (SoftTimeLimitExceeded(), handled, wrapped):
        assert describe(error, tmp_path)["kind"] == "interrupted"
    assert describe(KeyboardInterrupt(), tmp_path)["kind"] == "error"


def test_a_long_repr_is_cut(tmp_path: Path) -> None:
    """A text of megabytes does not travel."""
    assert len(describe(ValueError("x" * 1_000_000), tmp_path)["text"]) < 10_000
