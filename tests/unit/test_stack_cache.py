"""The cache folder under crashes and company."""

import threading
from pathlib import Path

import pytest

from datarun.stack.cache import fill, write_atomically


def test_what_is_made_once_is_not_made_again(tmp_path: Path) -> None:
    """Two who ask for the same thing at the same time get one made thing."""
    made: list[int] = []

    def make(partial: Path) -> None:
        made.append(1)
        partial.write_text("whole")

    threads = [threading.Thread(target=fill, args=(tmp_path / "thing", make)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (tmp_path / "thing").read_text() == "whole"
    assert made == [1]


def test_a_crash_while_making_leaves_nothing_to_be_taken_for_whole(tmp_path: Path) -> None:
    """What a killed process had half written is made anew."""

    def crash(partial: Path) -> None:
        partial.mkdir()
        (partial / "half").touch()
        raise KeyboardInterrupt

    def make(partial: Path) -> None:
        partial.mkdir()
        (partial / "whole").touch()

    with pytest.raises(KeyboardInterrupt):
        fill(tmp_path / "thing", crash)
    assert not (tmp_path / "thing").exists()
    assert [path.name for path in fill(tmp_path / "thing", make).iterdir()] == ["whole"]


def test_a_file_is_replaced_whole_and_with_its_mode(tmp_path: Path) -> None:
    """A secret is never readable by others, not even between two writes."""
    for text in ("old", "new"):
        write_atomically(tmp_path / "secret", text, mode=0o600)
    assert (tmp_path / "secret").read_text() == "new"
    assert (tmp_path / "secret").stat().st_mode & 0o777 == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["secret"]
