"""Scoring functions of an operator's own, from a Python file that runs with all the operator may do.

Only a file that is named on the operator's command line is ever imported; nothing of a client's or of a dataset's.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

from datarun.errors import DatarunError
from datarun.scoring.metrics import METRICS, Metric, Takes


class BadFunction(DatarunError):
    """What was named is not a scoring function."""


def load_function(named: str) -> Metric:
    """Return the function that `path.py:name` names, a function of the truth and the predictions.

    It may have `takes`, which is `labels`, `probabilities`, `values` or `any`, and `is_lower_the_better`. The truth
    holds labels as they are in the data; probabilities have a column a class, in the sorted order of the labels.
    Raises BadFunction, also for whatever importing the file raises.
    """
    path, _, name = named.rpartition(":")
    if not path or not name.isidentifier():
        raise BadFunction(f"{named} is not path.py:name")
    if name in METRICS:
        raise BadFunction(f"{name} is the name of a scoring function that there is already")
    function = getattr(_imported(Path(path)), name, None)
    takes = getattr(function, "takes", Takes.ANY)
    if not callable(function):
        raise BadFunction(f"{path} has no function {name}")
    if takes not in list(Takes):
        raise BadFunction(f"{name}.takes is none of {', '.join(Takes)}")
    is_lower_the_better = bool(getattr(function, "is_lower_the_better", False))
    return Metric(
        name=name, function=function, takes=Takes(takes), is_lower_the_better=is_lower_the_better, is_trusted=True
    )


def _imported(path: Path) -> Any:
    spec = importlib.util.spec_from_file_location(f"datarun_function_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise BadFunction(f"{path} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise BadFunction(f"{path} cannot be imported: {error!r}") from error
    return module
