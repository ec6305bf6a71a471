"""Every event, declared once: the class name is the wire type, the docstring its sentence, the field types its rules.

Events carry facts and references to blobs, never arrays, code or secrets. One module a subject; all names are here.
"""

from __future__ import annotations

from datarun.events.blobs import Blob, NamedBlob
from datarun.events.data import (
    CustomSplit,
    DataEvent,
    Dataset,
    DataSplit,
    DataUploaded,
    Split,
    SplitFailed,
    SplitPlan,
    SplitRequested,
    StandardSplit,
)
from datarun.events.event import ID_NAMESPACE, Event, Fact
from datarun.events.failures import Cause, Fault, Stage
from datarun.events.fields import (
    Count,
    Delivery,
    Dimension,
    EnvironmentName,
    Id,
    Log,
    Mebibytes,
    Ordinal,
    SandboxLevel,
    Seconds,
    Seed,
    Sha256,
    Share,
    Text,
)
from datarun.events.folds import FoldCancelled, FoldEvent, FoldFenced, FoldRequested, PredictionsFetched, Priority
from datarun.events.measures import Metrics, Provenance, Runtime, Sandbox
from datarun.events.packages import EnvironmentEvent, PackageFailed, PackageInstalled, PackageRequested, PackageResult
from datarun.events.runners import RunnerHeartbeat, RunningFold
from datarun.events.runs import (
    FoldFailed,
    FoldHandedBack,
    FoldLost,
    FoldReproduced,
    FoldStarted,
    FoldTested,
    FoldTrained,
    RunEvent,
)

__all__ = [
    "EVENT_TYPES",
    "ID_NAMESPACE",
    "Blob",
    "Cause",
    "Count",
    "CustomSplit",
    "DataEvent",
    "DataSplit",
    "DataUploaded",
    "Dataset",
    "Delivery",
    "Dimension",
    "EnvironmentEvent",
    "EnvironmentName",
    "Event",
    "Fact",
    "Fault",
    "FoldCancelled",
    "FoldEvent",
    "FoldFailed",
    "FoldFenced",
    "FoldHandedBack",
    "FoldLost",
    "FoldReproduced",
    "FoldRequested",
    "FoldStarted",
    "FoldTested",
    "FoldTrained",
    "Id",
    "Log",
    "Mebibytes",
    "Metrics",
    "NamedBlob",
    "Ordinal",
    "PackageFailed",
    "PackageInstalled",
    "PackageRequested",
    "PackageResult",
    "PredictionsFetched",
    "Priority",
    "Provenance",
    "RunEvent",
    "RunnerHeartbeat",
    "RunningFold",
    "Runtime",
    "Sandbox",
    "SandboxLevel",
    "Seconds",
    "Seed",
    "Sha256",
    "Share",
    "Split",
    "SplitFailed",
    "SplitPlan",
    "SplitRequested",
    "Stage",
    "StandardSplit",
    "Text",
]

EVENT_TYPES: tuple[type[Event], ...] = (
    DataUploaded,
    SplitRequested,
    DataSplit,
    SplitFailed,
    FoldRequested,
    FoldStarted,
    FoldTrained,
    FoldTested,
    FoldFailed,
    FoldLost,
    FoldHandedBack,
    FoldReproduced,
    FoldCancelled,
    FoldFenced,
    PredictionsFetched,
    RunnerHeartbeat,
    PackageRequested,
    PackageInstalled,
    PackageFailed,
)
"""The whole vocabulary of the log."""
