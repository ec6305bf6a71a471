"""What a fold's predictions came from: digests of what it was given, beside what its process computed with."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from datarun.events import Blob, Dataset, FoldRequested, NamedBlob, Provenance, Runtime, Sandbox, Split
from services.runner.execution import datasets
from services.runner.execution.outcomes import Failed, Tested


def with_provenance(
    outcome: Tested | Failed, request: FoldRequested, *, runtime: Runtime | None, sandbox: Sandbox | None
) -> Tested | Failed:
    """Return the outcome of a fold with its provenance, if there are predictions to have one."""
    if isinstance(outcome, Failed) or runtime is None or sandbox is None:
        return outcome
    return replace(outcome, provenance=provenance_of(request, runtime=runtime, sandbox=sandbox))


def provenance_of(request: FoldRequested, *, runtime: Runtime, sandbox: Sandbox) -> Provenance:
    """Return the provenance of a fold that ran in such a process."""
    return Provenance(
        **dict(runtime),
        data=data_digest(request.dataset, datasets.split_of(request.dataset)),
        code=code_digest(request.files),
        train_is=request.train_is.sha256,
        test_is=request.test_is.sha256,
        sandbox_level=sandbox.level,
    )


def data_digest(dataset: Dataset, split: Split) -> str:
    """Return the digest of the files a fold's rows are cut from, and of what decides how they are used."""
    return _digest(
        {
            "files": _named(_files(dataset, split)),
            "target_column": dataset.target_column,
            "workflow_elements": dataset.workflow_elements,
        }
    )


def code_digest(files: Iterable[NamedBlob]) -> str:
    """Return the digest of a submission's files, their names included; their order is of no account."""
    return _digest(_named((file.name, file.blob) for file in files))


def _files(dataset: Dataset, split: Split) -> Iterable[tuple[str, Blob | None]]:
    if split.kind == "standard":
        return (("train", split.train), ("test", split.test))
    return ((file.name, file.blob) for file in datasets.files_of(dataset, split))


def _named(files: Iterable[tuple[str, Blob | None]]) -> list[tuple[str, str]]:
    return sorted((name, blob.sha256) for name, blob in files if blob is not None)


def _digest(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
