"""Writes datasets and folds straight into the log, for clients that are producers; see docs/producers.md."""

from __future__ import annotations

from datarun.producer.checks import Invalid
from datarun.producer.messages import Fold, Upload
from datarun.producer.producer import NotSplit, Producer, connect

__all__ = ["Fold", "Invalid", "NotSplit", "Producer", "Upload", "connect"]
