"""The libraries a submission usually imports, imported once by the zygote so that no fold pays for them."""

from __future__ import annotations

import gc
from importlib import import_module
from pathlib import Path

from .memory import collapse

MODULES = (
    "numpy",
    "numpy.random",
    "pandas",
    "scipy.linalg",
    "scipy.optimize",
    "scipy.sparse",
    "scipy.special",
    "scipy.stats",
    "sklearn.base",
    "sklearn.calibration",
    "sklearn.cluster",
    "sklearn.compose",
    "sklearn.decomposition",
    "sklearn.discriminant_analysis",
    "sklearn.dummy",
    "sklearn.ensemble",
    "sklearn.feature_extraction.text",
    "sklearn.feature_selection",
    "sklearn.gaussian_process",
    "sklearn.impute",
    "sklearn.isotonic",
    "sklearn.kernel_approximation",
    "sklearn.kernel_ridge",
    "sklearn.linear_model",
    "sklearn.metrics",
    "sklearn.model_selection",
    "sklearn.multiclass",
    "sklearn.multioutput",
    "sklearn.naive_bayes",
    "sklearn.neighbors",
    "sklearn.neural_network",
    "sklearn.pipeline",
    "sklearn.preprocessing",
    "sklearn.svm",
    "sklearn.tree",
)


class ManyThreads(Exception):
    """A library started a thread; a process with several cannot be forked safely."""


def warm() -> None:
    """Import and rehearse them, and set their objects apart from garbage collection; raises ManyThreads."""
    for module in MODULES:
        import_module(module)
    import_module(".rehearsal", __package__).rehearse()
    threads = len(list(Path("/proc/self/task").iterdir()))
    if threads != 1:
        message = f"{threads} threads after the imports"
        raise ManyThreads(message)
    gc.collect()
    gc.freeze()
    collapse()
