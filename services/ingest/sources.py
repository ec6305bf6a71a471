"""Python files as text, parsed and never imported: a specific.py has its functions, a submission its elements."""

from __future__ import annotations

import ast
import sys
from collections.abc import Collection, Iterator
from functools import lru_cache
from importlib.machinery import PathFinder

from services.ingest.files import MIB
from services.ingest.forms import Bad
from services.ingest.refusals import file_refused, invalid

ELEMENTS = ("feature_extractor", "classifier", "calibrator", "regressor")
SPECIFIC_FUNCTIONS = ("prepare_data", "get_train_data", "get_test_data", "train_submission", "test_submission")
MAX_SOURCE_BYTES = MIB
_START_HOOKS = ("sitecustomize", "usercustomize")


def check_specific(content: bytes | bytearray) -> None:
    """Raise Bad unless this is Python with the five functions that a dataset of its own kind needs."""
    if len(content) > MAX_SOURCE_BYTES:
        raise Bad(f"More than {MAX_SOURCE_BYTES // MIB} MiB of source.")
    try:
        module = ast.parse(bytes(content))
    except SyntaxError as error:
        where = f"line {error.lineno}: " if error.lineno else ""
        raise Bad(f"{where}{error.msg}") from error
    except (ValueError, RecursionError, MemoryError) as error:
        raise Bad(f"Not Python: {error or 'nested too deep'}.") from error
    names = set(_bound_names(module))
    for function in SPECIFIC_FUNCTIONS:
        if function not in names:
            raise Bad(f"Missing function {function}.")


def _bound_names(module: ast.Module) -> Iterator[str]:
    for statement in ast.walk(module):
        match statement:
            case ast.FunctionDef(name=name):
                yield name
            case ast.ImportFrom(names=aliases):
                yield from (alias.asname or alias.name for alias in aliases)
            case ast.Assign(targets=targets):
                yield from (target.id for target in targets if isinstance(target, ast.Name))
            case _:
                pass


def parse_elements(workflow_elements: str) -> list[str]:
    """Return the elements of a workflow, as they are written: names with commas between."""
    return [element.strip() for element in workflow_elements.split(",")]


def check_elements(workflow_elements: str) -> None:
    """Raise Bad unless every element is one that standard data can have, once."""
    seen: set[str] = set()
    for element in parse_elements(workflow_elements):
        if element not in ELEMENTS:
            raise Bad(f'"{element[:100]}" is not one of {", ".join(ELEMENTS)}.')
        if element in seen:
            raise Bad(f'"{element}" appears twice.')
        seen.add(element)


def check_submission_names(names: Collection[str], workflow_elements: str) -> None:
    """Raise Refusal for a file that would hide a module, or when the file of an element is missing."""
    wanted = [f"{element}.py" for element in parse_elements(workflow_elements) if element in ELEMENTS]
    for name in names:
        module, dot, extension = name.rpartition(".")
        if name not in wanted and dot + extension == ".py" and _is_installed(module):
            raise file_refused(name, "Hides an installed module.")
    for name in wanted:
        if name not in names:
            raise invalid(files=f"Missing {name}.")


@lru_cache(maxsize=10_000)
def _is_installed(module: str) -> bool:
    if module in sys.stdlib_module_names or module in _START_HOOKS:
        return True
    # A folder without code is found as well, but nobody imports it by mistake. Nothing is imported here either.
    found = PathFinder.find_spec(module)
    return found is not None and found.loader is not None
