"""connection.json."""

from pathlib import Path

import pytest

from datarun.stack.connection import FILE_NAME, Connection, NotConnected

CONNECTION = Connection(
    gateway_url="http://127.0.0.1:8000",
    kafka="127.0.0.1:9092",
    postgres_url="postgresql://postgres@/datarun",
    blobs="file:///blobs",
    user="datarun",
    password="secret",  # noqa: S106
)


def test_what_is_saved_is_loaded_and_private(tmp_path: Path) -> None:
    """The file holds a password, so only its owner reads it."""
    CONNECTION.save(tmp_path)
    assert Connection.load(tmp_path) == CONNECTION
    assert (tmp_path / FILE_NAME).stat().st_mode & 0o777 == 0o600


def test_a_folder_without_a_stack_names_the_command_that_makes_one(tmp_path: Path) -> None:
    """The error says what to do."""
    with pytest.raises(NotConnected, match="datarun up --dir"):
        Connection.load(tmp_path)


@pytest.mark.parametrize("text", ["", "[]", "{}", "null", '{"gateway_url": 1}', "\x00"])
def test_a_damaged_file_is_named(tmp_path: Path, text: str) -> None:
    """No traceback comes of a file that someone edited."""
    (tmp_path / FILE_NAME).write_text(text)
    with pytest.raises(NotConnected, match=r"connection\.json"):
        Connection.load(tmp_path)
