"""The stack's folder: whose it is, and who holds it."""

import subprocess
import sys
from pathlib import Path

import pytest

from datarun.stack.folder import AlreadyRunning, NotOurs, StackFolder
from datarun.stack.process import started_at
from datarun.stack.state import ProcessState, StackState


def test_only_one_holds_a_folder(tmp_path: Path) -> None:
    """A second stack is refused, and the folder is free again when the first ends."""
    folder = StackFolder(tmp_path / "stack")
    assert not folder.is_held()
    with folder.claim():
        assert folder.is_held()
        with pytest.raises(AlreadyRunning), folder.claim():
            pass
    assert not folder.is_held()


def test_a_folder_of_someone_else_is_left_alone(tmp_path: Path) -> None:
    """Neither a start nor a fresh one touches files that are not ours."""
    (tmp_path / "thesis.tex").write_text("precious")
    for fresh in (False, True):
        with pytest.raises(NotOurs, match="--dir"), StackFolder(tmp_path).claim(fresh=fresh):
            pass
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_fresh_start_keeps_nothing_but_its_own_log(tmp_path: Path) -> None:
    """Data, addresses and logs of the last start are gone."""
    folder = StackFolder(tmp_path)
    with folder.claim():
        (tmp_path / "kafka" / "data").mkdir(parents=True)
        (tmp_path / "connection.json").touch()
        (tmp_path / "logs").mkdir()
        folder.log("kafka").touch()
        folder.log("stack").touch()
    with folder.claim(fresh=True):
        left = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")}
    assert left == {".datarun-folder", "run", "run/lock", "logs", "logs/stack.log"}


def test_a_crash_before_the_marker_does_not_lock_us_out(tmp_path: Path) -> None:
    """A folder in which only the run folder was made yet is ours."""
    (tmp_path / "run").mkdir()
    with StackFolder(tmp_path).claim():
        pass


def test_processes_of_a_killed_supervisor_are_ended(tmp_path: Path) -> None:
    """What an earlier start left running does not run beside the new one."""
    folder = StackFolder(tmp_path)
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]) as orphan:
        with folder.claim():
            part = ProcessState(pid=orphan.pid, started_at=started_at(orphan.pid))
            StackState(processes={"kafka": part}).save(folder.run)
        with folder.claim():
            assert orphan.poll() is not None


def test_a_stranger_with_an_old_pid_is_spared(tmp_path: Path) -> None:
    """A pid alone does not name a process: it may have been given to another since."""
    folder = StackFolder(tmp_path)
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]) as stranger:
        with folder.claim():
            StackState(processes={"kafka": ProcessState(pid=stranger.pid, started_at=1.0)}).save(folder.run)
        with folder.claim():
            assert stranger.poll() is None
        stranger.kill()
