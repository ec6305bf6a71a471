"""Files of scores: cut to what is known to be whole, and gone on with from there."""

from __future__ import annotations

from pathlib import Path

import pytest

from datarun.log import TopicPartition
from datarun.scoring.folds import Part
from datarun.scoring.history import Status
from datarun.scoring.rescoring import Row
from datarun.scoring.sinks import OtherScores, ScoreFile, as_csv, as_jsonl, csv_header

END = {TopicPartition("t", 0): 7, TopicPartition("t", 1): 0}
ROW = Row("fold", 1, 2, 1, 3, 1, Status.CURRENT, Part.VALID, "accuracy", 1 / 3, 1, None)


def test_a_file_goes_on_behind_what_was_saved(tmp_path: Path) -> None:
    """What was written and not saved is written again, once."""
    path = tmp_path / "scores"
    first = ScoreFile(path, asked=("a",))
    assert first.begun() is None
    first.open(None, header=b"head\n")
    first.write(b"one\n")
    first.save(END, groups=1)
    first.write(b"two, of which nobody knows\n")
    second = ScoreFile(path, asked=("a",))
    begun = second.begun()
    assert begun is not None
    assert (begun.groups, begun.offsets) == (1, END)
    second.open(begun, header=b"head\n")
    second.write(b"two\n")
    second.finish()
    assert path.read_bytes() == b"head\none\ntwo\n"


def test_what_is_not_its_own_is_left_alone(tmp_path: Path) -> None:
    """A file without a state, a state of other options, one that is none, a file that has become shorter."""
    path, state = tmp_path / "scores", tmp_path / "scores.state"
    path.write_text("mine")
    with pytest.raises(OtherScores, match="there already"):
        ScoreFile(path, asked=()).begun()
    file = ScoreFile(path, asked=("a",))
    file.open(None, header=b"head\n")
    file.save(END, groups=0)
    with pytest.raises(OtherScores, match="other options"):
        ScoreFile(path, asked=("b",)).begun()
    begun = file.begun()
    path.write_text("")
    with pytest.raises(OtherScores, match="shorter"):
        file.open(begun, header=b"")
    state.write_text("{}")
    with pytest.raises(OtherScores, match="does not tell"):
        file.begun()
    file.forget()
    assert file.begun() is None


def test_lines_hold_every_digit() -> None:
    """So that what is read is the same number."""
    assert as_jsonl([ROW]).count(b"0.3333333333333333") == 1
    assert as_csv([ROW]) == b"fold,1,2,1,3,1,current,valid,accuracy,0.3333333333333333,1,\n"
    assert csv_header().startswith(b"kind,dataset_id,submission_id")
