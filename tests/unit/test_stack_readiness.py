"""The notify protocol, both ends."""

import asyncio
import os
from pathlib import Path

import pytest

from datarun import notify
from datarun.stack.readiness import Readiness


def test_a_service_says_that_it_is_ready(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its status text comes along; what it said before does not count as ready."""

    async def wait() -> str:
        with Readiness() as readiness:
            monkeypatch.setenv("NOTIFY_SOCKET", readiness.address)
            notify.status("migrating")
            waiting = asyncio.create_task(readiness.wait())
            await asyncio.sleep(0.01)
            assert not waiting.done()
            notify.ready("http://127.0.0.1:8000", detail="in a jail")
            said = await asyncio.wait_for(waiting, 2)
            assert readiness.detail == "in a jail"
            return said

    assert asyncio.run(wait()) == "http://127.0.0.1:8000"


def test_without_anyone_who_asked_nothing_happens(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A service started by hand, or one whose supervisor is gone, goes on."""
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    notify.ready()
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "gone"))
    notify.ready()
    monkeypatch.setenv("NOTIFY_SOCKET", f"@datarun-{os.getpid()}-gone")
    notify.ready()
