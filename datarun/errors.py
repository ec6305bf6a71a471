"""Every error datarun raises on purpose. The docstring is the default message.

The kind says what a loop does with it: Retryable is tried again, Rejected never is, FoldFailure ends a fold.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datarun.events import Cause, Fault, Stage


class DatarunError(Exception):
    """Something went wrong in datarun."""

    def __init__(self, message: str | None = None) -> None:
        super().__init__(message or (self.__doc__ or "").strip().splitlines()[0])


class Retryable(DatarunError):
    """A dependency did not answer; the same call may succeed later."""


class LogUnavailable(Retryable):
    """The event log did not acknowledge in time."""


class DatabaseUnavailable(Retryable):
    """The database did not answer."""


class Unconfirmed(DatabaseUnavailable):
    """The database went away while it recorded something; it may have, or not."""


class Rejected(DatarunError):
    """A record can never be applied; it goes to the dead letters with its reason."""

    reason = "rejected"


class Undecodable(Rejected):
    """The record is not a JSON object in UTF-8."""

    reason = "undecodable"


class TooLarge(Rejected):
    """The record has more bytes than an event may."""

    reason = "too_large"


class UnknownType(Rejected):
    """The record names an event type that was never declared."""

    reason = "unknown_type"


class UnknownVersion(Rejected):
    """The record is of a newer version than this program knows."""

    reason = "unknown_version"


class SchemaMismatch(Rejected):
    """The record does not fit the schema of its type."""

    reason = "schema"


class Misrouted(Rejected):
    """The record's key or topic is not that of its event."""

    reason = "misrouted"


class Forged(Rejected):
    """The record is not signed by who may write its event."""

    reason = "forged"


class BlobsMissing(Rejected):
    """A blob that the record names is not in the store."""

    reason = "blob_missing"


class BlobsMismatch(Rejected):
    """A blob that the record names has other bytes than its sha256 says."""

    reason = "blob_mismatch"


class BlobMissing(Retryable):
    """A blob that an event names is not in the store."""


class BlobsUnavailable(Retryable):
    """The blob store did not answer."""


class BlobCorrupt(DatarunError):
    """A blob's bytes do not have the sha256 they are stored under."""


class TopicsDiffer(DatarunError):
    """Topics or share groups exist with other settings than the catalogue's."""


class FoldFailure(DatarunError):
    """A fold ended without predictions, by its submission's fault or by a limit."""

    def __init__(self, message: str, *, stage: Stage, cause: Cause, fault: Fault) -> None:
        super().__init__(message)
        self.stage = stage
        self.cause = cause
        self.fault = fault
