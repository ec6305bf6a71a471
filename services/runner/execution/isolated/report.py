"""What a child says of an exception: a safe text, a kind, and the traceback from its own first file on."""

from __future__ import annotations

import errno
import traceback
from pathlib import Path
from types import TracebackType

from .process import SoftTimeLimitExceeded
from .wire import Message
from .workflow import NotNumbers

MAX_TEXT = 8_000
MAX_TRACEBACK = 20_000
MAX_CHAIN = 8
_PLATFORM = f"{Path(__file__).parent}/"
"""Of the frames below the submission's own, what raises in its name is not its own."""
_DISK = (errno.ENOSPC, errno.EFBIG, errno.EDQUOT)


def describe(error: BaseException, folder: Path) -> Message:
    """Return the message about an exception; nothing its class overrides can break it."""
    trace = _traceback_of(error, folder)  # first: a repr that raises the exception again would lengthen it
    text = str(error)[:MAX_TEXT] if isinstance(error, NotNumbers) else safe_repr(error)
    return {"event": "raised", "kind": _kind_of(error), "text": text, "traceback": trace}


def safe_repr(error: BaseException) -> str:
    """Return an exception's repr, or a text that names its class when the repr itself raises."""
    try:
        text = repr(error)
    except BaseException as other:  # noqa: BLE001 - a submission's own __repr__ may raise anything
        return f"{type(error).__name__}(its repr raised {type(other).__name__})"
    return text if len(text) <= MAX_TEXT else text[:MAX_TEXT] + "…"


def _kind_of(error: BaseException) -> str:
    if isinstance(error, NotNumbers):
        return "shape"
    if _comes_of_an_interruption(error):
        return "interrupted"
    number = error.errno if isinstance(error, OSError) else None
    if isinstance(error, MemoryError) or number == errno.ENOMEM:
        return "memory"
    if number in _DISK:
        return "disk"
    return "error"


def _comes_of_an_interruption(error: BaseException | None) -> bool:
    """Tell whether an exception, or one it was raised from or while handling, is that of the soft limit."""
    for _ in range(MAX_CHAIN):
        if error is None or isinstance(error, SoftTimeLimitExceeded):
            break
        error = error.__cause__ or error.__context__
    return isinstance(error, SoftTimeLimitExceeded)


def _traceback_of(error: BaseException, folder: Path) -> str:
    if isinstance(error, NotNumbers):
        return ""
    try:
        whole = traceback.TracebackException(type(error), error, _own(error.__traceback__, folder), compact=True)
        _trim(whole, folder)
        whole.stack[:] = [frame for frame in whole.stack if not frame.filename.startswith(_PLATFORM)]
        if not whole.stack and not isinstance(error, SyntaxError):
            return ""
        text = "".join(whole.format())
    except BaseException as other:  # noqa: BLE001 - formatting runs the submission's code too
        return f"(the traceback cannot be shown: {type(other).__name__})\n"
    return text if len(text) <= MAX_TRACEBACK else text[: MAX_TRACEBACK // 2] + "\n…\n" + text[-MAX_TRACEBACK // 2 :]


def _own(trace: TracebackType | None, folder: Path) -> TracebackType | None:
    """Return the traceback from the first frame of a file in the folder on; None where there is none."""
    while trace is not None and not trace.tb_frame.f_code.co_filename.startswith(f"{folder}/"):
        trace = trace.tb_next
    return trace


def _trim(whole: traceback.TracebackException, folder: Path) -> None:
    """Cut the platform's frames from the exceptions this one came from."""
    for _ in range(MAX_CHAIN):
        before = whole.__cause__ or whole.__context__
        if before is None:
            return
        names = [frame.filename.startswith(f"{folder}/") for frame in before.stack]
        del before.stack[: names.index(True) if True in names else len(names)]
        whole = before
    whole.__cause__ = whole.__context__ = None
