"""Conditions on events: what people may write selects what they mean, and nothing else can be written."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datarun.events import FoldFailed, FoldTested
from datarun.replay.expressions import BadExpression, condition
from tests.histories import requested, run_event

TESTED = run_event(FoldTested, 7, mark=3)
REQUESTED = requested(7)


@pytest.mark.parametrize(
    "text",
    [
        "fold_id == 7",
        "fold_id in [6, 7] and not attempt > 1",
        "metrics.train_time >= 3.5 or fold_id == -1",
        "1 <= fold_id < 8",
        "type == 'FoldTested'",
        "'log' in log",
        "cause == None",
        "sandbox.level not in (1, 2)",
        "runner_id != 'runner-4'",
    ],
)
def test_what_holds_of_an_event_selects_it(text: str) -> None:
    """Fields, also those within fields, are compared with numbers, texts and lists."""
    assert condition(text)(TESTED)


@pytest.mark.parametrize(
    "text", ["fold_id > 7", "no_such_field > 1", "fold_id > 'a'", "metrics > 1", "dataset.raw_data_id == 1", "5 in log"]
)
def test_what_does_not_hold_or_makes_no_sense_does_not(text: str) -> None:
    """A field that is not there, or a comparison of unlike things, holds of nothing, and breaks nothing."""
    assert not condition(text)(TESTED)


def test_enumerations_are_compared_as_texts() -> None:
    """Causes and priorities are written as they are on the wire."""
    assert condition("cause == 'user_error' and stage == 'train'")(run_event(FoldFailed, 7))
    assert condition("priority == 'H' and dataset.raw_data_id == 1")(REQUESTED)
    assert not condition("priority == 'H'")(TESTED)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "fold_id =",
        "__import__('os').system('true')",
        "[x for x in log]",
        "(lambda: 1)()",
        "log.format(1)",
        "fold_id if 1 else 2",
        "log[0] == 'l'",
        "2 ** 1000000 > 1",
        "'a' * 1000000 == log",
        "f'{log}' == 'x'",
        "x := 1",
        "fold_id == True is 1",
        "not " * 200 + "1",
        "(" * 400 + ")" * 10,
        "a" * 501,
        "b'x' in log",
        "\x00",
    ],
)
def test_anything_else_is_no_expression(text: str) -> None:
    """Calls, indices, arithmetic, loops and what is too long are refused before any event is seen."""
    with pytest.raises(BadExpression):
        condition(text)


@pytest.mark.parametrize(
    "text", ["__class__ == None", "model_fields == None", "log.__len__ == None", "event_id == None"]
)
def test_names_reach_declared_fields_alone(text: str) -> None:
    """What Python knows of an object, and no declaration names, is not there."""
    assert condition(text)(TESTED)


@given(st.text(max_size=60))
def test_no_text_does_anything_else(text: str) -> None:
    """Any text is either refused or tells yes or no of an event."""
    try:
        found = condition(text)
    except BadExpression:
        return
    assert found(TESTED) in (True, False)
