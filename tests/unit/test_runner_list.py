"""The list of runners: one line a host, every mistake named with its line."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datarun.cli.listed import listed, own_names
from datarun.runner_list import RunnerLine, RunnerListInvalid, parse_runners, runner_of

LIST = """
# address concurrency queues hard soft
134.158.75.112 2 L,celery 360 300   # the first one

gpu-01.example.org  8  H,L,data  3600.5  3000
"""


def test_the_list_of_2016_is_understood():
    """Comments and blank lines are allowed, and the queue `celery` is the one of the data."""
    assert parse_runners(LIST) == [
        RunnerLine("134.158.75.112", 2, ("L", "data"), "360", "300"),
        RunnerLine("gpu-01.example.org", 8, ("H", "L", "data"), "3600.5", "3000"),
    ]


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("host 2 L 360", "4 words"),
        ("host 2 L 360 300 x", "6 words"),
        ("../../etc 2 L 360 300", "neither a host name"),
        ("-h 2 L 360 300", "neither a host name"),
        ("host 0 L 360 300", "1 to 256"),
        ("host 257 L 360 300", "1 to 256"),
        ("host two L 360 300", "1 to 256"),
        ("host \u0662 L 360 300", "1 to 256"),
        ("host 2 X 360 300", "some of H,L,data"),
        ("host 2 L, 360 300", "some of H,L,data"),
        ("host 2 L -1 300", "a number of seconds"),
        ("host 2 L inf 300", "a number of seconds"),
        ("host 2 L 360 0.5", "a number of seconds"),
        ("host 2 L 300 360", "above the hard limit"),
        ("134.158.75.112 1 H 9 8", "on line 3 already"),
    ],
)
def test_a_wrong_line_is_named(line, problem):
    """Every wrong line is told at once, with its number."""
    with pytest.raises(
        RunnerListInvalid, match=rf"(?s)\Alist_runners.txt:6: .*{problem}.*\nlist_runners.txt:7: "
    ) as told:
        parse_runners(f"{LIST}{line}\nanother mistake\n")
    assert len(str(told.value).splitlines()) == 2


@given(text=st.text())
def test_no_text_breaks_the_reader(text):
    """Whatever a file holds is runners, or refused as a list."""
    try:
        lines = parse_runners(text)
    except RunnerListInvalid:
        return
    assert all("/" not in line.host and not line.host.startswith((".", "-")) for line in lines)


def test_a_host_finds_its_line_by_name_or_address():
    """None, or two, is an error that says what to do."""
    lines = parse_runners(LIST)
    assert runner_of(lines, ["gpu-01", "GPU-01.example.org", "10.0.0.1"]) == lines[1]
    assert runner_of(lines, ["x", "134.158.75.112"]) == lines[0]
    for names in (["x"], ["gpu-01.example.org", "134.158.75.112"]):
        with pytest.raises(RunnerListInvalid, match="--host"):
            runner_of(lines, names)


def test_the_command_line_takes_the_line_and_what_is_given_wins(tmp_path):
    """Without --list nothing is touched; options by hand come after the line's."""
    path = tmp_path / "list_runners.txt"
    path.write_text(LIST + f"{own_names()[0]} 3 H 60 50\n")
    assert listed(["--slots", "1", "--help"]) == ["--slots", "1", "--help"]
    given_by_hand = ["--list", str(path), "--slots", "1", "--kafka", "k:1"]
    assert listed(given_by_hand) == [
        *("--queues", "H", "--slots", "3", "--hard-limit", "60", "--soft-limit", "50"),
        *("--slots", "1", "--kafka", "k:1"),
    ]
    assert listed([f"--list={path}", "--host", "134.158.75.112"])[:4] == ["--queues", "L,data", "--slots", "2"]
