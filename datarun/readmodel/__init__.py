"""The read model: tables that a projection fills and anybody may read. Disposable: the log makes it anew."""

SCHEMA = "rm"
"""The live read model; others are made beside it."""

VERSION = "3"
"""Of the tables; raise it with any change, and the read model is made anew from the log."""
